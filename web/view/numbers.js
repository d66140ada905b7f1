// How numbers are written in tiles, tooltips, tables and legends.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/**
 * A number with few significant digits, without trailing zeros.
 * @param {number} value
 * @param {number} [digits]
 */
export function formatNumber(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(digits)));
}

/**
 * A size in decimal units: 12.35 GB.
 * @param {number} bytes
 */
export function formatBytes(bytes) {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : unit === 3 || unit === 4 ? 2 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/**
 * A fraction in percent: 0.0812 is 8.12%.
 * @param {number} fraction
 */
export function formatPercent(fraction) {
  const percent = fraction * 100;
  const size = Math.abs(percent);
  if (size === 0) return "0%";
  if (size < 0.01) return `${percent.toExponential(1)}%`;
  const digits = size >= 99.95 ? 1 : size >= 9.995 ? 1 : 2;
  return `${percent.toFixed(digits).replace(/\.0$/, "")}%`;
}

/**
 * A value in the unit of its measure; unknown values are an en dash.
 * @param {number | null | undefined} value
 * @param {"%" | "B" | "" | string} unit
 */
export function formatValue(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (unit === "%") return formatPercent(value);
  if (unit === "B") return formatBytes(value);
  return formatNumber(value);
}

/**
 * A text of a number without trailing zeros, for axes: `5.00%` is `5%`.
 * @param {string} text
 */
export const trimZeros = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");

/**
 * `1 layer`, `2 layers`.
 * @param {number} count
 * @param {string} noun
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
}
