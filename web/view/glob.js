// Globs as the rules of recipes read them: Python's fnmatchcase over whole names.

const PLAIN = /[*?[]/;

/** @param {string} text */
const quoted = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");

/** @param {string} member of a set between brackets */
const quotedMember = (member) => member.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");

/**
 * The set between brackets as a regular expression; null if it can match nothing.
 * @param {string} set without the brackets
 */
function setSource(set) {
  const negated = set.startsWith("!");
  const members = Array.from(negated ? set.slice(1) : set);
  let source = "";
  for (let i = 0; i < members.length; i += 1) {
    if (members[i + 1] === "-" && i + 2 < members.length) {
      const [low, high] = [members[i], members[i + 2]];
      if (low <= high) source += `${quotedMember(low)}-${quotedMember(high)}`;
      i += 2;
    } else {
      source += quotedMember(members[i]);
    }
  }
  if (!source) return negated ? "." : null;
  return `[${negated ? "^" : ""}${source}]`;
}

/**
 * Translate a glob to a regular expression over whole names.
 * @param {string} pattern
 */
export function globToRegExp(pattern) {
  const characters = Array.from(pattern);
  let source = "";
  for (let i = 0; i < characters.length; i += 1) {
    const character = characters[i];
    if (character === "*") {
      if (!source.endsWith(".*")) source += ".*";
    } else if (character === "?") {
      source += ".";
    } else if (character === "[") {
      let end = i + 1;
      if (characters[end] === "!") end += 1;
      if (characters[end] === "]") end += 1;
      while (end < characters.length && characters[end] !== "]") end += 1;
      if (end >= characters.length) {
        source += "\\[";
      } else {
        source += setSource(characters.slice(i + 1, end).join("")) ?? "(?!)";
        i = end;
      }
    } else {
      source += quoted(character);
    }
  }
  return new RegExp(`^(?:${source})$`, "su");
}

/**
 * Return a function that tells whether a name matches a pattern of a rule: a glob, a plain name,
 * or a regular expression after `re:`. Expressions that only Python can read match nothing.
 * @param {string} pattern
 * @returns {(name: string) => boolean}
 */
export function patternMatcher(pattern) {
  if (pattern.startsWith("re:")) {
    try {
      const expression = new RegExp(`^(?:${pattern.slice(3)})$`, "u");
      return (name) => expression.test(name);
    } catch {
      return () => false;
    }
  }
  if (!PLAIN.test(pattern)) return (name) => name === pattern;
  const expression = globToRegExp(pattern);
  return (name) => expression.test(name);
}

/**
 * Return a glob that matches one text literally, as part of the left side of a rule line.
 * Characters that a line cannot hold become `?`, so the caller must check what else matches.
 * @param {string} text
 */
export function escapeGlob(text) {
  return text
    .replace(/[*?[]/g, "[$&]")
    // A line is cut at line breaks and at the @ before the blocks.
    .replace(/[@\u0000-\u001f\u007f-\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/g, "?");
}

/**
 * Protect the ends of a pattern: a line is stripped, and `#` and `re:` at its start mean more.
 * @param {string} pattern
 */
export function protectEnds(pattern) {
  return pattern
    .replace(/^(#|re:)/, (start) => `[${start[0]}]${start.slice(1)}`)
    .replace(/^ | $/g, "[ ]");
}
