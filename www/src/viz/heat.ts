// Values as colours.

import { JepaError } from "../errors.js";
import { emptyImage } from "./canvas.js";

/** Inferno (Smith and van der Walt, CC0) at eleven even steps: even to the eye, and readable without colour vision. */
const INFERNO = [
  [0, 0, 4], [22, 11, 57], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84],
  [221, 81, 58], [243, 120, 25], [252, 165, 10], [246, 215, 70], [252, 255, 164],
] as const;

/** The colours of {@link heatMap} as a CSS background, low values on the left: for the scale beside a map. */
export const INFERNO_CSS = `linear-gradient(to right, ${INFERNO.map((rgb) => `rgb(${rgb.join(" ")})`).join(", ")})`;

/** The colour of a value from 0 to 1, written to `out` as RGBA at `offset`; values beyond have the colours of the ends. */
export function writeInferno(value: number, out: Uint8ClampedArray, offset: number): void {
  const x = Math.min(1, Math.max(0, value)) * (INFERNO.length - 1);
  const step = Math.min(INFERNO.length - 2, Math.floor(x));
  const low = INFERNO[step]!;
  const high = INFERNO[step + 1]!;
  for (let c = 0; c < 3; c++) out[offset + c] = low[c]! + (x - step) * (high[c]! - low[c]!);
  out[offset + 3] = 255;
}

export interface HeatOptions {
  /** The value that is darkest. Default: the lowest that there is. */
  low?: number | undefined;
  /** The value that is brightest. Default: the highest that there is. */
  high?: number | undefined;
}

/**
 * One value for each patch as a picture of a pixel for each, dark to bright; transparent where a value is NaN.
 *
 * @param values - in raster order: `rows · columns` of them
 * @throws JepaError `bad-input` when the values are no whole rows
 */
export function heatMap(values: ArrayLike<number>, columns: number, options: HeatOptions = {}): ImageData {
  if (!Number.isInteger(columns) || columns < 1 || values.length === 0 || values.length % columns > 0) {
    throw new JepaError("bad-input", `${values.length} values are no whole rows of ${columns} patches.`);
  }
  const { low, high } = { ...rangeOf(values), ...given(options) };
  const image = emptyImage(columns, values.length / columns);
  for (let i = 0; i < values.length; i++) {
    if (!Number.isNaN(values[i])) writeInferno((values[i]! - low) / (high - low || 1), image.data, 4 * i);
  }
  return image;
}

/** The lowest and the highest of the values that are numbers; 0 and 0 where none is. */
export function rangeOf(values: ArrayLike<number>): { low: number; high: number } {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (values[i]! < low) low = values[i]!;
    if (values[i]! > high) high = values[i]!;
  }
  return low <= high ? { low, high } : { low: 0, high: 0 };
}

function given(options: HeatOptions): { low?: number; high?: number } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}
