import { sampleMasks, type Grid, type MaskStrategy } from "webjepa";
import type { ClipMasks } from "webjepa/viz";

/** The choices of masks that are sampled: all but the future. */
const SAMPLED: Record<string, MaskStrategy> = {
  block: { strategy: "vjepa-multiblock3d", numBlocks: 1, spatialScale: [0.3, 0.3] },
  tube: { strategy: "tube" },
  short: { strategy: "vjepa-multiblock3d" },
  long: { strategy: "vjepa-multiblock3d", numBlocks: 2, spatialScale: [0.7, 0.7] },
};

/** What of space-time is hidden from the model: the second half of the clip, or what is sampled. */
export function clipMasks(choice: string, grid: Readonly<Grid>, seed: number): ClipMasks {
  const strategy = SAMPLED[choice];
  if (strategy) {
    const { context, targets } = sampleMasks(grid, { ...strategy, seed });
    return { grid, context: context[0]!, targets: targets.map(([block]) => block!) };
  }
  const [steps, rows, columns] = grid;
  const tokens = Uint32Array.from({ length: steps * rows * columns }, (_, i) => i);
  const half = Math.ceil(steps / 2) * rows * columns;
  return { grid, context: tokens.subarray(0, half), targets: [tokens.subarray(half)] };
}
