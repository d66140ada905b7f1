// Budgets in the units that people type: GB, bits per weight, percent.

/** @typedef {import("./types.js").FrontierPoint} FrontierPoint */
/** @typedef {import("./types.js").Budget} Budget */

export const BUDGET_KINDS = /** @type {const} */ ([
  { value: "size", label: "size, GB", digits: 3 },
  { value: "bits", label: "bits per weight", digits: 3 },
  { value: "error", label: "error, %", digits: 3 },
]);

/**
 * The budget that a point of the frontier just meets, rounded up so that it still does.
 * @param {FrontierPoint} point
 * @param {Budget["kind"]} kind
 */
export function budgetOf(point, kind) {
  const exact = kind === "size" ? point.bytes / 1e9 : kind === "bits" ? point.bits : point.error * 100;
  const least = BUDGET_KINDS.find(({ value }) => value === kind)?.digits ?? 3;
  // Small files need more digits than large ones.
  const digits = exact > 0 ? Math.max(least, 3 - Math.floor(Math.log10(exact))) : least;
  const power = 10 ** digits;
  return Math.ceil(exact * power - 1e-9) / power;
}

/**
 * The point that a budget chooses: the lowest error within a size or bits, the smallest size
 * within an error. Nothing fits: the nearest.
 * @param {FrontierPoint[]} points by size
 * @param {Budget} budget
 */
export function pointWithin(points, { kind, value }) {
  const within = points.map((_, i) => i).filter((i) => budgetOf(points[i], kind) <= value + 1e-9);
  if (within.length === 0) return kind === "error" ? points.length - 1 : 0;
  return kind === "error" ? within[0] : within[within.length - 1];
}
