// Light or dark: as the reader's system says, until the button has been pressed.
(() => {
  const root = document.documentElement;
  const remembered = () => {
    try { return localStorage.getItem("edgepress-theme"); } catch { return null; } // private windows may refuse
  };
  const remember = (theme) => {
    try { localStorage.setItem("edgepress-theme", theme); } catch { /* the choice then lasts as long as the page */ }
  };
  const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const say = () => document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
  if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
  addEventListener("DOMContentLoaded", () => {
    say();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remember(root.dataset.theme);
      say();
    });
  });
})();
