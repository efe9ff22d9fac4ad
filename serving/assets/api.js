// Requests to the server: with the token if it has one, and events as they arrive.

const TOKEN = "edgepress-token";
let signIn = null; // one dialog for all requests that wait for the token

export async function request(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    const token = sessionStorage.getItem(TOKEN);
    if (token) headers.set("Authorization", `Bearer ${token}`);
    const answer = await fetch(path, { ...options, headers });
    if (answer.status !== 401) return answer;
    signIn ??= askForToken(Boolean(token)).finally(() => { signIn = null; });
    await signIn;
  }
}

export async function requestJson(path, options = {}) {
  const answer = await request(path, options);
  if (answer.status === 204) return null;
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error.message);
  return content;
}

export const asJson = (method, content) => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(content),
});

// Calls `handle` with the name and data of each server-sent event.
export async function readEvents(answer, handle) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => splitOnce(line, ": ")));
      if (fields.event) handle(fields.event, JSON.parse(fields.data));
    }
  }
}

function splitOnce(text, separator) {
  const index = text.indexOf(separator);
  return [text.slice(0, index), text.slice(index + separator.length)];
}

function askForToken(wasWrong) {
  const dialog = document.querySelector("#sign-in");
  const field = document.querySelector("#token");
  document.querySelector("#token-error").hidden = !wasWrong;
  field.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, field.value);
      resolve();
    }, { once: true });
  });
}
