// Notes, warnings and errors in full: they wrap and are never cut.
import { el } from "./dom.js";
import { safeLines } from "./safe_text.js";

/** @typedef {import("./types.js").Message} Message */

const WORDS = { note: "Note", warning: "Warning", error: "Error" };
const RANK = { error: 0, warning: 1, note: 2 };

/**
 * Errors first, then warnings, then notes.
 * @param {Message[]} messages
 */
export const byLevel = (messages) => [...messages].sort((a, b) => (RANK[a.level] ?? 2) - (RANK[b.level] ?? 2));

/**
 * A text as a sentence: it starts with a capital letter, unless it starts with a name.
 * @param {string} text
 */
export const sentence = (text) => text.replace(/^[a-z](?=[a-z]*[ ,;:])/, (letter) => letter.toUpperCase());

/**
 * @param {HTMLElement} host
 * @param {Message[]} messages
 */
export function drawMessages(host, messages) {
  host.replaceChildren(
    ...byLevel(messages).map(({ level, text }) => {
      const body = el("span");
      body.textContent = safeLines(sentence(text));
      const known = level in WORDS ? level : "note";
      return el(
        "div",
        { class: `nv-message nv-${known}`, attributes: { role: known === "error" ? "alert" : null } },
        el("b", { text: WORDS[known] }),
        body,
      );
    }),
  );
  host.hidden = messages.length === 0;
}
