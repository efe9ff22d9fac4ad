// The viewer: one item as large as the window allows, in five modes, by mouse, touch and keyboard.

const viewer = document.getElementById("viewer");
const stage = document.getElementById("stage");
const amount = document.getElementById("amount");
const MODES = ["grid", "swipe", "blend", "toggle", "difference"];
let position = 0; // among the selected items; another variant of the same prompt may be outside of them

function openItem(item) {
  if (selected.includes(item)) position = selected.indexOf(item);
  renderItem(item);
  if (!viewer.open) viewer.showModal();
  stage.focus({ preventScroll: true });
}

function renderItem(item) {
  const { sample } = item;
  document.getElementById("viewer-title").replaceChildren(createElement("bdi", {}, sample.id), ` seed ${sample.seed} `, createChip(item.variant));
  document.getElementById("position").textContent = selected.length ? `${position + 1} / ${selected.length}` : "";
  for (const [id, by] of [["previous", -1], ["next", 1]]) document.getElementById(id).disabled = !selected[position + by];
  document.getElementById("variants").replaceChildren(...createVariantButtons(item));
  const [width, height] = sample.size ?? [1, 1];
  stage.style.setProperty("--ratio", width / height);
  stage.classList.toggle("small", Math.max(width, height) <= 256);
  stage.replaceChildren(...createLayers(item), createElement("span", { class: "handle", "aria-hidden": "true" }));
  document.getElementById("facts").replaceChildren(...createFacts(item));
  setMode(stage.dataset.mode);
}

/** Creates a button for each other variant of the same prompt and seed. */
function createVariantButtons(item) {
  return data.items.filter((variant) => variant.sample === item.sample && variant !== item).map((variant) =>
    createElement("button", { type: "button", "data-item": variant.number, "aria-label": `Show ${variant.variant}` }, createChip(variant.variant)));
}

function createLayers(item) {
  const { sample } = item;
  const createLayer = (kind, caption, index, reason) =>
    createElement("figure", { "data-kind": kind }, createImage(index, { alt: caption, size: sample.size }, reason), createElement("figcaption", {}, createElement("bdi", {}, caption)));
  return [
    createLayer("reference", "reference", sample.reference?.index, "no reference"),
    createLayer("variant", item.variant, item.image?.index, item.failure ?? "not in this page"),
    createLayer("difference", "difference", item.heatmap, item.identical ? "identical" : "none"),
    ...(sample.groundTruth === null ? [] : [createLayer("ground-truth", "ground truth", sample.groundTruth, "")]),
  ];
}

function createFacts(item) {
  const { sample } = item;
  const problems = listProblems(item);
  const links = [["reference", sample.reference?.link], [item.variant, item.image?.link], ["ground truth", sample.groundTruthLink]].filter(([, link]) => link);
  return [
    problems.length ? createElement("p", { class: "problem" }, problems.join(", ")) : null,
    createElement("p", { class: "prompt", dir: "auto", lang: sample.lang }, sample.prompt),
    sample.lines.length ? createTextComparison(item) : null,
    createScoreTable(item),
    links.length ? createElement("p", { class: "soft" }, "files: ", ...links.flatMap(([name, link], i) => [i ? ", " : "", createElement("a", { href: link, target: "_blank", rel: "noopener" }, name)])) : null,
  ].filter((part) => part !== null);
}

/** Creates the expected text, and what OCR read from both images. */
function createTextComparison(item) {
  const createLine = (name, content) => createElement("div", {}, createElement("dt", {}, name), createElement("dd", {}, content));
  const images = [["reference", item.sample.reference], [item.variant, item.image]].filter(([, image]) => image?.textDiff);
  return createElement("dl", { class: "ocr" },
    createLine("expected", createElement("span", { class: "text", dir: "auto", lang: item.sample.lang }, item.sample.lines.join("\n"))),
    ...images.map(([name, image]) => createLine(createElement("bdi", {}, name), createElement("span", {}, createTextDiff(image.textDiff, item.sample.lang),
      ...image.textRemarks.map((remark) => createElement("span", { class: "soft" }, " · ", createElement("bdi", {}, remark)))))));
}

function createScoreTable(item) {
  const createCell = (text) => createElement("td", {}, text);
  const rows = data.scores.map((score) => {
    const name = createElement("th", { scope: "row", title: score.title }, score.shortTitle, " ", createElement("small", {}, score.unit));
    if (score.isPairScore) return createElement("tr", {}, name, createCell(""), createCell(formatPairScore(item, score)), createCell(""));
    const [before, after] = [item.sample.reference, item.image].map((image) => image?.values[score.name]);
    const loss = computeLoss(item, score);
    const change = loss === null ? "" : formatScore(score.higherIsBetter ? -loss : loss, score, true);
    return createElement("tr", { class: loss > 0 ? "worse" : loss < 0 ? "better" : null }, name, createCell(formatScore(before, score)), createCell(formatScore(after, score)), createCell(change));
  });
  const header = ["", "reference", "variant", "change"].map((text) => createElement("th", { scope: "col" }, text));
  return createElement("table", {}, createElement("thead", {}, createElement("tr", {}, ...header)), createElement("tbody", {}, ...rows));
}

function setMode(mode) {
  stage.dataset.mode = mode;
  for (const button of viewer.querySelectorAll("[data-set-mode]")) button.setAttribute("aria-pressed", String(button.dataset.setMode === mode));
  amount.parentElement.hidden = mode !== "swipe" && mode !== "blend";
  document.getElementById("amount-name").textContent = mode === "swipe" ? "divider" : "opacity";
  document.getElementById("legend").hidden = mode !== "grid" && mode !== "difference";
  stage.style.setProperty("--amount", `${amount.value}%`);
  toggle(false);
}

/** In the mode `toggle`: shows the variant, or the reference. */
function toggle(toVariant = stage.dataset.toggled !== "true") {
  stage.dataset.toggled = String(toVariant);
}

function moveBy(step) {
  if (selected[position + step]) openItem(selected[position + step]);
}

/** Moves the divider to the pointer. */
function moveDivider(event) {
  const box = stage.getBoundingClientRect();
  amount.value = String(Math.round(100 * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width))));
  stage.style.setProperty("--amount", `${amount.value}%`);
}

stage.addEventListener("pointerdown", (event) => {
  if (stage.dataset.mode === "toggle") toggle();
  if (stage.dataset.mode !== "swipe") return;
  stage.setPointerCapture(event.pointerId);
  moveDivider(event);
});
stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) moveDivider(event); });
stage.addEventListener("dragstart", (event) => event.preventDefault());
amount.addEventListener("input", () => stage.style.setProperty("--amount", `${amount.value}%`));
viewer.addEventListener("click", (event) => {
  const mode = event.target.closest("[data-set-mode]")?.dataset.setMode;
  if (mode) setMode(mode);
  if (event.target === viewer) viewer.close(); // a click on the backdrop
});
document.getElementById("close").addEventListener("click", () => viewer.close());
document.getElementById("previous").addEventListener("click", () => moveBy(-1));
document.getElementById("next").addEventListener("click", () => moveBy(1));
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const mode = MODES[Number(event.key) - 1];
  if (mode) setMode(mode);
  else if (event.key === " " && !event.target.closest("button, a")) toggle();
  else if (event.key === "ArrowLeft" && event.target !== amount) moveBy(-1);
  else if (event.key === "ArrowRight" && event.target !== amount) moveBy(1);
  else return;
  event.preventDefault();
});
