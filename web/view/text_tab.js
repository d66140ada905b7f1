// The text report, with a button that copies it.
import { button, el } from "./dom.js";
import { safeLines } from "./safe_text.js";

/**
 * @param {string} text
 * @returns {HTMLElement}
 */
export function textTab(text) {
  const pre = el("pre", { class: "nv-text", attributes: { tabindex: "0" } });
  safeLines(text).split("\n").forEach((line, index) => {
    if (index > 0) pre.append("\n");
    pre.append(isTableRow(line) ? el("span", { class: "nv-row", text: line }) : line);
  });
  const copy = button("Copy", async () => {
    copy.textContent = (await copyText(text, pre)) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  return el("div", { class: "nv-text-box" }, el("div", { class: "nv-toolbar" }, copy), pre);
}

/**
 * Whether a line is a row of columns, which would be unreadable if it were wrapped.
 * @param {string} line
 */
const isTableRow = (line) => line.trim().split(/ {2,}/).length >= 3 || /^[-─]+$/.test(line);

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
