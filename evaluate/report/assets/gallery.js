// The gallery: which items are shown, in which order. Cards are created as they come into view.

const PAGE_SIZE = 24; // cards created at once
const controls = document.getElementById("controls");
const list = document.getElementById("items");
const more = document.getElementById("more");
let selected = []; // the items that match the filters, sorted

function matches(item, { variant, group, show, search }) {
  const query = search.trim().toLocaleLowerCase();
  const lowerScore = scores[show];
  return (
    (!variant || item.variant === variant) &&
    (!group || item.sample.groups.includes(group)) &&
    (show !== ":problems" || hasProblem(item)) &&
    (show !== ":identical" || item.identical) &&
    (!lowerScore || computeLoss(item, lowerScore) > 0) &&
    (!query || [item.sample.id, item.sample.prompt, ...item.sample.lines].join("\n").toLocaleLowerCase().includes(query))
  );
}

/** Sorts items: problems first, then worst first by the selected score and, if that is equal, by the first score of all. */
function sortItems(items) {
  const sort = controls.elements.sort.value;
  if (sort === ":order") return items;
  const rank = (item, score) => computeLoss(item, score) ?? -Infinity;
  const keys = new Map(items.map((item) => [item, [hasProblem(item) ? 1 : 0, rank(item, scores[sort]), rank(item, data.scores[0]), -item.number]]));
  const compare = (a, b) => {
    const place = a.findIndex((key, i) => key !== b[i]);
    return b[place] - a[place];
  };
  return items.toSorted((a, b) => compare(keys.get(a), keys.get(b)));
}

function applyFilters() {
  const filters = Object.fromEntries(new FormData(controls));
  selected = sortItems(data.items.filter((item) => matches(item, filters)));
  list.replaceChildren();
  document.getElementById("count").textContent = `${selected.length} of ${data.items.length}`;
  document.getElementById("none").hidden = selected.length > 0;
  showMore();
}

/** Adds the next cards. */
function showMore() {
  const start = list.children.length;
  list.append(...selected.slice(start, start + PAGE_SIZE).map((item) => createElement("li", {}, createCard(item))));
  more.hidden = list.children.length >= selected.length;
}

function createCard(item) {
  const { sample } = item;
  const name = `${sample.id}, seed ${sample.seed}, ${item.variant}`;
  const button = createElement("button", { type: "button", class: "images", "data-item": item.number, "aria-label": `Open ${name}` },
    createThumbnail("reference", sample.reference?.index, "no reference", sample),
    createThumbnail(item.variant, item.image?.index, item.failure ?? "not in this page", sample),
    createThumbnail("difference", item.heatmap, item.identical ? "identical" : "none", sample));
  return createElement("article", { class: "item", "data-problem": hasProblem(item) },
    button,
    createElement("header", {}, createElement("h3", {}, createElement("bdi", {}, sample.id)), createElement("span", { class: "seed" }, `seed ${sample.seed}`), createChip(item.variant),
      ...listProblems(item).map((problem) => createElement("span", { class: "problem" }, problem))),
    createElement("p", { class: "prompt", dir: "auto", lang: sample.lang }, sample.prompt),
    createRecognizedText(item),
    createScores(item));
}

function createThumbnail(caption, index, reason, sample) {
  const image = createImage(index, { alt: caption, size: sample.size }, reason);
  return createElement("span", { class: "thumbnail" }, image, createElement("bdi", { class: "caption" }, caption));
}

/** Creates the text that OCR read, if it is not the expected one, and the remarks on it. */
function createRecognizedText(item) {
  const spans = item.image?.textDiff;
  const remarks = item.image?.textRemarks ?? [];
  if (!spans || (spans.every(([kind]) => kind === "same") && !remarks.length)) return null;
  return createElement("p", { class: "recognized" }, createElement("span", { class: "soft" }, "OCR: "), createTextDiff(spans, item.sample.lang),
    ...remarks.map((remark) => createElement("span", { class: "soft" }, " · ", createElement("bdi", {}, remark))));
}

/** Creates all pair scores and the image scores that changed; of those against the ground truth, only the one sorted by. */
function createScores(item) {
  const rows = data.scores.flatMap((score) => {
    if (score.usesGroundTruth && score.name !== controls.elements.sort.value) return [];
    if (score.isPairScore) return item.values[score.name] === undefined ? [] : [[score, formatPairScore(item, score)]];
    if (!computeLoss(item, score)) return [];
    const [before, after] = [item.sample.reference, item.image].map((image) => formatScore(image.values[score.name], score));
    return [[score, `${before} → ${after}`]];
  });
  return createElement("dl", {}, ...rows.map(([score, text]) =>
    createElement("div", {}, createElement("dt", {}, score.shortTitle), createElement("dd", {}, text, " ", createElement("small", {}, score.unit)))));
}

/** Formats a pair score; identical images have no PSNR. */
function formatPairScore(item, score) {
  return formatScore(item.values[score.name], score) || (item.identical ? "identical" : "–");
}

controls.addEventListener("change", applyFilters);
controls.addEventListener("input", (event) => { if (event.target.type === "search") applyFilters(); });
controls.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", showMore);
new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting) && !more.hidden) showMore(); }, { rootMargin: "600px" }).observe(more);
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-item], [data-sample]")?.dataset;
  if (!link) return;
  const number = link.item ?? data.items.findIndex((item) => item.sample === data.samples[link.sample] && item.variant === link.variant);
  openItem(data.items[number]);
});
applyFilters();
