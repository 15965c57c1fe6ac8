// Embeddings as points.

import { JepaError } from "../errors.js";
import type { Matrix } from "../math.js";
import { checkSize, cycled, sized, type Canvas, type Drawable } from "./canvas.js";
import { rangeOf } from "./heat.js";
import { TARGET_COLOURS } from "./masks.js";

export interface ScatterOptions {
  /** What each point is, by number: points of one group have one colour. Default: one group. */
  groups?: ArrayLike<number> | undefined;
  /** A picture for each point, drawn in its place with the group's colour around it, instead of a dot. */
  pictures?: readonly Drawable[] | undefined;
  /** Colours of the groups, in turn. Default: {@link TARGET_COLOURS}. */
  colours?: readonly string[] | undefined;
  /** Side of the square canvas in pixels. Default 512. */
  side?: number | undefined;
  /** Diameter of a dot, or side of a picture, in pixels. Default 9, of pictures 40. */
  size?: number | undefined;
}

/**
 * Draws the first two coordinates of each row: `drawScatter(canvas, pca(embeddings, { components: 2 }))` is the plane in which
 * embeddings differ most. Both axes have one scale, so that distances compare.
 *
 * @param points - rows of two numbers or more
 * @throws JepaError `bad-input` when there are no such rows, not as many groups or pictures as rows, or a value is not finite
 */
export function drawScatter(canvas: Canvas, points: Matrix, options: ScatterOptions = {}): void {
  const { groups, pictures, colours = TARGET_COLOURS, side = 512, size = pictures ? 40 : 9 } = options;
  checkSize("side", side);
  checkSize("size", size);
  const width = points.shape.at(-1) ?? 0;
  const count = points.data.length / width;
  if (width < 2 || !Number.isInteger(count) || count < 1) throw new JepaError("bad-input", "Points are rows of two numbers or more: { data, shape: [N, 2] }.");
  for (const [name, list] of Object.entries({ groups, pictures })) {
    if (list && list.length !== count) throw new JepaError("bad-input", `There are ${count} points, and ${list.length} ${name}.`);
  }
  if (!points.data.every(Number.isFinite)) throw new JepaError("bad-input", "There is a coordinate that is not finite.");
  const column = (k: number) => Float32Array.from({ length: count }, (_, i) => points.data[i * width + k]!);
  const [xs, ys] = [column(0), column(1)];
  const [across, down] = [rangeOf(xs), rangeOf(ys)];
  const span = Math.max(across.high - across.low, down.high - down.low) || 1;
  const scale = (side - 2 * size) / span;
  const place = (value: number, { low, high }: { low: number; high: number }) => side / 2 + (value - (low + high) / 2) * scale;

  const context = sized(canvas, side, side);
  context.clearRect(0, 0, side, side);
  for (let i = 0; i < count; i++) {
    // The second axis grows upwards, as in any plot.
    const [x, y] = [place(xs[i]!, across), side - place(ys[i]!, down)];
    const colour = cycled(colours, groups?.[i] ?? 0);
    const picture = pictures?.[i];
    if (picture) {
      context.drawImage(picture, x - size / 2, y - size / 2, size, size);
      context.strokeStyle = colour;
      context.lineWidth = Math.max(2, size / 16);
      context.strokeRect(x - size / 2, y - size / 2, size, size);
    } else {
      context.fillStyle = colour;
      context.beginPath();
      context.arc(x, y, size / 2, 0, 2 * Math.PI);
      context.fill();
    }
  }
}
