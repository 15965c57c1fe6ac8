/** Which patches of a grid are seen and which are predicted: token indices in raster order. */
export interface DrawnMasks {
  rows: number;
  columns: number;
  context: Uint32Array;
  targets: readonly Uint32Array[];
}

/** Okabe and Ito's colours, told apart without full colour vision; black is left out, and what reads as the context's tint. */
export const TARGET_COLOURS = ["#e69f00", "#56b4e9", "#f0e442", "#d55e00", "#cc79a7", "#0072b2"] as const;

/** Draws a picture with its context tinted, what is hidden darkened, and each target block outlined in its own colour. */
export function drawMasks(canvas: HTMLCanvasElement, picture: CanvasImageSource & { width: number; height: number }, masks: DrawnMasks, side: number): void {
  const scale = side / Math.max(picture.width, picture.height);
  const [width, height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser gives no 2D canvas.");
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

  const { rows, columns } = masks;
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
    context.strokeStyle = TARGET_COLOURS[i % TARGET_COLOURS.length]!;
    context.stroke();
  });
}
