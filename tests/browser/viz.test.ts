// The drawings of webjepa/viz, pixel by pixel.

import { afterEach, beforeEach, expect, it } from "vitest";
import { useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
});
afterEach(() => test.close());

it("colours patches by their components, and values from dark to bright", async () => {
  const found = await test.page.evaluate(() => {
    const { featureMap, heatMap } = viz;
    const tokens = { data: Float32Array.from({ length: 2 * 2 * 3 * 4 }, (_, i) => Math.sin(i * i)), shape: [12, 4], grid: [2, 2, 3] as [number, number, number] };
    const components = webjepa.pca(tokens);
    const second = featureMap(components, { step: 1 });
    const heat = heatMap([0, 5, NaN, 10, -10, 30], 3, { low: 0, high: 10 });
    return { width: second.width, height: second.height, second: [...second.data], colours: [...components.toRGB()], heat: [...heat.data] };
  });
  expect([found.width, found.height]).toEqual([3, 2]);
  expect(found.second).toEqual(found.colours.slice(24));
  const pixel = (i: number) => found.heat.slice(4 * i, 4 * i + 4);
  // The ends and the middle of the published table.
  expect(pixel(0)).toEqual([0, 0, 4, 255]);
  expect(pixel(1)).toEqual([188, 55, 84, 255]);
  expect(pixel(2)).toEqual([0, 0, 0, 0]);
  expect(pixel(3)).toEqual([252, 255, 164, 255]);
  expect([pixel(4), pixel(5)]).toEqual([pixel(0), pixel(3)]);
});

it("lays a map over a picture, and masks, in the picture's proportions", async () => {
  const found = await test.page.evaluate(() => {
    const { drawMasks, drawOverlay } = viz;
    const picture = new OffscreenCanvas(80, 40);
    const context = picture.getContext("2d")!;
    context.fillStyle = "rgb(128 128 128)";
    context.fillRect(0, 0, 80, 40);
    const at = (canvas: OffscreenCanvas, x: number, y: number) => [...canvas.getContext("2d")!.getImageData(x, y, 1, 1).data];
    const map = new ImageData(Uint8ClampedArray.of(255, 0, 0, 255, 0, 0, 255, 255), 2, 1);
    const over = new OffscreenCanvas(1, 1);
    drawOverlay(over, picture, map, { opacity: 1, side: 160 });
    const thumbnail = document.createElement("canvas");
    drawOverlay(thumbnail, picture, undefined, { square: true, side: 20 });
    const masked = new OffscreenCanvas(1, 1);
    drawMasks(masked, picture, { rows: 1, columns: 4, context: [0], targets: [[2], Uint32Array.of(3)] });
    return {
      over: [over.width, over.height, at(over, 10, 40), at(over, 150, 40)],
      thumbnail: [thumbnail.width, thumbnail.height],
      masked: [masked.width, masked.height],
      patches: [at(masked, 10, 20), at(masked, 30, 20), at(masked, 41, 1), at(masked, 61, 1)],
    };
  });
  expect(found.over).toEqual([160, 80, [255, 0, 0, 255], [0, 0, 255, 255]]);
  expect(found.thumbnail).toEqual([20, 20]);
  expect(found.masked).toEqual([80, 40]);
  const [context, hidden, first, second] = found.patches as [number[], number[], number[], number[]];
  // 36 % of (0, 158, 115) over grey; 66 % of nearly black.
  expect(context.slice(0, 3).every((value, c) => Math.abs(value - [82, 139, 123][c]!) <= 2)).toBe(true);
  expect(hidden.slice(0, 3).every((value, c) => Math.abs(value - [49, 50, 51][c]!) <= 2)).toBe(true);
  expect(first.slice(0, 3)).toEqual([0xe6, 0x9f, 0x00]);
  expect(second.slice(0, 3)).toEqual([0x56, 0xb4, 0xe9]);
});

it("draws points with one scale for both axes, and clips frame by frame", async () => {
  const found = await test.page.evaluate(() => {
    const { drawClip, drawScatter } = viz;
    const canvas = new OffscreenCanvas(1, 1);
    drawScatter(canvas, { data: Float32Array.of(0, 0, 9, 4, 1, 9), shape: [2, 3] }, { groups: [0, 1], side: 100, size: 10, colours: ["#ff0000", "#0000ff"] });
    const at = (x: number, y: number) => [...canvas.getContext("2d")!.getImageData(x, y, 1, 1).data];
    const clip = new OffscreenCanvas(1, 1);
    drawClip(clip, Array.from({ length: 5 }, () => new OffscreenCanvas(8, 6)), { seen: 2 });
    return { first: at(10, 60), second: at(89, 40), corner: at(10, 90), clip: [clip.width, clip.height] };
  });
  // Four wide and one high: 80 pixels and 20 of the 100, in the middle.
  expect(found.first).toEqual([255, 0, 0, 255]);
  expect(found.second).toEqual([0, 0, 255, 255]);
  expect(found.corner).toEqual([0, 0, 0, 0]);
  expect(found.clip).toEqual([4 * 12, 2 * 10]);
});

