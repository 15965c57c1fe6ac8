// How far off a prediction is, patch by patch.

import { JepaError } from "../errors.js";

/** Distances of predicted patches on the grid. */
export interface PatchErrors {
  /** In raster order; NaN where a patch was not predicted. */
  values: Float32Array;
  /** The mean over all predictions. */
  mean: number;
}

/**
 * The error of each predicted patch in its place, for {@link heatMap}. Where target blocks overlap, a patch has the mean of its
 * distances.
 *
 * @param error - `[blocks, K]`, as `Jepa.predict` gives it
 * @param targets - the blocks that it was given
 * @param tokens - patches of the grid
 * @throws JepaError `bad-input` when the numbers of distances and targets differ; `bad-mask` for a token outside of the grid
 */
export function predictionErrors(error: ArrayLike<number>, targets: readonly ArrayLike<number>[], tokens: number): PatchErrors {
  const count = targets.reduce((sum, { length }) => sum + length, 0);
  if (count !== error.length || count === 0) throw new JepaError("bad-input", `There are ${error.length} distances for ${count} targets.`);
  const sums = new Float64Array(tokens);
  const counts = new Uint32Array(tokens);
  let total = 0;
  let at = 0;
  for (const block of targets) {
    for (let i = 0; i < block.length; i++, at++) {
      const token = block[i]!;
      if (!(token < tokens)) throw new JepaError("bad-mask", `Token ${token} is outside of a grid of ${tokens}.`);
      sums[token]! += error[at]!;
      counts[token]!++;
      total += error[at]!;
    }
  }
  return { values: Float32Array.from(sums, (sum, token) => sum / counts[token]!), mean: total / count };
}
