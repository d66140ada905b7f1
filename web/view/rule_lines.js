// Turn a set of layers into few clear rule lines that match these layers and no other.
import { escapeGlob, patternMatcher, protectEnds } from "./glob.js";
import { isUnquantized, lineMatcher, parseRuleLine } from "./rules.js";

/** @typedef {import("./rules.js").RuleLayer} RuleLayer */

/**
 * A layer with its place: `list` is the name of its list of blocks, `row` its name within a block.
 * @typedef {RuleLayer & { list: string, row: string }} PlacedLayer
 */

/** @typedef {{ left: string, layers: number[], cost: number }} Candidate */

/**
 * Return the lines that give the chosen layers a format.
 *
 * Layers that a rule of the format does not apply to (other kinds than Linear, for a quantized
 * format) are left out and returned, as are layers whose names no line can tell from others.
 * @param {PlacedLayer[]} layers all layers of the model
 * @param {Iterable<number>} chosen indices into `layers`
 * @param {string} format
 * @param {string[]} [unquantized] the formats whose rules apply to every kind
 * @param {number[]} [free] layers that lines may match or not
 * @returns {{ lines: string[], left_out: number[] }}
 */
export function ruleLines(layers, chosen, format, unquantized, free = []) {
  const everyKind = isUnquantized(format, unquantized);
  /** @type {Set<number>} */
  const wanted = new Set();
  /** @type {number[]} */
  const leftOut = [];
  for (const i of chosen) {
    if (everyKind || layers[i].linear) wanted.add(i);
    else leftOut.push(i);
  }
  const ignored = new Set(free.filter((i) => !wanted.has(i)));
  const universe = layers.flatMap((layer, i) =>
    (everyKind || layer.linear) && !ignored.has(i) ? [i] : [],
  );
  const named = new NamedLayers(layers, universe, wanted);
  const candidates = named.candidates();
  const covered = new Set(candidates.flatMap((candidate) => candidate.layers));
  leftOut.push(...[...wanted].filter((i) => !covered.has(i)));
  const lines = chooseFew(candidates, covered).map(({ left }) => `${left} = ${format}`);
  if (!isExact(lines, layers, covered, ignored, unquantized)) {
    throw new Error("the rule lines do not match the chosen layers exactly");
  }
  return { lines, left_out: leftOut.sort((a, b) => a - b) };
}

/** Candidates for lines: patterns that match chosen layers only, in whole or in some blocks. */
class NamedLayers {
  /**
   * @param {PlacedLayer[]} layers
   * @param {number[]} universe layers that a rule of the format applies to
   * @param {Set<number>} wanted
   */
  constructor(layers, universe, wanted) {
    this.layers = layers;
    this.universe = universe;
    this.wanted = wanted;
    /** @type {Map<string, Candidate>} */
    this.found = new Map();
  }

  /** @returns {Candidate[]} */
  candidates() {
    if (this.wanted.size === 0) return [];
    for (const i of this.wanted) this.addWhole(escapeGlob(this.layers[i].name));
    for (const pattern of this.patterns()) {
      const matches = patternMatcher(protectEnds(pattern));
      const members = this.universe.filter((i) => matches(this.layers[i].name));
      if (members.length < 2) continue;
      if (members.every((i) => this.wanted.has(i))) this.add(pattern, "", members);
      else this.addBlocks(pattern, members);
    }
    return [...this.found.values()];
  }

  /** @returns {Set<string>} */
  patterns() {
    /** @type {Set<string>} */
    const found = new Set(["*"]);
    /** @type {Map<string, Set<string>>} */
    const rowsOf = new Map();
    /** @type {Map<string, Map<number, Set<string>>>} */
    const blocksOf = new Map();
    for (const i of this.wanted) {
      const { list, row, block, name } = this.layers[i];
      if (block < 0) {
        for (const part of partsOf(name)) found.add(part);
        continue;
      }
      if (name !== `${list}.${block}.${row}`) continue;
      rowsOf.set(list, (rowsOf.get(list) ?? new Set()).add(row));
      const blocks = blocksOf.get(list) ?? new Map();
      blocksOf.set(list, blocks.set(block, (blocks.get(block) ?? new Set()).add(row)));
    }
    for (const [list, rows] of rowsOf) {
      const start = escapeGlob(list);
      found.add(`${start}.*`);
      for (const row of rows) {
        found.add(`${start}.*.${escapeGlob(row)}`).add(`*.${escapeGlob(row)}`);
        for (const part of partsOf(row)) {
          found.add(part.startsWith("*") ? `${start}.${part}` : `${start}.*.${part}`);
          if (part.startsWith("*")) found.add(part);
        }
      }
    }
    for (const [list, blocks] of blocksOf) {
      for (const [block, rows] of blocks) this.addOneBlock(`${escapeGlob(list)}.${block}.`, list, block, rows);
    }
    return found;
  }

  /**
   * Patterns within one block start with its name, so only its own rows can match.
   * @param {string} start
   * @param {string} list
   * @param {number} block
   * @param {Set<string>} rows
   */
  addOneBlock(start, list, block, rows) {
    if (rows.size < 2) return;
    const prefix = `${list}.${block}.`;
    const inside = this.universe.filter((i) => this.layers[i].name.startsWith(prefix));
    for (const part of new Set(["*", ...[...rows].flatMap(partsOf)])) {
      const matches = patternMatcher(part);
      const members = inside.filter((i) => matches(this.layers[i].name.slice(prefix.length)));
      if (members.length > 1 && members.every((i) => this.wanted.has(i))) {
        this.add(start + part, "", members);
      }
    }
  }

