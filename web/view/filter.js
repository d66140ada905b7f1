// Filter layers by name.
import { globToRegExp } from "./glob.js";

/**
 * Return a test for names: a glob over the whole name if the text has * or ?, else a part of the
 * name, in whichever case. An empty text accepts every name.
 * @param {string} text
 * @returns {(name: string) => boolean}
 */
export function nameFilter(text) {
  const wanted = text.trim();
  if (!wanted) return () => true;
  if (/[*?]/.test(wanted)) {
    const expression = globToRegExp(wanted.toLowerCase());
    return (name) => expression.test(name.toLowerCase());
  }
  const part = wanted.toLowerCase();
  return (name) => name.toLowerCase().includes(part);
}
