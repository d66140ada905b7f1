// Colours by perceived lightness: OKLab (Björn Ottosson, "A perceptual color space for image
// processing", 2020), and CIE lightness of an sRGB colour.

/** @typedef {[red: number, green: number, blue: number]} Rgb values from 0 to 255 */

/** @param {number} value linear, 0 to 1 */
function encoded(value) {
  const v = Math.min(1, Math.max(0, value));
  return 255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055);
}

/** @param {number} value 0 to 255 */
function linear(value) {
  const v = value / 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
}

/**
 * @param {number} lightness 0 to 1
 * @param {number} chroma
 * @param {number} hue degrees
 * @returns {Rgb}
 */
export function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos((hue * Math.PI) / 180);
  const b = chroma * Math.sin((hue * Math.PI) / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    encoded(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    encoded(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    encoded(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

/**
 * CIE L*, 0 (black) to 100 (white).
 * @param {Rgb} colour
 */
export function cieLightness(colour) {
  const [r, g, b] = colour.map(linear);
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return luminance > 216 / 24389 ? 116 * Math.cbrt(luminance) - 16 : (luminance * 24389) / 27;
}

/** @param {Rgb} colour */
export const css = ([r, g, b]) => `rgb(${Math.round(r)},${Math.round(g)},${Math.round(b)})`;

/**
 * @param {string} hex #rrggbb
 * @returns {Rgb}
 */
export function fromHex(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).reduce(
    (colour, part, i) => ((colour[i] = part), colour),
    /** @type {Rgb} */ ([0, 0, 0]),
  );
}