it("shades a clip by frame and patch, each frame with the masks of its time step", async () => {
  const found = await test.page.evaluate(() => {
    const frames = Array.from({ length: 4 }, () => {
      const frame = new OffscreenCanvas(40, 40);
      const context = frame.getContext("2d")!;
      context.fillStyle = "rgb(128 128 128)";
      context.fillRect(0, 0, 40, 40);
      return frame;
    });
    const canvas = new OffscreenCanvas(1, 1);
    // Two time steps of 1 × 2 patches: left and right change places.
    viz.drawClip(canvas, frames, { masks: { grid: [2, 1, 2], context: [0, 3], targets: [Uint32Array.of(2)] }, columns: 2, side: 80 });
    const context = canvas.getContext("2d")!;
    const at = (frame: number, x: number, y: number) => [...context.getImageData((frame % 2) * 84 + 2 + x, Math.floor(frame / 2) * 84 + 2 + y, 1, 1).data.slice(0, 3)];
    return { size: [canvas.width, canvas.height], middles: frames.map((_, i) => [at(i, 20, 40), at(i, 60, 40)]), edges: frames.map((_, i) => at(i, 20, 0)) };
  });
  expect(found.size).toEqual([168, 168]);
  // As of drawMasks: 36 % of (0, 158, 115) over grey, 66 % of nearly black.
  const [seen, hidden] = [[82, 139, 123], [49, 50, 51]];
  found.middles.forEach((middles, i) =>
    (i < 2 ? [seen, hidden] : [hidden, seen]).forEach((wanted, k) => middles[k]!.forEach((value, c) => expect(Math.abs(value - wanted[c]!), `frame ${i}, patch ${k}`).toBeLessThanOrEqual(2))),
  );
  found.edges.forEach((edge, i) => (i < 2 ? expect(edge).not.toEqual([0xe6, 0x9f, 0x00]) : expect(edge).toEqual([0xe6, 0x9f, 0x00])));
});

it("refuses what cannot be drawn, with a sentence", async () => {
  const found = await test.page.evaluate(() => {
    const { drawMasks, drawScatter, drawClip, featureMap, heatMap, predictionErrors } = viz;
    const picture = new OffscreenCanvas(8, 8);
    const taken = new OffscreenCanvas(8, 8);
    taken.getContext("bitmaprenderer");
    const pooled = webjepa.pca({ data: Float32Array.of(1, 2, 3, 4), shape: [2, 2] }, { components: 2 });
    const calls = [
      () => heatMap([1, 2, 3], 2),
      () => featureMap(pooled),
      () => predictionErrors([1, 2], [[0]], 4),
      () => predictionErrors([1], [[4]], 4),
      () => drawMasks(picture, picture, { rows: 1, columns: 2, context: [2], targets: [] }),
      () => drawScatter(picture, { data: Float32Array.of(1, NaN), shape: [1, 2] }),
      () => drawScatter(picture, { data: Float32Array.of(1, 2), shape: [1, 2] }, { groups: [1, 2] }),
      () => drawClip(picture, [], { seen: 0 }),
      () => drawClip(picture, [picture], {}),
      () => drawClip(picture, [picture, picture, picture], { masks: { grid: [2, 1, 1], context: [0], targets: [] } }),
      () => drawClip(picture, [picture], { masks: { grid: [1, 1, 1], context: [0], targets: [[1]] } }),
      () => drawMasks(taken, picture, { rows: 1, columns: 1, context: [0], targets: [] }),
    ];
    return calls.map((call) => {
      try {
        call();
        return "drawn";
      } catch (error) {
        return `${(error as { code: string }).code}: ${(error as Error).message}`;
      }
    });
  });
  const codes = ["bad-input", "bad-input", "bad-input", "bad-mask", "bad-mask", "bad-input", "bad-input", "bad-input", "bad-input", "bad-input", "bad-mask", "unsupported"];
  found.forEach((message, i) => expect(message).toMatch(new RegExp(`^${codes[i]}: .{20}`)));
});
