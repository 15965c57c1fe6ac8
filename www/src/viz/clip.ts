// The frames of a clip, and which of them are predicted.

import { JepaError } from "../errors.js";
import { cycled, sized, type Canvas, type Drawable } from "./canvas.js";
import { TARGET_COLOURS } from "./masks.js";

const GAP = 4;

export interface ClipOptions {
  /** How many frames, from the first on, the model sees; the others are outlined as predicted. */
  seen: number;
  /** Frames in a row. Default 4. */
  columns?: number | undefined;
}

/** Draws the frames of a clip in rows, in time from left to right: seen ones tinted green, predicted ones darkened and outlined. */
export function drawClip(canvas: Canvas, frames: readonly Drawable[], { seen, columns: most = 4 }: ClipOptions): void {
  if (frames.length === 0 || !(most >= 1)) throw new JepaError("bad-input", "A clip to draw has one frame at least, and rows of one at least.");
  const columns = Math.min(most, frames.length);
  const { width, height } = frames[0]!;
  const context = sized(canvas, columns * (width + GAP), Math.ceil(frames.length / columns) * (height + GAP));
  context.clearRect(0, 0, canvas.width, canvas.height);
  frames.forEach((frame, i) => {
    const [x, y] = [(i % columns) * (width + GAP) + GAP / 2, Math.floor(i / columns) * (height + GAP) + GAP / 2];
    context.drawImage(frame, x, y, width, height);
    context.fillStyle = i < seen ? "rgb(0 158 115 / 0.36)" : "rgb(8 10 12 / 0.5)";
    context.fillRect(x, y, width, height);
    if (i < seen) return;
    context.strokeStyle = cycled(TARGET_COLOURS, 0);
    context.lineWidth = 2;
    context.strokeRect(x, y, width, height);
  });
}
