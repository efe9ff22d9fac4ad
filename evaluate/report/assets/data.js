// What the results hold, and how its numbers are written. Text from prompts only ever becomes text nodes.

const data = JSON.parse(document.getElementById("data").textContent);
const scores = Object.fromEntries(data.scores.map((score) => [score.name, score]));
data.cases.forEach((one, number) => Object.assign(one, { number, asked: data.rows[one.row] }));

/** An element with attributes (true: present, false and null: absent) and children (null: none). */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A score's number as the rest of the page writes it. */
function written(value, score, signed = false) {
  if (value === null || value === undefined) return "";
  const text = Math.abs(score.factor * value).toFixed(score.digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? "\u2212" : signed ? "+" : "") + text;
}

/** Higher where the variant is worse: its pair score, or what it lost against the reference; null: not measured. */
function badness(one, score) {
  const sign = score.higher ? 1 : -1;
  if (one.failure !== null) return null;
  if (score.pair) {
    const value = one.values[score.name] ?? null;
    return value === null ? null : -sign * value;
  }
  const [before, after] = [one.asked.reference, one.picture].map((picture) => picture?.values[score.name] ?? null);
  return before === null || after === null ? null : sign * (before - after);
}

/** Whether a case has no comparison to show, or a picture that shows nothing. */
const isBroken = (one) => one.failure !== null || Boolean(one.picture?.defect) || Boolean(one.asked.reference?.defect);

/** What is the matter with a case, in words. */
function troubles(one) {
  const told = one.failure === null ? [] : [one.failure];
  if (one.picture?.defect) told.push(one.picture.defect);
  if (one.asked.reference?.defect) told.push(`reference ${one.asked.reference.defect}`);
  return told;
}

/** A picture of the page, or the reason why there is none. */
function picture(number, text, absent) {
  if (number === null || number === undefined) return make("span", { class: "absent" }, absent);
  const [width, height] = text.size ?? [null, null];
  return make("img", { src: data.images[number], alt: text.alt, width, height, decoding: "async" });
}

/** What was read, with what is missing struck out and what is too much underlined. */
function reading(pieces, language) {
  const tags = { missing: "del", extra: "ins" };
  const parts = pieces.map(([kind, text]) => (tags[kind] ? make(tags[kind], {}, text) : text));
  return make("span", { class: "reading", dir: "auto", lang: language }, ...(parts.length ? parts : [make("i", {}, "nothing")]));
}

/** A variant's name with its colour. */
function chip(variant) {
  return make("bdi", { class: "chip", "data-colour": data.variants.indexOf(variant) % 6 }, variant);
}
