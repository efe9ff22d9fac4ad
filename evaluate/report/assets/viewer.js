// The viewer: one case as large as the window allows, in five modes, by mouse, touch and keyboard.

const viewer = document.getElementById("viewer");
const stage = document.getElementById("stage");
const amount = document.getElementById("amount");
const MODES = ["side", "swipe", "onion", "switch", "difference"];
let at = 0; // the place among the chosen cases; another variant of the same prompt may stand outside of them

function look(one) {
  if (chosen.includes(one)) at = chosen.indexOf(one);
  fill(one);
  if (!viewer.open) viewer.showModal();
  stage.focus({ preventScroll: true });
}

function fill(one) {
  const { asked } = one;
  document.getElementById("viewer-title").replaceChildren(make("bdi", {}, asked.id), ` seed ${asked.seed} `, chip(one.variant));
  document.getElementById("position").textContent = chosen.length ? `${at + 1} / ${chosen.length}` : "";
  for (const [id, by] of [["previous", -1], ["next", 1]]) document.getElementById(id).disabled = !chosen[at + by];
  document.getElementById("others").replaceChildren(...others(one));
  const [width, height] = asked.size ?? [1, 1];
  stage.style.setProperty("--ratio", width / height);
  stage.classList.toggle("small", Math.max(width, height) <= 256);
  stage.replaceChildren(...layers(one), make("span", { class: "handle", "aria-hidden": "true" }));
  document.getElementById("facts").replaceChildren(...facts(one));
  setMode(stage.dataset.mode);
}

/** A button for each other variant of the same prompt and seed. */
function others(one) {
  const same = data.cases.filter((other) => other.row === one.row && other !== one);
  return same.map((other) => make("button", { type: "button", "data-case": other.number, "aria-label": `Show ${other.variant}` }, chip(other.variant)));
}

function layers(one) {
  const { asked } = one;
  const layer = (kind, caption, number, absent) =>
    make("figure", { "data-kind": kind }, picture(number, { alt: caption, size: asked.size }, absent), make("figcaption", {}, make("bdi", {}, caption)));
  return [
    layer("reference", "reference", asked.reference?.image, "no reference"),
    layer("variant", one.variant, one.picture?.image, one.failure ?? "not in the page"),
    layer("difference", "difference", one.heat, one.identical ? "identical" : "none"),
    ...(asked.truth === null ? [] : [layer("truth", "true picture", asked.truth, "")]),
  ];
}

function facts(one) {
  const { asked } = one;
  const told = troubles(one);
  const links = [["reference", asked.reference?.link], [one.variant, one.picture?.link], ["true picture", asked.truthLink]].filter(([, link]) => link);
  return [
    told.length ? make("p", { class: "trouble" }, told.join(", ")) : null,
    make("p", { class: "prompt", dir: "auto", lang: asked.lang }, asked.prompt),
    asked.lines.length ? spelled(one) : null,
    table(one),
    links.length ? make("p", { class: "soft" }, "originals: ", ...links.flatMap(([name, link], i) => [i ? ", " : "", make("a", { href: link, target: "_blank", rel: "noopener" }, name)])) : null,
  ].filter((part) => part !== null);
}

/** The text that was wanted, and what was read from both pictures. */
function spelled(one) {
  const line = (name, content) => make("div", {}, make("dt", {}, name), make("dd", {}, content));
  const read = [["reference", one.asked.reference], [one.variant, one.picture]].filter(([, shown]) => shown?.read);
  return make("dl", { class: "spelled" },
    line("wanted", make("span", { class: "reading", dir: "auto", lang: one.asked.lang }, one.asked.lines.join("\n"))),
    ...read.map(([name, shown]) => line(make("bdi", {}, name), reading(shown.read, one.asked.lang))));
}

function table(one) {
  const cell = (text) => make("td", {}, text);
  const rows = data.scores.map((score) => {
    const name = make("th", { scope: "row", title: score.title }, score.brief, " ", make("small", {}, score.unit));
    if (score.pair) return make("tr", {}, name, cell(""), cell(value(one, score)), cell(""));
    const [before, after] = [one.asked.reference, one.picture].map((shown) => shown?.values[score.name]);
    const lost = badness(one, score);
    const change = lost === null ? "" : written(score.higher ? -lost : lost, score, true);
    return make("tr", { class: lost > 0 ? "worse" : lost < 0 ? "better" : null }, name, cell(written(before, score)), cell(written(after, score)), cell(change));
  });
  const head = ["", "reference", "variant", "change"].map((text) => make("th", { scope: "col" }, text));
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

function setMode(mode) {
  stage.dataset.mode = mode;
  for (const button of viewer.querySelectorAll("[data-set-mode]")) button.setAttribute("aria-pressed", String(button.dataset.setMode === mode));
  amount.parentElement.hidden = mode !== "swipe" && mode !== "onion";
  document.getElementById("amount-name").textContent = mode === "swipe" ? "divide" : "blend";
  document.getElementById("legend").hidden = mode !== "side" && mode !== "difference";
  stage.style.setProperty("--at", `${amount.value}%`);
  turn(false);
}

/** In the mode `switch`: shows the variant, or the reference. */
function turn(toVariant = stage.dataset.turned !== "true") {
  stage.dataset.turned = String(toVariant);
}

function step(by) {
  if (chosen[at + by]) look(chosen[at + by]);
}

/** The divide follows the pointer. */
function follow(event) {
  const box = stage.getBoundingClientRect();
  amount.value = String(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
  stage.style.setProperty("--at", `${amount.value}%`);
}

stage.addEventListener("pointerdown", (event) => {
  if (stage.dataset.mode === "switch") turn();
  if (stage.dataset.mode !== "swipe") return;
  stage.setPointerCapture(event.pointerId);
  follow(event);
});
stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) follow(event); });
stage.addEventListener("dragstart", (event) => event.preventDefault());
amount.addEventListener("input", () => stage.style.setProperty("--at", `${amount.value}%`));
viewer.addEventListener("click", (event) => {
  const mode = event.target.closest("[data-set-mode]")?.dataset.setMode;
  if (mode) setMode(mode);
  if (event.target === viewer) viewer.close(); // beside the content
});
document.getElementById("close").addEventListener("click", () => viewer.close());
document.getElementById("previous").addEventListener("click", () => step(-1));
document.getElementById("next").addEventListener("click", () => step(1));
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const mode = MODES[Number(event.key) - 1];
  if (mode) setMode(mode);
  else if (event.key === " " && !event.target.closest("button, a")) turn();
  else if (event.key === "ArrowLeft" && event.target !== amount) step(-1);
  else if (event.key === "ArrowRight" && event.target !== amount) step(1);
  else return;
  event.preventDefault();
});
