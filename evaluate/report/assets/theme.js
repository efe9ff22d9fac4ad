// Light or dark: as the system prefers, until the reader uses the button.
(() => {
  const root = document.documentElement;
  const loadTheme = () => {
    try { return localStorage.getItem("edgepress-theme"); } catch { return null; } // private windows may refuse
  };
  const saveTheme = (theme) => {
    try { localStorage.setItem("edgepress-theme", theme); } catch { /* the choice then lasts as long as the page */ }
  };
  const isDark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const updateButton = () => document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
  if (["light", "dark"].includes(loadTheme())) root.dataset.theme = loadTheme();
  addEventListener("DOMContentLoaded", () => {
    updateButton();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", updateButton);
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      saveTheme(root.dataset.theme);
      updateButton();
    });
  });
})();
