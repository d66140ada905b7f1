// Text from files is shown as text: characters that would act instead of being seen are escaped.

// C0 and C1 controls, soft hyphens, zero-width and bidi marks, separators, tags, lone surrogates.
const ACTING =
  // eslint-disable-next-line no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e007f}\p{Cs}]/gu;

/** @param {string} character */
function escaped(character) {
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, "0")}`;
  return `\\u{${code.toString(16)}}`;
}

/**
 * Return one line of text in which control and bidi characters are visibly escaped.
 * @param {unknown} value
 */
export function safeText(value) {
  return String(value ?? "").replace(ACTING, escaped);
}

/**
 * Like `safeText`, but line breaks and tabs stay.
 * @param {unknown} value
 */
export function safeLines(value) {
  const text = String(value ?? "").replace(/\r\n/g, "\n");
  return text.replace(ACTING, (c) => (c === "\n" || c === "\t" ? c : escaped(c)));
}

/**
 * Shorten a name in the middle, where names of layers differ least.
 * @param {string} text
 * @param {number} limit characters, at least 3
 */
export function shortenMiddle(text, limit) {
  const characters = Array.from(text);
  if (characters.length <= limit) return text;
  const tail = Math.ceil((limit - 1) * 0.6);
  const head = Math.max(0, limit - 1 - tail);
  return `${characters.slice(0, head).join("")}…${characters.slice(-tail).join("")}`;
}
