// The page: classes with their examples on one side, the question and its answer on the other.

import { about, ask, Failed, onRevive, open, shrunk } from "/api.js";
import { Pad } from "/pad.js";
import { answer, element, sites, tell } from "/show.js";

const classes = new Map(); // key -> {name, card, shots: [{content, picture, example}]}
const byId = (id) => document.getElementById(id);
let learner = null;
let nextKey = 0, number = 0; // a key is never used again; the number in a new name begins anew
let question = null; // the strokes or the file that is asked about
let asking = false, askAgain = false; // one question at a time, and the newest next
let deviations = null; // by site, as shown
let adapting = 0; // counts the changes of the examples

function guard(action) {
  return (...given) => Promise.resolve(action(...given)).catch((error) => {
    if (!(error instanceof Failed)) throw error;
    tell(error.message);
  });
}

function tools(place, buttons) {
  place.replaceChildren(...buttons.map(([text, kind, action]) => {
    const made = element("button", { type: "button", class: kind }, text);
    made.addEventListener("click", guard(action));
    return made;
  }));
}

// Buttons that ask for files: from the disk, or from the camera where there is one.
function pickers(place, action, many) {
  for (const [text, extra] of [["Upload", many ? { multiple: true } : {}], ["Photo", { capture: "environment" }]]) {
    const input = element("input", { type: "file", accept: "image/*", hidden: true, ...extra });
    input.setAttribute("aria-label", text);
    input.addEventListener("change", guard(async () => {
      const files = [...input.files];
      input.value = "";
      await action(files);
    }));
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => input.click());
    place.append(button, input);
  }
}

function dropInto(paper, action) {
  paper.addEventListener("dragover", (event) => { event.preventDefault(); paper.classList.add("over"); });
  paper.addEventListener("dragleave", () => paper.classList.remove("over"));
  paper.addEventListener("drop", guard(async (event) => {
    event.preventDefault();
    paper.classList.remove("over");
    await action([...event.dataTransfer.files]);
  }));
}

function addClass() {
  if (classes.size >= learner.limits.classes) return tell(`There are ${classes.size} classes, as many as there may be.`);
  const key = nextKey++;
  const card = byId("class-card").content.firstElementChild.cloneNode(true);
  const named = `class ${++number}`;
  const kept = { name: named, card, shots: [] };
  classes.set(key, kept);
  const name = card.querySelector(".name");
  name.value = kept.name;
  name.addEventListener("input", () => { kept.name = name.value.trim() || named; askSoon(); });
  const add = guard(async () => {
    if (pad.empty) return tell("Draw an example first, or upload a picture.");
    const strokes = pad.strokes;
    pad.clear();
    await addShot(key, strokes);
    await adapt();
  });
  const pad = new Pad(card.querySelector(".pad"), `Draw an example of ${kept.name}`, { enter: add });
  tools(card.querySelector(".tools"), [["Add", "primary", add], ["Clear", "", () => pad.clear()]]);
  pickers(card.querySelector(".tools"), (files) => addFiles(key, files), true);
  dropInto(card.querySelector(".paper"), (files) => addFiles(key, files));
  card.querySelector(".remove").setAttribute("aria-label", `Remove ${kept.name}`);
  card.querySelector(".remove").addEventListener("click", guard(async () => {
    classes.delete(key);
    card.remove();
    await forget(kept.shots);
  }));
  byId("classes").append(card);
  showShots(key);
  return key;
}

// Whether the class was still there when the picture had come.
async function addShot(key, content) {
  const kept = classes.get(key);
  if (kept === undefined) return false;
  if (kept.shots.length >= learner.limits.examples) throw new Failed(`A class takes ${learner.limits.examples} examples at most: take one away first.`);
  const found = await ask("example", content, { class: key });
  if (!classes.has(key)) {
    await ask("forget", [found.example]);
    return false;
  }
  kept.shots.push({ content, ...found });
  showShots(key);
  return true;
}

// All the files that can be read, and one message about the others.
async function addFiles(key, files) {
  const refused = [];
  const room = learner.limits.examples - classes.get(key).shots.length;
  tell("");
  for (const file of files.slice(0, room)) {
    try {
      if (!await addShot(key, await checked(file))) break;
    } catch (error) {
      if (!(error instanceof Failed) || error.status === 0) throw error;
      refused.push(`${file.name}: ${error.message}`);
    }
  }
  if (files.length > room) refused.push(`A class takes ${learner.limits.examples} examples at most: ${files.length - room} of ${files.length} pictures were left out.`);
  if (refused.length > 4) refused.splice(3, refused.length, `… and ${refused.length - 3} more.`);
  if (refused.length) tell(refused.join("\n"));
  await adapt();
}

async function checked(file) {
  const content = await shrunk(file);
  if (content.size > learner.limits.bytes) throw new Failed(`it has ${Math.round(content.size / 1e6)} MB, ${Math.floor(learner.limits.bytes / 1e6)} at most: make it smaller`, 413);
  return content;
}

function showShots(key) {
  const { card, shots, name } = classes.get(key);
  const items = shots.map((shot, i) => {
    const take = element("button", { type: "button", "aria-label": `Remove example ${i + 1} of ${name}`, title: "Remove" }, "×");
    take.addEventListener("click", guard(() => { shots.splice(shots.indexOf(shot), 1); showShots(key); return forget([shot]); }));
    return element("li", {}, element("img", { src: shot.picture, alt: `example ${i + 1} of ${name}`, class: `thumb${learner.size <= 48 ? " pixels" : ""}` }), take);
  });
  card.querySelector(".shots").replaceChildren(...(items.length ? items : [element("li", { class: "none" }, "no examples yet")]));
}

