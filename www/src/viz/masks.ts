// Masks over a picture.

import { JepaError } from "../errors.js";
import { checkSize, cycled, sized, type Canvas, type Drawable } from "./canvas.js";

/** Which patches of a grid are seen and which are predicted: token indices in raster order. */
export interface DrawnMasks {
  rows: number;
  columns: number;
  context: Uint32Array | readonly number[];
  targets: readonly (Uint32Array | readonly number[])[];
}

/** Okabe and Ito's colours, told apart without full colour vision; black is left out, and what reads as the context's tint. */
export const TARGET_COLOURS: readonly string[] = ["#e69f00", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7", "#0072b2"];

/**
 * Draws a picture with its context tinted green, what is hidden darkened, and each target block outlined in its own colour.
 *
 * @param side - length of the canvas's longer side in pixels; default: the picture's
 * @throws JepaError `bad-mask` for a token outside of the grid
 *
 * @example
 * const [, rows, columns] = jepa.grid;
 * const masks = sampleMasks(jepa.grid, { strategy: "ijepa-multiblock", seed: 0 });
 * drawMasks(canvas, bitmap, { rows, columns, context: masks.context[0], targets: masks.targets.map(([block]) => block) });
 */
export function drawMasks(canvas: Canvas, picture: Drawable, masks: DrawnMasks, side: number = Math.max(picture.width, picture.height)): void {
  const { rows, columns } = masks;
  checkSize("side", side);
  checkTokens([masks.context, ...masks.targets], [rows, columns]);
  const scale = side / Math.max(picture.width, picture.height);
  const [width, height] = [Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale))];
  const context = sized(canvas, width, height);
  context.clearRect(0, 0, width, height);
  // Small pictures stay a grid of pixels.
  context.imageSmoothingEnabled = scale < 4;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, width, height);

  // In grey, or a red picture would make the green of the context brown.
  context.globalCompositeOperation = "saturation";
  context.globalAlpha = 0.75;
  context.fillStyle = "grey";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = 1;

  const seen = new Set(masks.context);
  const x = (column: number) => Math.round((column * width) / columns);
  const y = (row: number) => Math.round((row * height) / rows);
  for (let token = 0; token < rows * columns; token++) {
    const [row, column] = [Math.floor(token / columns), token % columns];
    context.fillStyle = seen.has(token) ? "rgb(0 158 115 / 0.36)" : "rgb(8 10 12 / 0.66)";
    context.fillRect(x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row));
  }
  const line = Math.max(2, side / 170);
  masks.targets.forEach((block, i) => {
    const inside = new Set(block);
    context.beginPath();
    for (const token of block) {
      const [row, column] = [Math.floor(token / columns), token % columns];
      const edges: [outside: boolean, x1: number, y1: number, x2: number, y2: number][] = [
        [row === 0 || !inside.has(token - columns), column, row, column + 1, row],
        [row === rows - 1 || !inside.has(token + columns), column, row + 1, column + 1, row + 1],
        [column === 0 || !inside.has(token - 1), column, row, column, row + 1],
        [column === columns - 1 || !inside.has(token + 1), column + 1, row, column + 1, row + 1],
      ];
      // Half a line inwards, or the picture's border would cut its half off.
      const within = (value: number, most: number) => Math.min(most - line / 2, Math.max(line / 2, value));
      for (const [outside, x1, y1, x2, y2] of edges) {
        if (!outside) continue;
        context.moveTo(within(x(x1), width), within(y(y1), height));
        context.lineTo(within(x(x2), width), within(y(y2), height));
      }
    }
    context.lineCap = "square";
    context.lineWidth = line;
    context.strokeStyle = cycled(TARGET_COLOURS, i);
    context.stroke();
  });
}

export function checkTokens(lists: readonly ArrayLike<number>[], grid: readonly number[]): void {
  const tokens = grid.reduce((a, b) => a * b, 1);
  const wrong = lists.flatMap((list) => Array.from(list)).find((token) => !(token < tokens));
  if (wrong !== undefined) throw new JepaError("bad-mask", `Token ${wrong} is outside of a grid of ${grid.join(" × ")}.`);
}
