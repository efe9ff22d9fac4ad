// The worst contrast (WCAG 2.2, 1.4.3) of the visible text on the page: [ratio, text].
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const luminance = (color) => color.reduce((sum, value, i) => sum + [0.2126, 0.7152, 0.0722][i] * linear(value), 0);
  const background = (element) => {
    const behind = element ? background(element.parentElement) : [1, 1, 1];
    return element ? over(rgba(getComputedStyle(element).backgroundColor), behind) : behind;
  };
  const ratios = [[21, ""]];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || element.closest("script, style, :disabled, .caption, figcaption") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const large = parseFloat(style.fontSize) >= 24;
    const below = background(element);
    const [foreground, behind] = [luminance(over(rgba(style.color), below)), luminance(below)];
    const ratio = (Math.max(foreground, behind) + 0.05) / (Math.min(foreground, behind) + 0.05);
    ratios.push([large ? ratio * 1.5 : ratio, text]);
  }
  return ratios.sort((a, b) => a[0] - b[0])[0];
})()