  /** @param {string} pattern of one name */
  addWhole(pattern) {
    const matches = patternMatcher(protectEnds(pattern));
    const members = this.universe.filter((i) => matches(this.layers[i].name));
    if (members.every((i) => this.wanted.has(i))) this.add(pattern, "", members);
  }

  /**
   * Longest runs of blocks in which a pattern matches chosen layers only.
   * @param {string} pattern
   * @param {number[]} members
   */
  addBlocks(pattern, members) {
    /** @type {Map<number, boolean>} */
    const good = new Map();
    let lists = new Set();
    for (const i of members) {
      const { block, list } = this.layers[i];
      if (block < 0) continue;
      lists = lists.add(list);
      good.set(block, (good.get(block) ?? true) && this.wanted.has(i));
    }
    const count = lists.size === 1 ? this.layers[members.find((i) => this.layers[i].block >= 0) ?? 0].count : 0;
    const blocks = [...good.keys()].sort((a, b) => a - b);
    let from = -1;
    let to = -1;
    const close = () => {
      if (from < 0) return;
      const inside = members.filter((i) => this.layers[i].block >= from && this.layers[i].block <= to);
      this.add(pattern, blockRange(from, to, count), inside);
      from = -1;
    };
    for (const block of blocks) {
      if (!good.get(block)) close();
      else if (from < 0) [from, to] = [block, block];
      else to = block; // blocks between that the pattern does not match do no harm
    }
    close();
  }

  /**
   * @param {string} pattern
   * @param {string} blocks
   * @param {number[]} members
   */
  add(pattern, blocks, members) {
    const left = protectEnds(pattern) + (blocks ? ` @ ${blocks}` : "");
    // Of lines that match the same, the one that says most about its layers is the clearest.
    const stars = left.split("*").length - 1;
    const cost = stars * 40 + (blocks ? 15 : 0) + (pattern.startsWith("*") ? 200 : 0) - pattern.length;
    if (!this.found.has(left)) this.found.set(left, { left, layers: members, cost });
  }
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} count blocks of the list, 0 if the pattern matches in several lists
 */
function blockRange(from, to, count) {
  if (from === to) return String(from);
  if (count > 0 && from === 0) return `first:${to + 1}`;
  if (count > 0 && to === count - 1) return `last:${count - from}`;
  return `${from}-${to}`;
}

/**
 * Globs for the parts of a name that lie between dots and underscores: `attn.*`, `*.to_q`,
 * `*_mlp.*`.
 * @param {string} name
 */
function partsOf(name) {
  const cuts = [...name.matchAll(/[._]/g)].map((match) => match.index ?? 0);
  const found = [];
  for (const [k, from] of cuts.entries()) {
    found.push(`${escapeGlob(name.slice(0, from + 1))}*`, `*${escapeGlob(name.slice(from))}`);
    for (const to of cuts.slice(k + 1)) found.push(`*${escapeGlob(name.slice(from, to + 1))}*`);
  }
  return found;
}

/**
 * Cover layers with few candidates: the one that covers most first, the clearest of equals; then
 * drop those that the others made needless.
 * @param {Candidate[]} candidates
 * @param {Set<number>} covered
 */
function chooseFew(candidates, covered) {
  const open = new Set(covered);
  let left = [...candidates].sort((a, b) => b.layers.length - a.layers.length || a.cost - b.cost);
  /** @type {Candidate[]} */
  const chosen = [];
  while (open.size > 0) {
    let best = left[0];
    let most = 0;
    for (const candidate of left) {
      if (candidate.layers.length < most) break;
      const gain = candidate.layers.reduce((sum, i) => sum + (open.has(i) ? 1 : 0), 0);
      if (gain > most || (gain === most && candidate.cost < best.cost)) {
        best = candidate;
        most = gain;
      }
    }
    chosen.push(best);
    for (const i of best.layers) open.delete(i);
    left = left.filter((candidate) => candidate.layers.some((i) => open.has(i)));
  }
  return withoutNeedless(chosen).sort((a, b) => a.layers[0] - b.layers[0]);
}

/** @param {Candidate[]} chosen */
function withoutNeedless(chosen) {
  let kept = chosen;
  for (const candidate of [...chosen].sort((a, b) => a.layers.length - b.layers.length)) {
    const others = new Set(kept.filter((c) => c !== candidate).flatMap((c) => c.layers));
    if (candidate.layers.every((i) => others.has(i))) kept = kept.filter((c) => c !== candidate);
  }
  return kept;
}

/**
 * @param {string[]} lines
 * @param {PlacedLayer[]} layers
 * @param {Set<number>} expected
 * @param {Set<number>} ignored
 * @param {string[]} [unquantized]
 */
function isExact(lines, layers, expected, ignored, unquantized) {
  const matchers = lines.map((line) => {
    const rule = parseRuleLine(line);
    return rule ? lineMatcher(rule, unquantized) : () => false;
  });
  return layers.every(
    (layer, i) => ignored.has(i) || matchers.some((matches) => matches(layer)) === expected.has(i),
  );
}
