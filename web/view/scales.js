// From the values of a measure to shares of a colour scale.
import { formatValue, trimZeros } from "./numbers.js";

/** @typedef {import("./types.js").Measure} Measure */

/**
 * A scale of numbers: `share` is 0 for the lowest and 1 for the highest value. On a logarithmic
 * scale, zero and less are the lowest.
 * @typedef {{
 *   kind: "log" | "linear",
 *   low: number,
 *   high: number,
 *   share: (value: number) => number,
 *   ticks: { share: number, label: string }[],
 * }} NumberScale
 */

/**
 * Round numbers within a range of a logarithmic scale: 1, 2 and 5 times powers of ten.
 * @param {number} low above 0
 * @param {number} high
 */
export function logTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades > 4 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
  const ticks = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
    for (const step of steps) {
      const value = Number(`${step}e${e}`);
      if (value >= low * 0.9999 && value <= high * 1.0001) ticks.push(value);
    }
  }
  return ticks;
}

/**
 * Round numbers within a range, about five.
 * @param {number} low
 * @param {number} high
 */
export function linearTicks(low, high) {
  const rough = (high - low) / 5;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999) ?? power;
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9) + 1e-15; k += 1) {
    ticks.push(Number((k * step).toPrecision(12)));
  }
  return ticks;
}

/**
 * The scale of a measure over known values; null if none is known.
 * @param {Measure} measure not of the scale "category"
 * @param {(number | null)[]} values
 * @returns {NumberScale | null}
 */
export function numberScale(measure, values) {
  const known = /** @type {number[]} */ (values.filter((v) => v !== null && Number.isFinite(v)));
  if (known.length === 0) return null;
  const positive = known.filter((value) => value > 0);
  const kind = measure.scale === "log" && positive.length > 0 ? "log" : "linear";
  const within = kind === "log" ? positive : known;
  let low = within.reduce((least, v) => Math.min(least, v), Infinity);
  let high = within.reduce((most, v) => Math.max(most, v), -Infinity);
  if (kind === "linear" && low >= 0 && low < high / 2) low = 0;
  const flat = low === high;
  /** @type {(value: number) => number} */
  const share = flat
    ? (value) => (value < low ? 0 : 0.5)
    : kind === "log"
      ? (value) => (value <= low ? 0 : Math.min(1, Math.log(value / low) / Math.log(high / low)))
      : (value) => Math.min(1, Math.max(0, (value - low) / (high - low)));
  return { kind, low, high, share, ticks: scaleTicks(kind, low, high, share, measure.unit) };
}

/**
 * Both ends with their values, and round numbers between that leave each other room.
 * @param {"log" | "linear"} kind
 * @param {number} low
 * @param {number} high
 * @param {(value: number) => number} share
 * @param {string} unit
 */
function scaleTicks(kind, low, high, share, unit) {
  if (low === high) return [{ share: 0.5, label: formatValue(low, unit) }];
  const between = (kind === "log" ? logTicks(low, high) : linearTicks(low, high))
    .map((value) => ({ share: share(value), label: trimZeros(formatValue(value, unit)) }));
  const ticks = [{ share: 0, label: formatValue(low, unit) }];
  for (const tick of between) {
    const last = ticks[ticks.length - 1];
    if (tick.share - last.share >= 0.2 && tick.share <= 0.78) ticks.push(tick);
  }
  ticks.push({ share: 1, label: formatValue(high, unit) });
  return ticks;
}
