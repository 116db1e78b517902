// What the page shows: messages, an answer's two columns, a picture of δ.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && typeof value !== "string") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export function tell(text) {
  const place = document.getElementById("message");
  place.replaceChildren();
  place.hidden = !text;
  if (!text) return;
  const close = element("button", { type: "button" }, "Close");
  close.addEventListener("click", () => tell(""));
  place.append(close, text);
}

function percent(value) {
  return value > 0.9995 ? "100 %" : value < 0.0005 ? "0 %" : `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
}

function bar(value, kind, best) {
  const fill = element("span");
  fill.style.width = `${100 * value}%`;
  const meter = element("span", { class: "meter", "aria-hidden": "true" }, fill);
  return element("td", { class: `${kind}${best ? " best" : ""}` }, meter, percent(value));
}

// names: of the answer's classes, in its order.
export function answer(place, found, names) {
  const best = (values) => values.indexOf(Math.max(...values));
  const said = best(found.after), before = best(found.before);
  const sure = element("span", { class: "soft" }, percent(found.after[said]));
  const head = element("p", { class: "said" }, names[said], " ", sure);
  const doubt = found.known === false ? element("p", { class: "doubt" }, "Perhaps none of these: it is unlike all the examples.") : null;
  const rows = names.map((name, i) =>
    element("tr", {}, element("th", { scope: "row", title: name }, name), bar(found.before[i], "old", i === before), bar(found.after[i], "new", i === said)),
  );
  const top = element("tr", {}, ...["", "before", "after adaptation"].map((word) => element("th", { scope: "col" }, word)));
  const table = element("table", { class: "two" }, element("thead", {}, top), element("tbody", {}, ...rows));
  const picture = element("img", { src: found.picture, alt: "your picture as the network sees it", class: "thumb pixels" });
  const seen = element("p", { class: "seen" }, picture, `as the network sees it; answered in ${Math.round(found.milliseconds)} ms`);
  place.replaceChildren(...[head, doubt, table, seen].filter(Boolean));
}

// One strip of cells per site and kind: blue where δ is above 0, orange below, as strong as it is large.
export function sites(place, found) {
  const most = Math.max(...found.flatMap((site) => [...site.gain, ...site.bias].map(Math.abs)), 1e-9);
  place.classList.toggle("many", found.length > 12);
  const head = ["site", "gain δγ", "bias δβ"].map((word) => element("span", {}, word));
  const rows = found.flatMap((site) => [
    element("span", { class: "site", title: site.name || "output" }, site.name || "output"),
    strip(site.gain, most, `gain deviations of ${site.name}: root mean square ${site.gain_size}`),
    strip(site.bias, most, `bias deviations of ${site.name}: root mean square ${site.bias_size}`),
  ]);
  place.replaceChildren(...head, ...rows);
}

function strip(values, most, label) {
  const canvas = element("canvas", { width: values.length, height: 1, role: "img", "aria-label": label, title: label });
  const style = getComputedStyle(document.documentElement);
  const pen = canvas.getContext("2d");
  values.forEach((value, i) => {
    pen.fillStyle = style.getPropertyValue(value > 0 ? "--c0" : "--c1");
    pen.globalAlpha = Math.min(1, Math.sqrt(Math.abs(value) / most));
    pen.fillRect(i, 0, 1, 1);
  });
  canvas.style.imageRendering = "pixelated";
  return canvas;
}
