// Pictures to embeddings with the real modules in a real browser: the numbers, and that all ways lead to the same ones.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkpoint, MODELS } from "../../www/bench/models.mjs";
import { png, turnedJpeg } from "../unit/pictures.js";
import { FIXTURES, useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
});
afterEach(() => test.close());

const photo: { output: { shape: number[]; mean_pooled: number[]; token_l2: number[] } } = JSON.parse(
  readFileSync(join(FIXTURES, "ijepa_ti16", "expected.json"), "utf8"),
);

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  expect(a.length).toBe(b.length);
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

describe.each([
  ["cpu", true],
  ["cpu", false],
  ["webgpu", true],
  ["webgpu", false],
] as const)("on %s, in a worker: %s", (backend, worker) => {
  it("embeds a photo as the published implementation does", async () => {
    const { pooled, tokens, gridOfModel, backendOfModel, overall } = await test.page.evaluate(
      async ({ backend, worker }) => {
        const overall: number[] = [];
        const jepa = await webjepa.Jepa.load("/fixtures/ijepa_ti16", { backend, worker, onProgress: (progress) => overall.push(progress.overall) });
        const [pooled, tokens] = await Promise.all([
          jepa.embed(["/fixtures/ijepa_ti16/image.png", "/fixtures/ijepa_ti16/resized.png"]),
          jepa.embed("/fixtures/ijepa_ti16/resized.png", { pool: "none" }),
        ]);
        await jepa.dispose();
        const plain = ({ data, shape, grid }: typeof pooled) => ({ data: [...data], shape, grid });
        return { pooled: plain(pooled), tokens: plain(tokens), gridOfModel: jepa.grid, backendOfModel: jepa.backend, overall };
      },
      { backend, worker },
    );
    const [count, width] = photo.output.shape as [number, number];
    const tolerance = backend === "cpu" ? 5e-5 : 2e-4;
    expect(backendOfModel).toBe(backend);
    expect(gridOfModel).toEqual([1, 14, 14]);
    expect(pooled.shape).toEqual([2, width]);
    expect(tokens.shape).toEqual([count, width]);
    expect(tokens.grid).toEqual([1, 14, 14]);
    // From the raw photo with our own resize, and from the reference's resized one.
    expect(largestDifference(pooled.data.slice(0, width), photo.output.mean_pooled)).toBeLessThan(1e-2);
    expect(largestDifference(pooled.data.slice(width), photo.output.mean_pooled)).toBeLessThan(tolerance);
    const lengths = Array.from({ length: count }, (_, i) => Math.hypot(...tokens.data.slice(i * width, (i + 1) * width)));
    expect(largestDifference(lengths, photo.output.token_l2)).toBeLessThan(1e-2);
    expect(overall).toEqual([...overall].sort((a, b) => a - b));
    expect(overall.at(-1)).toBe(1);
  });
});

