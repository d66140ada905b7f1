// The colours of the map. Both palettes are told apart by lightness alone, so they work without
// colour vision and in print; formats also have letters.
import { cieLightness, css, oklch } from "./oklab.js";

/** @typedef {import("./oklab.js").Rgb} Rgb */

const STEPS = 64;
const LIGHTEST = 96;
const DARKEST = 22;

/**
 * OKLCH lightness that gives a CIE lightness, by bisection.
 * @param {number} wanted CIE L*
 * @param {number} chroma
 * @param {number} hue
 * @returns {Rgb}
 */
function withLightness(wanted, chroma, hue) {
  let low = 0;
  let high = 1;
  for (let step = 0; step < 20; step += 1) {
    const middle = (low + high) / 2;
    if (cieLightness(oklch(middle, chroma, hue)) < wanted) low = middle;
    else high = middle;
  }
  return oklch(low, chroma, hue);
}

/**
 * From cream over orange and magenta to deep purple, in even steps of lightness.
 * @type {Rgb[]}
 */
export const SEQUENTIAL = Array.from({ length: STEPS }, (_, i) => {
  const t = i / (STEPS - 1);
  const hue = 100 - 145 * t ** 0.9;
  const chroma = 0.045 + 0.125 * Math.sin(Math.PI * Math.min(1, t * 0.9 + 0.08)) ** 1.1;
  return withLightness(LIGHTEST + (DARKEST - LIGHTEST) * t, chroma, hue);
});

const SEQUENTIAL_CSS = SEQUENTIAL.map(css);

/**
 * The colour of a share of the scale. High values stand out from the background: dark on a light
 * theme, light on a dark one.
 * @param {number} share 0 (low) to 1 (high)
 * @param {boolean} dark whether the theme is dark
 */
export function sequentialColour(share, dark) {
  const at = Math.round(Math.min(1, Math.max(0, share)) * (STEPS - 1));
  return SEQUENTIAL_CSS[dark ? STEPS - 1 - at : at];
}

/**
 * Formats in the order of the palette: hue by family, lightness by precision within the formats
 * that usually meet. No two have the same lightness or letter.
 * @type {{ [format: string]: { letter: string, lightness: number, chroma: number, hue: number } }}
 */
const FORMATS = {
  nvfp4_smooth: { letter: "S", lightness: 24, chroma: 0.1, hue: 255 },
  convrot_w4a4: { letter: "C", lightness: 28, chroma: 0.1, hue: 300 },
  convrot_w4a8: { letter: "D", lightness: 33, chroma: 0.13, hue: 310 },
  asym_w4a8_int8: { letter: "Y", lightness: 37, chroma: 0.13, hue: 280 },
  nvfp4: { letter: "N", lightness: 41, chroma: 0.13, hue: 255 },
  int8_tensorwise: { letter: "I", lightness: 45.5, chroma: 0.12, hue: 20 },
  int8_rowwise: { letter: "R", lightness: 50, chroma: 0.12, hue: 0 },
  nvfp4_w4a16: { letter: "W", lightness: 54.5, chroma: 0.09, hue: 210 },
  int8_convrot: { letter: "V", lightness: 59, chroma: 0.13, hue: 345 },
  keep: { letter: "K", lightness: 63.5, chroma: 0.012, hue: 250 },
  mxfp8: { letter: "M", lightness: 68, chroma: 0.13, hue: 145 },
  float8_e5m2: { letter: "E", lightness: 72.5, chroma: 0.12, hue: 45 },
  float8_e4m3fn: { letter: "F", lightness: 77, chroma: 0.13, hue: 75 },
  float8_e4m3fn_w8a16: { letter: "A", lightness: 81, chroma: 0.11, hue: 95 },
  fp32: { letter: "3", lightness: 85, chroma: 0.03, hue: 130 },
  bf16: { letter: "B", lightness: 89, chroma: 0.05, hue: 215 },
  fp16: { letter: "H", lightness: 93, chroma: 0.04, hue: 180 },
};

// For formats that are not in the list.
const SPARE_LIGHTNESS = [30.5, 70, 83, 20, 57, 75, 47.5];
const SPARE_LETTERS = "GJLOPQTUXZ";

/**
 * @typedef {{ name: string, letter: string, rgb: Rgb, colour: string, ink: string }} FormatColour
 */

/**
 * The colours of the formats of a view, by name.
 * @param {Iterable<string>} formats
 * @returns {Map<string, FormatColour>}
 */
export function formatColours(formats) {
  let spare = 0;
  /** @type {Map<string, FormatColour>} */
  const found = new Map();
  for (const name of formats) {
    if (!name || found.has(name)) continue;
    let entry = FORMATS[name];
    if (!entry) {
      entry = {
        letter: SPARE_LETTERS[spare % SPARE_LETTERS.length],
        lightness: SPARE_LIGHTNESS[spare % SPARE_LIGHTNESS.length],
        chroma: 0.09,
        hue: (spare * 137.5 + 160) % 360,
      };
      spare += 1;
    }
    const rgb = withLightness(entry.lightness, entry.chroma, entry.hue);
    const ink = inkOn(rgb);
    found.set(name, { name, letter: entry.letter, rgb, colour: css(rgb), ink });
  }
  return found;
}

/** The names of the formats that have a colour of their own. */
export const KNOWN_FORMATS = Object.keys(FORMATS);

/**
 * Black or white, whichever reads better on a colour.
 * @param {Rgb} colour
 */
export function inkOn(colour) {
  return cieLightness(colour) > 58 ? "#111" : "#fff";
}
