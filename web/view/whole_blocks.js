// Blocks of which every Linear layer is chosen.

/** @typedef {import("./rule_lines.js").PlacedLayer} PlacedLayer */

/**
 * The layers of other kinds than Linear in blocks whose Linear layers are all chosen; those that
 * are chosen too are left out.
 * @param {PlacedLayer[]} layers
 * @param {Set<number>} chosen
 * @returns {number[]}
 */
export function othersOfWholeBlocks(layers, chosen) {
  /** @type {Map<string, { whole: boolean, others: number[] }>} */
  const blocks = new Map();
  layers.forEach(({ list, block, linear }, i) => {
    if (block < 0) return;
    const key = `${block} ${list}`;
    const known = blocks.get(key) ?? { whole: true, others: [] };
    blocks.set(key, known);
    if (linear && !chosen.has(i)) known.whole = false;
    else if (!linear && !chosen.has(i)) known.others.push(i);
  });
  const touched = new Set([...chosen].map((i) => `${layers[i].block} ${layers[i].list}`));
  return [...blocks].flatMap(([key, { whole, others }]) => (whole && touched.has(key) ? others : []));
}
