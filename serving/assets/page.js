// The form, the progress of an image, and the image.

import { asJson, readEvents, request, requestJson } from "./api.js";
import { showGallery } from "./gallery.js";
import { showTemplates } from "./templates.js";

const find = (selector) => document.querySelector(selector);
const form = find("#form");
const STAGES = { encoding: "Reading the prompt", denoising: "Step", decoding: "Decoding the image" };
const NUMBERS = ["width", "height", "steps", "seed"];
let controller = null; // of the request that runs

async function start() {
  const server = await requestJson("/server");
  find("#model").textContent = `${server.model}, ${server.engine}`;
  find("#prompt").maxLength = server.max_prompt_characters;
  for (const side of ["width", "height"]) {
    Object.assign(find(`#${side}`), { placeholder: server[side], min: server.side_step, max: server.max_side, step: server.side_step });
  }
  Object.assign(find("#steps"), { placeholder: server.steps, max: server.max_steps });
  const presets = Object.entries(server.presets);
  find("#preset").append(...presets.map(([name, preset]) => new Option(`${name}: ${preset.steps} steps, ${preset.width}×${preset.height}`, name)));
  find("#preset").closest("label").hidden = !presets.length;
  await Promise.all([showTemplates(), showGallery(showImage)]);
}

function collectFields() {
  const fields = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  for (const name of NUMBERS) if (name in fields) fields[name] = Number(fields[name]);
  return { ...fields, response: "events" };
}

async function generate() {
  if (controller || !form.reportValidity()) return;
  controller = new AbortController();
  setBusy(true);
  showStage("Sending the prompt", null);
  try {
    const answer = await request("/generate", { ...asJson("POST", collectFields()), signal: controller.signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    let isOver = false;
    await readEvents(answer, (name, data) => {
      isOver ||= handleEvent(name, data);
    });
    if (!isOver) throw new Error("The server closed the connection. Try again.");
    await showGallery(showImage);
  } catch (problem) {
    if (problem.name !== "AbortError") showError(problem instanceof TypeError ? "The server does not answer. Check that it runs." : problem.message);
  } finally {
    controller = null;
    setBusy(false);
  }
}

// Shows what an event says; returns whether it is the image.
function handleEvent(name, data) {
  if (name === "queued") showStage(data.position ? `Waiting: ${data.position} before this one` : "Starting", null);
  if (name === "progress") {
    const step = data.stage === "denoising" ? ` ${Math.min(data.done + 1, data.total)} of ${data.total}` : "";
    showStage(STAGES[data.stage] + step, data.stage === "denoising" ? data.done / data.total : data.stage === "decoding" ? 1 : 0);
  }
  if (name === "error") throw new Error(data.error.message);
  if (name !== "image") return false;
  showImage(data, data.data_url, find("#prompt").value);
  return true;
}

function showStage(text, share) {
  find("#stage").textContent = text;
  if (share === null) find("#bar").removeAttribute("value");
  else find("#bar").value = share;
}

function setBusy(isBusy) {
  find("#generate").disabled = isBusy;
  find("#cancel").hidden = find("#progress").hidden = !isBusy;
  if (isBusy) find("#error").hidden = true;
}

function showError(message) {
  find("#error").textContent = message;
  find("#error").hidden = false;
}

function showImage(facts, url, prompt = "") {
  Object.assign(find("#image"), { src: url, alt: prompt || `Image with seed ${facts.seed}`, width: facts.width, height: facts.height });
  const entries = { Size: `${facts.width}×${facts.height}`, Steps: facts.steps, Seed: facts.seed, Time: `${facts.seconds.toFixed(1)} s` };
  find("#facts").replaceChildren(...Object.entries(entries).map(([name, value]) => {
    const row = document.createElement("div");
    row.append(
      Object.assign(document.createElement("dt"), { textContent: name }),
      Object.assign(document.createElement("dd"), { textContent: value }),
    );
    return row;
  }));
  find("#warnings").replaceChildren(...facts.warnings.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  Object.assign(find("#download"), { href: url, download: `edgepress-${facts.seed}.${facts.format === "jpeg" ? "jpg" : facts.format}` });
  find("#again").onclick = () => {
    find("#seed").value = facts.seed;
    find("#prompt").focus();
  };
  find("#result").hidden = false;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
find("#cancel").addEventListener("click", () => controller?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") controller?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === find("#prompt")) generate();
});
start().catch((problem) => showError(problem.message));
