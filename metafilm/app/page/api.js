// Requests to the server that this page came from. A failure is an Error whose message is for the person.

let session = null;
let revive = async () => {}; // gives a new session the examples of the old one

export function onRevive(action) { revive = action; }

export class Failed extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// What was answered: a Blob where it is a file, else what the JSON says.
async function send(path, body, kind) {
  const headers = { "X-Metafilm": "1", "Content-Type": kind };
  let response;
  try {
    response = await fetch(path, { method: "POST", headers, body });
  } catch {
    throw new Failed("The server does not answer: is metafilm app still running?", 0);
  }
  if (response.ok && !response.headers.get("Content-Type").startsWith("application/json")) return response.blob();
  const said = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  if (said.refused) throw new Failed(said.refused, said.status);
  if (!response.ok) throw new Failed(said.error, response.status);
  return said;
}

export async function open() {
  session = (await send("/api/session", "", "application/json")).session;
}

// `path` says what is asked for; content: a Blob is sent as it is, everything else as JSON.
export async function ask(path, content, query = {}, again = true) {
  const asked = new URLSearchParams({ ...query, session });
  const isFile = content instanceof Blob;
  const body = isFile ? content : JSON.stringify(content ?? null);
  try {
    return await send(`/api/${path}?${asked}`, body, isFile ? content.type || "application/octet-stream" : "application/json");
  } catch (error) {
    if (error.status !== 410 || !again) throw error;
    await open(); // the server has forgotten us
    await revive();
    if (path === "forget") return {}; // what was to go has not come back
    return ask(path, content, query, false);
  }
}

export async function about() {
  const response = await fetch("/api/about");
  if (!response.ok) throw new Failed((await response.json()).error, response.status);
  return response.json();
}

const LONGEST = 1600; // pixels, of a picture that is sent

// A photograph at the size that is of use; anything that the browser can't read goes as it is, so that the
// server says what is wrong with it.
export async function shrunk(file) {
  if (!file.type.startsWith("image/")) return file;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    return file;
  }
  const scale = LONGEST / Math.max(picture.width, picture.height);
  if (scale >= 1) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  return new Promise((done) => canvas.toBlob((blob) => done(blob ?? file), "image/png"));
}