async function forget(shots) {
  await ask("forget", shots.map((shot) => shot.example));
  await adapt();
}

const ready = () => [...classes.values()].filter((kept) => kept.shots.length).length >= 2;

// After every change of the examples: adapt, show what that did, ask the question again.
async function adapt() {
  const mine = ++adapting;
  if (!ready()) {
    byId("adaptation").hidden = true;
    byId("answer").replaceChildren(element("p", { class: "soft" }, "First give examples of at least two classes."));
    return;
  }
  byId("answer").classList.add("busy");
  const slow = setTimeout(() => { byId("verdict").textContent = "Adapting to the examples …"; byId("adaptation").hidden = false; }, 400);
  try {
    const found = await ask("adapt", null);
    if (mine !== adapting) return;
    const gate = found.gate ? `The gate took ${stage(found.gate.chosen)}: ${found.gate.why}.` : `This learner has no gate: ${steps()}.`;
    byId("verdict").textContent = `${gate} ${found.examples} examples, ${seconds(found.milliseconds)}.`;
    byId("adaptation").hidden = false;
    deviations = found.sites;
    sites(byId("sites"), deviations);
    if (question === null) byId("answer").replaceChildren(element("p", { class: "soft" }, "Ready: draw or upload what you want to ask about."));
  } finally {
    clearTimeout(slow);
    if (mine === adapting) byId("answer").classList.remove("busy");
  }
  askSoon();
}

const stage = (name) => ({ identity: "no step", encoder: "the task encoder's guess" }[name] ?? `${name.split(" ")[1]} inner steps`);
const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const steps = () => {
  const taken = learner.steps ? `${learner.steps} inner step${learner.steps > 1 ? "s" : ""}` : "";
  const all = [learner.encoder ? "the task encoder's guess" : "", taken].filter(Boolean);
  return all.length ? `always taken: ${all.join(" and ")}` : "it adapts to nothing by itself";
};

function askSoon() {
  if (question === null || !ready()) return;
  if (asking) { askAgain = true; return; }
  asking = true;
  guard(askNow)().finally(() => {
    asking = false;
    if (askAgain) { askAgain = false; askSoon(); }
  });
}

async function askNow() {
  const mine = question;
  const found = await ask("ask", mine);
  if (question === null || found.classes.some((key) => !classes.has(key))) return;
  answer(byId("answer"), found, found.classes.map((key) => classes.get(key).name));
}

function clearQuestion() {
  question = null;
  byId("answer").replaceChildren(element("p", { class: "soft" }, ready() ? "Ready: draw or upload what you want to ask about." : "First give examples of at least two classes."));
}

function askPad() {
  const drawn = () => {
    if (pad.empty) return pad.image ? undefined : clearQuestion();
    question = pad.strokes.map((stroke) => [...stroke]);
    askSoon();
  };
  const pad = new Pad(byId("ask-pad"), "Draw what to ask about", { changed: drawn, lifted: drawn, enter: drawn });
  const upload = async (files) => {
    if (!files.length) return;
    tell("");
    const content = await checked(files[0]);
    question = content;
    await createImageBitmap(content).then((image) => pad.show(image), () => pad.show(null));
    if (!ready()) return;
    try {
      await askNow();
    } catch (error) {
      question = null;
      pad.clear();
      throw error instanceof Failed ? new Failed(`${files[0].name}: ${error.message}`, error.status) : error;
    }
  };
  tools(byId("ask-tools"), [["Clear", "", () => pad.clear()], ["Undo", "", () => pad.undo()]]);
  pickers(byId("ask-tools"), upload, false);
  dropInto(byId("ask-pad").parentElement, upload);
}

async function take() {
  const names = Object.fromEntries([...classes].map(([key, kept]) => [key, kept.name]));
  const file = await ask("task", names);
  const link = element("a", { href: URL.createObjectURL(file), download: "task.safetensors" });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function startOver() {
  const all = [...classes.values()].flatMap((kept) => kept.shots);
  for (const kept of classes.values()) kept.card.remove();
  classes.clear();
  number = 0;
  for (let i = 0; i < 3; i++) addClass();
  await forget(all);
}

onRevive(async () => {
  for (const [key, kept] of classes) {
    for (const shot of kept.shots) Object.assign(shot, await ask("example", shot.content, { class: key }));
  }
});

guard(async () => {
  learner = await about();
  await open();
  const kind = learner.channels === 1 ? "grey" : "colour";
  byId("about").textContent = `${learner.name}: ${kind} pictures of ${learner.size} × ${learner.size} pixels. A task is ${learner.deviations.toLocaleString("en")} numbers at ${learner.sites} sites of one shared network.`;
  for (let i = 0; i < 3; i++) addClass();
  askPad();
  byId("add-class").addEventListener("click", () => { const key = addClass(); if (key !== undefined) classes.get(key).card.querySelector(".name").select(); });
  byId("take").addEventListener("click", guard(take));
  byId("start-over").addEventListener("click", guard(startOver));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => deviations && sites(byId("sites"), deviations));
  document.body.dataset.ready = "yes";
})();
