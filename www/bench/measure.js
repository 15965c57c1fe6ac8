// Comparing, timing and summing up; runs wherever the contestants run.
import { pseudoRandom } from "./models.mjs";

/** One batch of normalised pictures, or clips, in the two layouts in use: planar [B, 3, (T,) H, W], and each for itself interleaved [(T,) H, W, 3]. */
export function pictures({ imageSize, frames = 1 }, batch, name = "bench/input.image") {
  const size = frames * imageSize * imageSize;
  const planar = pseudoRandom(name, batch * 3 * size, 1);
  const interleaved = Array.from({ length: batch }, (_, image) => {
    const out = new Float32Array(size * 3);
    for (let channel = 0; channel < 3; channel++) {
      const plane = (image * 3 + channel) * size;
      for (let i = 0; i < size; i++) out[i * 3 + channel] = planar[plane + i];
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

/** How far each contestant's numbers are from those of the nearest other contestant; with nobody to compare with there is nothing to be wrong about. */
export function distances(entries) {
  const alone = new Set(entries.map(({ contestant }) => contestant)).size === 1;
  return entries.map(({ contestant, outputs }) => {
    const others = entries.filter((other) => other.contestant !== contestant);
    const apart = (other) => Math.max(...outputs.map((output) => maxAbsDiff(output, other.outputs[0])));
    return alone ? 0 : Math.min(...others.map(apart));
  });
}

export function summary(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted.at(-1), rounds: sorted.length };
}

/** A value of another process, which timed its making itself. */
export class ElsewhereTimed {
  constructor(value, ms) {
    Object.assign(this, { value, ms });
  }
}

export async function timed(work) {
  const start = performance.now();
  const value = await work();
  const ms = performance.now() - start;
  return value instanceof ElsewhereTimed ? { ...value } : { ms, value };
}

/**
 * Runs once, and again until `warmUpMs` have passed since the beginning: V8 recompiles hot wasm in the background for seconds.
 * Gives the values of the first and the last run, which may be the same one, and the time of the last.
 */
export async function warmUp(run, warmUpMs) {
  const start = performance.now();
  const first = await timed(run);
  let last = first;
  while (performance.now() - start < warmUpMs) last = await timed(run);
  return { values: [first.value, last.value], ms: last.ms };
}

/** From this many milliseconds on, a round is long enough for two of them to do. */
const LONG_ROUND = 60_000;

/**
 * Warm rounds that fit the time budget, every run once a round, each round starting with another.
 * Gives each run's times, or `{ failed }` for one that failed on the way and ran no more; values go to `note(index, value)`,
 * outside the timed part.
 */
export async function race(runs, { budgetMs, minRounds, maxRounds }, note) {
  const times = runs.map(() => []);
  const failures = new Map();
  const start = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    const elapsed = performance.now() - start;
    const least = elapsed >= LONG_ROUND * round ? Math.min(2, minRounds) : minRounds;
    if (round > 0 && round >= least && elapsed * ((round + 1) / round) > budgetMs) break;
    for (let turn = 0; turn < runs.length; turn++) {
      const i = (round + turn) % runs.length;
      if (failures.has(i)) continue;
      try {
        const { ms, value } = await timed(runs[i]);
        times[i].push(ms);
        note(i, value);
      } catch (error) {
        failures.set(i, { failed: String(error?.message ?? error) });
      }
    }
  }
  return times.map((list, i) => failures.get(i) ?? summary(list));
}
