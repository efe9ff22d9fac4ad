// The gallery: which cases are shown, in which order; cards are made as they come into view.

const PAGE = 24; // cards that are made at once
const controls = document.getElementById("controls");
const list = document.getElementById("cases");
const more = document.getElementById("more");
let chosen = []; // the cases that the controls ask for, in their order

function matches(one, { variant, group, show, search }) {
  const sought = search.trim().toLocaleLowerCase();
  const lost = scores[show];
  return (
    (!variant || one.variant === variant) &&
    (!group || one.asked.groups.includes(group)) &&
    (show !== ":broken" || isBroken(one)) &&
    (show !== ":identical" || one.identical) &&
    (!lost || badness(one, lost) > 0) &&
    (!sought || [one.asked.id, one.asked.prompt, ...one.asked.lines].join("\n").toLocaleLowerCase().includes(sought))
  );
}

/** Failures, then the rest, worst first by the chosen score and, where that is equal, by the first score of all. */
function ordered(cases) {
  const sort = controls.elements.sort.value;
  if (sort === ":order") return cases;
  const rank = (one, score) => badness(one, score) ?? -Infinity;
  const keys = new Map(cases.map((one) => [one, [isBroken(one) ? 1 : 0, rank(one, scores[sort]), rank(one, data.scores[0]), -one.number]]));
  const compare = (a, b) => {
    const place = a.findIndex((key, i) => key !== b[i]);
    return b[place] - a[place];
  };
  return cases.toSorted((a, b) => compare(keys.get(a), keys.get(b)));
}

function choose() {
  const wanted = Object.fromEntries(new FormData(controls));
  chosen = ordered(data.cases.filter((one) => matches(one, wanted)));
  list.replaceChildren();
  document.getElementById("count").textContent = `${chosen.length} of ${data.cases.length}`;
  document.getElementById("none").hidden = chosen.length > 0;
  show();
}

/** Adds the next cards. */
function show() {
  const start = list.children.length;
  list.append(...chosen.slice(start, start + PAGE).map((one) => make("li", {}, card(one))));
  more.hidden = list.children.length >= chosen.length;
}

function card(one) {
  const { asked } = one;
  const name = `${asked.id}, seed ${asked.seed}, ${one.variant}`;
  const button = make("button", { type: "button", class: "pictures", "data-case": one.number, "aria-label": `Look closely at ${name}` },
    framed("reference", asked.reference?.image, "no reference", asked),
    framed(one.variant, one.picture?.image, one.failure ?? "not in the page", asked),
    framed("difference", one.heat, one.identical ? "identical" : "none", asked));
  return make("article", { class: "case", "data-broken": isBroken(one) },
    button,
    make("header", {}, make("h3", {}, make("bdi", {}, asked.id)), make("span", { class: "seed" }, `seed ${asked.seed}`), chip(one.variant),
      ...troubles(one).map((trouble) => make("span", { class: "trouble" }, trouble))),
    make("p", { class: "prompt", dir: "auto", lang: asked.lang }, asked.prompt),
    readings(one),
    numbers(one));
}

function framed(caption, number, absent, asked) {
  const shown = picture(number, { alt: caption, size: asked.size }, absent);
  return make("span", { class: "framed" }, shown, make("bdi", { class: "caption" }, caption));
}

/** What was read, where it is not what was wanted. */
function readings(one) {
  const read = one.picture?.read;
  if (!read || read.every(([kind]) => kind === "same")) return null;
  return make("p", { class: "read" }, make("span", { class: "soft" }, "read "), reading(read, one.asked.lang));
}

/** All pair scores, and the picture scores that have changed; against the true picture that one which is sorted by. */
function numbers(one) {
  const rows = data.scores.flatMap((score) => {
    if (score.truth && score.name !== controls.elements.sort.value) return [];
    if (score.pair) return one.values[score.name] === undefined ? [] : [[score, value(one, score)]];
    const lost = badness(one, score);
    if (!lost) return [];
    const [before, after] = [one.asked.reference, one.picture].map((shown) => written(shown.values[score.name], score));
    return [[score, `${before} → ${after}`]];
  });
  return make("dl", {}, ...rows.map(([score, text]) => make("div", {}, make("dt", {}, score.brief), make("dd", {}, text, " ", make("small", {}, score.unit)))));
}

/** A pair score in words; identical pictures have no PSNR. */
function value(one, score) {
  return written(one.values[score.name], score) || (one.identical ? "identical" : "–");
}

controls.addEventListener("change", choose);
controls.addEventListener("input", (event) => { if (event.target.type === "search") choose(); });
controls.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", show);
new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting) && !more.hidden) show(); }, { rootMargin: "600px" }).observe(more);
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-case], [data-row]")?.dataset;
  if (!opener) return;
  const number = opener.case ?? data.cases.findIndex((one) => one.row === Number(opener.row) && one.variant === opener.variant);
  look(data.cases[number]);
});
choose();
