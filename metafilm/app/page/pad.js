// A canvas to draw on with mouse, pen, finger or keyboard. Strokes are lists of points, 0 to 1 across the canvas.

const STEP = 0.04; // of the keyboard's pen; a quarter of it with Shift

export class Pad {
  // changed(): after any change; lifted(): a stroke has ended; enter(): the Enter key.
  constructor(canvas, label, { changed = () => {}, lifted = () => {}, enter = () => {} } = {}) {
    Object.assign(this, { canvas, changed, lifted, enter });
    this.strokes = [];
    this.image = null; // a picture shown in place of a drawing
    this.pen = null; // of the keyboard: {x, y, down}
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", `${label}. Arrow keys move the pen, Space lowers and lifts it, Backspace takes a stroke back, Escape clears.`);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.away());
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get empty() { return this.strokes.length === 0; }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const inside = (value) => Math.round(1e4 * Math.min(Math.max(value, 0), 1)) / 1e4;
    return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
  }

  down(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.drawing = event.pointerId;
    this.pen = null;
    this.begin(this.place(event));
  }

  begin(point) {
    this.image = null;
    this.strokes.push([point]);
    this.draw();
    this.changed();
  }

  extend(point) {
    const stroke = this.strokes.at(-1), last = stroke.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) < 0.004) return;
    stroke.push(point);
    this.draw();
    this.changed();
  }

  move(event) {
    if (this.drawing !== event.pointerId) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const step of steps.length ? steps : [event]) this.extend(this.place(step));
  }

  up(event) {
    if (this.drawing !== event.pointerId) return;
    this.drawing = null;
    this.lifted();
  }

  key(event) {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const taken = () => event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z") { taken(); this.undo(); }
    } else if (event.key in arrows) {
      taken();
      this.pen ??= { x: 0.5, y: 0.5, down: false };
      const size = event.shiftKey ? STEP / 4 : STEP, [right, down] = arrows[event.key];
      this.pen.x = Math.min(Math.max(this.pen.x + right * size, 0), 1);
      this.pen.y = Math.min(Math.max(this.pen.y + down * size, 0), 1);
      if (this.pen.down) this.extend([this.pen.x, this.pen.y]);
      else this.draw();
    } else if (event.key === " ") {
      taken();
      this.pen ??= { x: 0.5, y: 0.5, down: false };
      this.pen.down = !this.pen.down;
      if (this.pen.down) this.begin([this.pen.x, this.pen.y]);
      else { this.draw(); this.lifted(); }
    } else if (event.key === "Enter") { taken(); this.lift(); this.enter(); }
    else if (event.key === "Backspace") { taken(); this.undo(); }
    else if (event.key === "Escape") { taken(); this.clear(); }
  }

  lift() { if (this.pen) this.pen.down = false; }

  away() {
    if (this.pen?.down) this.lifted();
    this.pen = null;
    this.draw();
  }

  undo() {
    this.lift();
    this.strokes.pop();
    this.draw();
    this.changed();
    this.lifted();
  }

  clear() {
    this.lift();
    this.strokes = [];
    this.image = null;
    this.draw();
    this.changed();
    this.lifted();
  }

  // A picture's own look; null: none. It takes the drawing's place.
  show(image) {
    this.strokes = [];
    this.image = image;
    this.draw();
  }

  draw() {
    const canvas = this.canvas, ratio = devicePixelRatio || 1;
    const side = Math.max(1, Math.round(canvas.clientWidth * ratio));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, side, side);
    if (this.image) {
      const scale = side / Math.min(this.image.width, this.image.height);
      const width = this.image.width * scale, height = this.image.height * scale;
      pen.drawImage(this.image, (side - width) / 2, (side - height) / 2, width, height);
    }
    pen.strokeStyle = pen.fillStyle = getComputedStyle(canvas).color;
    pen.lineWidth = side / 26;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) {
      pen.beginPath();
      pen.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      for (const [x, y] of stroke.length > 1 ? stroke : [stroke[0], stroke[0]]) pen.lineTo(x * side, y * side);
      pen.stroke();
    }
    if (this.pen) {
      pen.lineWidth = ratio;
      pen.beginPath();
      pen.arc(this.pen.x * side, this.pen.y * side, side / 40, 0, 7);
      if (this.pen.down) pen.fill();
      else pen.stroke();
    }
    canvas.parentElement.querySelector(".hint").hidden = !this.empty || this.image !== null;
  }
}
