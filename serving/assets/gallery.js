// The images that the server keeps.

import { request, requestJson } from "./api.js";

const SHOWN = 12;
const section = document.querySelector("#latest");
const list = document.querySelector("#images");
const urls = new Map(); // of images that were fetched, by name

// Shows the newest images; `open` is called with the facts and the URL of one that is chosen.
export async function showGallery(open) {
  const images = (await requestJson("/images")).slice(0, SHOWN);
  const names = new Set(images.map((image) => image.name));
  for (const [name, url] of urls) {
    if (!names.has(name)) {
      URL.revokeObjectURL(url);
      urls.delete(name);
    }
  }
  const items = await Promise.all(images.map((image) => makeItem(image, open)));
  list.replaceChildren(...items.filter(Boolean));
  section.hidden = !list.children.length;
}

async function fetchImage(name) {
  if (!urls.has(name)) {
    const answer = await request(`/images/${name}`);
    if (!answer.ok) return null;
    urls.set(name, URL.createObjectURL(await answer.blob()));
  }
  return urls.get(name);
}

async function makeItem(facts, open) {
  const url = await fetchImage(facts.name);
  if (!url) return null; // removed meanwhile
  const description = `Image with seed ${facts.seed}`;
  const image = Object.assign(document.createElement("img"), { src: url, alt: description });
  const button = Object.assign(document.createElement("button"), { type: "button", className: "open", title: description });
  button.append(image);
  button.addEventListener("click", () => open(facts, url));
  const remove = Object.assign(document.createElement("button"), {
    type: "button", className: "remove", textContent: "×", ariaLabel: `Remove the image with seed ${facts.seed}`,
  });
  remove.addEventListener("click", async () => {
    await request(`/images/${facts.name}`, { method: "DELETE" });
    await showGallery(open);
    (list.querySelector("button") ?? document.querySelector("#prompt")).focus();
  });
  const item = document.createElement("li");
  item.append(button, remove);
  return item;
}
