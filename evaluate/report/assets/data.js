// The data of the results, and how its numbers are formatted. Text from prompts only ever becomes text nodes.

const data = JSON.parse(document.getElementById("data").textContent);
const scores = Object.fromEntries(data.scores.map((score) => [score.name, score]));
data.items.forEach((item, number) => Object.assign(item, { number, sample: data.samples[item.sample] }));

/** Creates an element with attributes (true: present, false and null: absent) and children (null: none). */
function createElement(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Formats a value of a score as the rest of the page does. */
function formatScore(value, score, signed = false) {
  if (value === null || value === undefined) return "";
  const text = Math.abs(score.factor * value).toFixed(score.digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "\u2212" : signed ? "+" : "") + text;
}

/** Computes a number that is higher the worse the variant is: from a pair score, or the drop of an image score; null: not measured. */
function computeLoss(item, score) {
  const sign = score.higherIsBetter ? 1 : -1;
  if (item.failure !== null) return null;
  if (score.isPairScore) {
    const value = item.values[score.name] ?? null;
    return value === null ? null : -sign * value;
  }
  const [before, after] = [item.sample.reference, item.image].map((image) => image?.values[score.name] ?? null);
  return before === null || after === null ? null : sign * (before - after);
}

/** Lists the failure and the defects of an item. */
function listProblems(item) {
  const problems = item.failure === null ? [] : [item.failure];
  if (item.image?.defect) problems.push(item.image.defect);
  if (item.sample.reference?.defect) problems.push(`reference ${item.sample.reference.defect}`);
  return problems;
}

const hasProblem = (item) => listProblems(item).length > 0;

/** Creates an image of the page, or a placeholder with the reason why there is none. */
function createImage(index, { alt, size }, reason) {
  if (index === null || index === undefined) return createElement("span", { class: "placeholder" }, reason);
  const [width, height] = size ?? [null, null];
  return createElement("img", { src: data.images[index], alt, width, height, decoding: "async" });
}

/** Creates the recognized text: missing characters struck out, extra ones underlined. */
function createTextDiff(spans, language) {
  const tags = { missing: "del", extra: "ins" };
  const parts = spans.map(([kind, text]) => (tags[kind] ? createElement(tags[kind], {}, text) : text));
  return createElement("span", { class: "text", dir: "auto", lang: language }, ...(parts.length ? parts : [createElement("i", {}, "nothing")]));
}

/** Creates a variant's name with its color. */
function createChip(variant) {
  return createElement("bdi", { class: "chip", "data-color": data.variants.indexOf(variant) % 6 }, variant);
}
