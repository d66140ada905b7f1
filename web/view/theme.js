// The theme as the canvas needs it: colours read from the styles of the view.

/**
 * @typedef {{
 *   dark: boolean, background: string, surface: string, text: string, muted: string,
 *   line: string, accent: string, error: string, font: string,
 * }} Theme
 */

/** @type {Theme} */
export const PAPER = {
  dark: false,
  background: "#ffffff",
  surface: "#ffffff",
  text: "#1c1e24",
  muted: "#5f6673",
  line: "#cbcfd6",
  accent: "#0b62d6",
  error: "#c62828",
  font: "system-ui, sans-serif",
};

/** @param {string} colour rgb(...) as a computed style has it */
function luminance(colour) {
  const parts = (colour.match(/[\d.]+/g) ?? []).map(Number);
  if (parts.length < 3) return 0;
  const [r, g, b] = colour.startsWith("color(") ? parts.map((part) => part * 255) : parts;
  return (0.299 * r + 0.587 * g + 0.114 * b) / 255;
}

/**
 * Read the theme of a mounted view.
 * @param {HTMLElement} root
 * @returns {Theme}
 */
export function readTheme(root) {
  if (root.classList.contains("nv-printing")) return PAPER;
  const probe = document.createElement("span");
  root.append(probe);
  /** @param {string} name */
  const colour = (name) => {
    probe.style.color = `var(--nv-${name})`;
    return getComputedStyle(probe).color;
  };
  const theme = {
    dark: luminance(colour("bg")) < 0.5,
    background: colour("bg"),
    surface: colour("surface"),
    text: colour("text"),
    muted: colour("muted"),
    line: colour("line"),
    accent: colour("accent"),
    error: colour("error"),
    font: getComputedStyle(root).fontFamily,
  };
  probe.remove();
  return theme;
}
