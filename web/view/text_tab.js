// The text report, with a button that copies it.
import { button, el } from "./dom.js";
import { safeLines } from "./safe_text.js";

/** The line below the headings of a table. */
const RULER = /^[ \t]*-{3}[- \t+|]*$/m;

/**
 * @param {string} text
 * @returns {HTMLElement}
 */
export function textTab(text) {
  const pre = el("pre", { class: "nv-text", attributes: { tabindex: "0" } });
  for (const { table, lines } of textParts(safeLines(text))) {
    const part = el("div", { class: table ? "nv-columns" : "nv-words" });
    part.textContent = lines;
    pre.append(part);
  }
  const copy = button("Copy", async () => {
    copy.textContent = (await copyText(text, pre)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return el("div", { class: "nv-text-box" }, el("div", { class: "nv-toolbar" }, copy), pre);
}

/**
 * The parts of a report between blank lines. Tables, which have a line of dashes, keep their
 * columns; other parts may wrap.
 * @param {string} text
 * @returns {{ table: boolean, lines: string }[]}
 */
export function textParts(text) {
  return text
    .split(/\n[ \t]*\n/)
    .map((part) => part.replace(/^(?:[ \t]*\n)+|\s+$/g, ""))
    .filter(Boolean)
    .map((lines) => ({ table: RULER.test(lines), lines }));
}

/**
 * Copy a text; where the browser forbids that, select it.
 * @param {string} text
 * @param {HTMLElement} shown
 */
async function copyText(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(shown);
    const selection = getSelection();
    selection?.removeAllRanges();
    selection?.addRange(range);
    return document.execCommand("copy");
  }
}
