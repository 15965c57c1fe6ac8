// Comparing, timing and summing up; runs wherever the contestants run.
import { pseudoRandom } from "./models.mjs";

/** One batch of normalised pictures in the two layouts in use: planar [B, 3, H, W], and per picture interleaved [H, W, 3]. */
export function pictures(model, batch, name = "bench/input.image") {
  const side = model.imageSize;
  const planar = pseudoRandom(name, batch * 3 * side * side, 1);
  const interleaved = Array.from({ length: batch }, (_, image) => {
    const out = new Float32Array(side * side * 3);
    for (let channel = 0; channel < 3; channel++) {
      const plane = (image * 3 + channel) * side * side;
      for (let i = 0; i < side * side; i++) out[i * 3 + channel] = planar[plane + i];
    }
    return out;
  });
  return { planar, interleaved };
}

/** Infinite where a value is no number or the lengths differ: neither is agreement. */
export function maxAbsDiff(a, b) {
  if (a.length !== b.length) return Infinity;
  let max = 0;
  for (let i = 0; i < a.length; i++) {
    const diff = Math.abs(a[i] - b[i]);
    if (Number.isNaN(diff)) return Infinity;
    max = Math.max(max, diff);
  }
  return max;
}

export function summary(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1), rounds: sorted.length };
}

export async function timed(work) {
  const start = performance.now();
  const value = await work();
  return { ms: performance.now() - start, value };
}

/**
 * Warm rounds that fit the time budget, every side once a round, each round starting with another side.
 * Gives each side's times, and how far any of its outputs was from `references`.
 */
export async function race(sides, references, input, { budgetMs, minRounds, maxRounds }) {
  const times = sides.map(() => []);
  const diffs = sides.map(() => 0);
  const start = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    if (round >= minRounds && (performance.now() - start) * ((round + 1) / round) > budgetMs) break;
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (round + turn) % sides.length;
      const { ms, value } = await timed(() => sides[i].run(input));
      times[i].push(ms);
      diffs[i] = Math.max(diffs[i], maxAbsDiff(value, references[i]));
    }
  }
  return sides.map((_, i) => ({ time: summary(times[i]), diff: diffs[i] }));
}