describe("pictures", () => {
  it("that an environment draws on one canvas are kept as they were", async () => {
    const shades = await test.page.evaluate(async () => {
      const context = new OffscreenCanvas(8, 8).getContext("2d")!;
      const draw = (shade: number) => {
        context.fillStyle = `rgb(${shade} 0 0)`;
        context.fillRect(0, 0, 8, 8);
        return { observation: context.canvas };
      };
      let shade = 0;
      const environment = { actionSize: 1, reset: () => draw(10), step: () => ({ ...draw((shade += 100)), reward: 0, terminated: shade === 200, truncated: false }) };
      const [episode] = await webjepa.collectEpisodes(environment, () => [0]);
      return episode!.frames.map((frame) => {
        const seen = new OffscreenCanvas(8, 8).getContext("2d")!;
        seen.drawImage(frame as ImageBitmap, 0, 0);
        return seen.getImageData(0, 0, 1, 1).data[0];
      });
    });
    expect(shades).toEqual([10, 100, 200]);
  });

  it.each([true, false])("are the same in every form that shows them, in a worker: %s", async (worker) => {
    const results = await test.page.evaluate(async (worker) => {
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_tiny_hf", { backend: "cpu", worker });
      const url = "/fixtures/ijepa_ti16/image.png";
      const blob = await (await fetch(url)).blob();
      const bitmap = await createImageBitmap(blob);
      const { width, height } = bitmap;
      const image = document.createElement("img");
      image.src = url;
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const context = canvas.getContext("2d", { willReadFrequently: true })!;
      context.drawImage(bitmap, 0, 0);
      const offscreen = new OffscreenCanvas(width, height);
      offscreen.getContext("2d")!.drawImage(bitmap, 0, 0);
      const imageData = context.getImageData(0, 0, width, height);
      const frame = new VideoFrame(bitmap, { timestamp: 0 });
      const floats = Float32Array.from(imageData.data, (value) => value / 255);
      const rgb = new Uint8Array(width * height * 3).map((_, i) => imageData.data[Math.floor(i / 3) * 4 + (i % 3)]!);
      const forms = {
        address: url,
        url: new URL(url, location.href),
        blob,
        file: new File([blob], "image.png"),
        bitmap,
        image,
        canvas,
        offscreen,
        imageData,
        frame,
        floats: { data: floats, width, height, channels: 4 },
        rgb: { data: rgb, width, height, channels: 3 },
      };
      const data: Record<string, number[]> = {};
      for (const [name, form] of Object.entries(forms)) data[name] = [...(await jepa.embed(form)).data];
      // Nothing of the caller's has been taken away.
      const again = await jepa.embed([bitmap, imageData, frame, forms.floats, forms.rgb]);
      return { data, again: [...again.data], intact: [bitmap.width, imageData.data.length, frame.codedWidth, floats.length] };
    }, worker);
    const { address, floats, ...others } = results.data;
    for (const [name, data] of Object.entries(others)) expect(data, name).toEqual(address);
    // The rounding of 1/255 in 32 bits, before the resize rounds to bytes again.
    expect(largestDifference(floats!, address!)).toBeLessThan(1e-2);
    expect(results.again.slice(0, address!.length)).toEqual(address);
    expect(results.intact.every((size) => size > 0)).toBe(true);
  });

  it("keep their colours under any alpha, and are turned upright", async () => {
    const rgba = Array.from({ length: 16 * 16 * 4 }, (_, i) => (i * 37) % 256);
    lab.server.files.set("alpha.png", png(rgba, 16));
    for (let orientation = 1; orientation <= 8; orientation++) lab.server.files.set(`turned-${orientation}.jpg`, turnedJpeg(orientation));
    const { alpha, expected, jpegs, turned } = await test.page.evaluate(async (rgba) => {
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_tiny_hf", { backend: "cpu" });
      const alpha = await jepa.embed("/alpha.png");
      const rgb = Uint8Array.from(rgba.filter((_, i) => i % 4 < 3));
      const expected = await jepa.embed({ data: rgb, width: 16, height: 16, channels: 3 });
      const addresses = Array.from({ length: 8 }, (_, i) => `/turned-${i + 1}.jpg`);
      const jpegs = await jepa.embed(addresses);
      const turned = [];
      for (const address of addresses) {
        const bitmap = await createImageBitmap(await (await fetch(address)).blob(), { imageOrientation: "from-image" });
        turned.push(...(await jepa.embed(bitmap)).data);
      }
      return { alpha: [...alpha.data], expected: [...expected.data], jpegs: [...jpegs.data], turned };
    }, rgba);
    expect(alpha).toEqual(expected);
    expect(jpegs).toEqual(turned);
    const size = jpegs.length / 8;
    const rows = Array.from({ length: 8 }, (_, i) => jpegs.slice(i * size, (i + 1) * size));
    expect(largestDifference(rows[0]!, rows[1]!)).toBeGreaterThan(1e-3);
  });

  it("that cannot be used are refused with a sentence, and the model goes on", async () => {
    lab.server.files.set("broken.png", new Uint8Array(png(Array(400).fill(9), 10)).subarray(0, 60));
    lab.server.files.set("empty.png", new Uint8Array(0));
    test.expectErrors(/none\.png|404/);
    test.expectErrors(/tainted|cross-origin/i);
    const other = `${lab.other.url}fixtures/ijepa_ti16/image.png`;
    const results = await test.page.evaluate(async (other) => {
      const results: Record<string, unknown> = {};
      for (const worker of [true, false]) {
        const jepa = await webjepa.Jepa.load("/fixtures/ijepa_tiny_hf", { backend: "cpu", worker });
        const missing = document.createElement("img");
        missing.src = "/none.png";
        const foreign = document.createElement("img");
        foreign.src = other;
        await foreign.decode();
        const tainted = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
        tainted.getContext("2d")!.drawImage(foreign, 0, 0);
        const closed = await createImageBitmap(new ImageData(4, 4));
        closed.close();
        const frame = new VideoFrame(await createImageBitmap(new ImageData(4, 4)), { timestamp: 0 });
        frame.close();
        const pictures = {
          missing,
          foreign,
          tainted,
          closed,
          frame,
          video: document.createElement("video"),
          zero: Object.assign(document.createElement("canvas"), { width: 0 }),
          svg: new Blob(["<svg xmlns='http://www.w3.org/2000/svg'/>"], { type: "image/svg+xml" }),
          text: new Blob(["no picture"]),
          empty: "/empty.png",
          broken: "/broken.png",
          nothing: {},
        };
        for (const [name, picture] of Object.entries(pictures)) {
          const outcome = await jepa.embed(picture as ImageBitmap).then(
            () => "embedded",
            (error) => `${error instanceof webjepa.JepaError && error.code}: ${error.message}`,
          );
          results[`${name} ${worker}`] = outcome;
        }
        results[`404 ${worker}`] = await jepa.embed("/none.png").catch((error) => `${error.code}: ${error.message}`);
        results[`good ${worker}`] = (await jepa.embed({ data: new Uint8Array(3), width: 1, height: 1, channels: 3 })).shape.length;
      }
      return results;
    }, other);
    for (const [name, outcome] of Object.entries(results)) {
      if (name.startsWith("good")) expect(outcome).toBe(1);
      else if (name.startsWith("404")) expect(outcome, name).toMatch(/^network: .*404.*none\.png/);
      else expect(outcome, name).toMatch(/^bad-input: .{20}/);
    }
    expect(results["foreign true"]).toMatch(/crossOrigin/);
    expect(results["tainted false"]).toMatch(/crossOrigin/);
  });

  it("from a video are its current frame", async () => {
    const similarity = await test.page.evaluate(async () => {
      const jepa = await webjepa.Jepa.load("/fixtures/ijepa_tiny_hf", { backend: "cpu" });
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
      const context = canvas.getContext("2d")!;
      const paint = () => {
        context.fillStyle = "#c03020";
        context.fillRect(0, 0, 64, 64);
        context.fillStyle = "#2040c0";
        context.fillRect(0, 0, 20, 64);
      };
      paint();
      const video = Object.assign(document.createElement("video"), { muted: true, srcObject: canvas.captureStream(30) });
      const painting = setInterval(paint, 20);
      await video.play();
      const [fromVideo, fromCanvas] = [await jepa.embed(video), await jepa.embed(canvas)];
      clearInterval(painting);
      return webjepa.cosineSimilarity(fromVideo, fromCanvas);
    });
    expect(similarity).toBeGreaterThan(0.98);
  });
});

it("holds no more than the largest tensor while loading for WebGPU", async () => {
  const model = { ...MODELS["vit-b"], layers: 2 };
  for (const [name, bytes] of Object.entries(checkpoint(model))) lab.server.files.set(`wide/${name}`, bytes);
  const growth = await test.page.evaluate(async () => {
    const { instantiateStreaming } = WebAssembly;
    const memories: { memory: WebAssembly.Memory; start: number }[] = [];
    WebAssembly.instantiateStreaming = async (...args) => {
      const source = await instantiateStreaming(...args);
      const memory = source.instance.exports.memory as WebAssembly.Memory;
      memories.push({ memory, start: memory.buffer.byteLength });
      return source;
    };
    const jepa = await webjepa.Jepa.load("/wide/", { backend: "webgpu", worker: false });
    // Memory never shrinks, so this is the most that there has been.
    const growth = memories.map(({ memory, start }) => memory.buffer.byteLength - start);
    await jepa.dispose();
    return growth;
  });
  expect(growth).toHaveLength(1);
  expect(growth[0]).toBeLessThan(4 * model.hiddenSize * model.mlpSize);
});
