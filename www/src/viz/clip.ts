// The frames of a clip, and what of them is predicted.

import { JepaError } from "../errors.js";
import type { Grid } from "../types.js";
import { checkSize, sized, type Canvas, type Drawable } from "./canvas.js";
import { checkTokens, drawMasks } from "./masks.js";

const GAP = 4;

/** Which tokens of a clip are seen and which are predicted: indices in raster order, `(t · height + row) · width + column`. */
export interface ClipMasks {
  grid: Readonly<Grid>;
  context: Uint32Array | readonly number[];
  targets: readonly (Uint32Array | readonly number[])[];
}

export interface ClipOptions {
  /** How many frames, from the first on, the model sees; the others are predicted. This, or `masks`. */
  seen?: number | undefined;
  /** What of each frame the model sees; each time step of the grid has as many frames as any other. */
  masks?: ClipMasks | undefined;
  /** Frames in a row. Default 4. */
  columns?: number | undefined;
  /** Length of a frame's longer side in pixels. Default: that of the first. */
  side?: number | undefined;
}

/**
 * Draws the frames of a clip in rows, in time from left to right, each as {@link drawMasks} does: what is seen tinted green, what is hidden
 * darkened, what is predicted outlined.
 *
 * @throws JepaError `bad-input` for no frames, and frames that do not fill the time steps of the masks; `bad-mask` for a token outside of
 * their grid
 *
 * @example
 * const { context, targets } = sampleMasks(jepa.grid, { strategy: "vjepa-multiblock3d", seed: 0 });
 * drawClip(canvas, pictures, { masks: { grid: jepa.grid, context: context[0], targets: targets.map(([block]) => block) } });
 */
export function drawClip(canvas: Canvas, frames: readonly Drawable[], { seen, masks, columns: most = 4, side }: ClipOptions): void {
  if (frames.length === 0 || !(most >= 1)) throw new JepaError("bad-input", "A clip to draw has one frame at least, and rows of one at least.");
  if ((seen === undefined) === (masks === undefined)) throw new JepaError("bad-input", "What a clip hides is said by seen or by masks, by one of them.");
  const { grid, context: visible, targets } = masks ?? wholeFrames(frames.length, seen!);
  const [steps, rows, columns] = grid;
  if (frames.length % steps > 0) throw new JepaError("bad-input", `${frames.length} frames do not fill ${steps} time steps.`);
  checkTokens([visible, ...targets], grid);
  const [first] = frames as [Drawable];
  const longest = Math.max(first.width, first.height);
  if (side !== undefined) checkSize("side", side);
  const [width, height] = [first.width, first.height].map((length) => Math.max(1, Math.round((length * (side ?? longest)) / longest))) as [number, number];

  const places = rows * columns;
  const within = (step: number, tokens: ArrayLike<number>) => Array.from(tokens).filter((token) => Math.floor(token / places) === step).map((token) => token % places);
  const across = Math.min(most, frames.length);
  const context = sized(canvas, across * (width + GAP), Math.ceil(frames.length / across) * (height + GAP));
  context.clearRect(0, 0, canvas.width, canvas.height);
  const drawn = new OffscreenCanvas(width, height);
  frames.forEach((frame, i) => {
    const step = Math.floor((i * steps) / frames.length);
    drawMasks(drawn, frame, { rows, columns, context: within(step, visible), targets: targets.map((block) => within(step, block)) }, Math.max(width, height));
    context.drawImage(drawn, (i % across) * (width + GAP) + GAP / 2, Math.floor(i / across) * (height + GAP) + GAP / 2, width, height);
  });
}

function wholeFrames(count: number, seen: number): ClipMasks {
  const frames = Array.from({ length: count }, (_, i) => i);
  return { grid: [count, 1, 1], context: frames.slice(0, seen), targets: [frames.slice(seen)] };
}
