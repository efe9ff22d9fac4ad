// The prompt templates: the choice in the form, and their list.

import { asJson, requestJson } from "./api.js";

const choice = document.querySelector("#template");
const list = document.querySelector("#template-list");
const form = document.querySelector("#template-form");
const error = document.querySelector("#template-error");
const [name, text] = ["#template-name", "#template-text"].map((selector) => document.querySelector(selector));

export async function showTemplates() {
  const templates = await requestJson("/templates");
  const chosen = choice.value;
  choice.replaceChildren(new Option("none", ""), ...templates.map((template) => new Option(template.name, template.name)));
  choice.value = templates.some((template) => template.name === chosen) ? chosen : "";
  list.replaceChildren(...templates.map(makeItem));
}

function makeItem(template) {
  const label = document.createElement("span");
  label.append(Object.assign(document.createElement("strong"), { textContent: template.name }), ` ${template.text}`);
  const remove = Object.assign(document.createElement("button"), {
    type: "button", textContent: "Remove", ariaLabel: `Remove the template ${template.name}`,
  });
  remove.addEventListener("click", async () => {
    await requestJson(`/templates/${template.name}`, { method: "DELETE" });
    await showTemplates();
    name.focus();
  });
  const item = document.createElement("li");
  item.append(label, remove);
  return item;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  error.hidden = true;
  try {
    await requestJson(`/templates/${name.value}`, asJson("PUT", { text: text.value }));
    form.reset();
    await showTemplates();
  } catch (problem) {
    error.textContent = problem.message;
    error.hidden = false;
  }
});
