/** Inferno (Smith and van der Walt, CC0) at eleven even steps: even to the eye, and readable without colour vision. */
const INFERNO = [
  [0, 0, 4], [22, 11, 57], [66, 10, 104], [106, 23, 110], [147, 38, 103], [188, 55, 84],
  [221, 81, 58], [243, 120, 25], [252, 165, 10], [246, 215, 70], [252, 255, 164],
] as const;

export const INFERNO_CSS = `linear-gradient(to right, ${INFERNO.map((rgb) => `rgb(${rgb.join(" ")})`).join(", ")})`;

/** The colour of a value from 0 to 1, written to `out` as RGBA at `offset`. */
export function writeInferno(value: number, out: Uint8ClampedArray, offset: number): void {
  const x = Math.min(1, Math.max(0, value)) * (INFERNO.length - 1);
  const step = Math.min(INFERNO.length - 2, Math.floor(x));
  const low = INFERNO[step]!;
  const high = INFERNO[step + 1]!;
  for (let c = 0; c < 3; c++) out[offset + c] = low[c]! + (x - step) * (high[c]! - low[c]!);
  out[offset + 3] = 255;
}
