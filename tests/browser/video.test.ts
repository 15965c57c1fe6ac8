// Clips in a real browser: both backends agree, in embedding, prediction and training; frames of video elements, files and cameras, and who closes them.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { recordFilm } from "./film.js";
import { useLab, type TestPage } from "./harness.js";

/** Its own types are of another edition of the DOM than this compiler knows. */
declare const mediabunny: any;

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  test = await lab.openPage();
});
afterEach(() => test.close());

const MEDIABUNNY = fileURLToPath(new URL("../../node_modules/mediabunny/dist/bundles/mediabunny.mjs", import.meta.url));

const worst = (a: number[], b: number[]) => {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};

describe("clips", () => {
  it("embed and are predicted alike on both backends", async () => {
    const results = await test.page.evaluate(async () => {
      const frame = (t: number) => ({ data: Float32Array.from({ length: 128 * 128 * 3 }, (_, i) => Math.sin(i * 0.013 + t * 0.7)), width: 128, height: 128, channels: 3 });
      const clip = Array.from({ length: 8 }, (_, t) => frame(t));
      const all = [];
      for (const backend of ["cpu", "webgpu"] as const) {
        const jepa = await webjepa.Jepa.load(new URL("/fixtures/vjepa2_pan/", location.href), { backend });
        const { data, grid } = await jepa.embed(clip, { pool: "none", preprocess: false });
        const single = await jepa.embed(clip[0]!, { pool: "none", preprocess: false });
        const { context, targets } = webjepa.sampleMasks(jepa.grid, { strategy: "vjepa-multiblock3d", seed: 3 });
        const { predicted, error } = await jepa.predict(clip, { context: context[0]!, targets: targets.map(([block]) => block!), preprocess: false });
        all.push({ backend: jepa.backend, grid, data: [...data], single: [...single.data], predicted: [...predicted.data], error: [...error] });
        await jepa.dispose();
      }
      return all;
    });
    const [cpu, gpu] = results as [(typeof results)[number], (typeof results)[number]];
    expect([cpu.backend, gpu.backend, gpu.grid]).toEqual(["cpu", "webgpu", [4, 8, 8]]);
    for (const key of ["data", "single", "predicted", "error"] as const) expect(worst(cpu[key], gpu[key]), key).toBeLessThan(1e-4);
  });

  it.each(["vjepa", "vjepa2", "vjepa2.1"] as const)("train alike on both backends: %s", async (system) => {
    const [cpu, gpu] = await test.page.evaluate(async (system) => {
      const frame = (clip: number, t: number) => ({ data: Uint8Array.from({ length: 36 * 32 * 3 }, (_, i) => 128 + 100 * Math.sin((Math.floor(i / 3) % 36) / (2 + clip) + t)), width: 36, height: 32, channels: 3 });
      const clips = Array.from({ length: 5 }, (_, clip) => Array.from({ length: 4 }, (_, t) => frame(clip, t)));
      const all = [];
      for (const backend of ["cpu", "webgpu"] as const) {
        const trainer = await webjepa.Trainer.create({
          model: { system, imageSize: 32, patchSize: 8, frames: 4, hiddenSize: 24, layers: 4, heads: 2, predictor: { hiddenSize: 24, layers: 1, heads: 2 } },
          objective: system === "vjepa2.1" ? { kind: "vjepa", contextLoss: { fromStep: 0, fullStep: 1 } } : "vjepa",
          batchSize: 2,
          seed: 3,
          schedule: { steps: 20, lr: 1e-3, startLr: 1e-3, warmupSteps: 0 },
          backend,
        });
        const losses: number[] = [];
        for await (const { loss } of trainer.run(clips, { steps: 3 })) losses.push(loss);
        all.push(losses);
        await trainer.dispose();
      }
      return all;
    }, system);
    expect(cpu!.every(Number.isFinite)).toBe(true);
    // A fresh mask token is zero, whose norm amplifies rounding a thousandfold; the first step's loss does not have that yet.
    expect(Math.abs(cpu![0]! - gpu![0]!)).toBeLessThan(2e-5);
    expect(worst(cpu!, gpu!)).toBeLessThan(5e-3);
  });
});

describe("a file", () => {
  beforeEach(async () => {
    lab.server.files.set("mediabunny.js", readFileSync(MEDIABUNNY, "utf8"));
    await test.page.addScriptTag({ type: "module", content: 'globalThis.mediabunny = await import("/mediabunny.js");' });
    await test.page.waitForFunction(() => "mediabunny" in globalThis);
  });

  it.each(["webm", "mp4"] as const)("gives by WebCodecs the frames that the element gives: %s", async (kind) => {
    const { decoded, played, part, alive } = await test.page.evaluate(async (kind) => {
      // Two seconds of 20 frames each: frame i is grey, of a level that tells i.
      const canvas = new OffscreenCanvas(64, 48);
      const context = canvas.getContext("2d")!;
      const format = kind === "mp4" ? new mediabunny.Mp4OutputFormat() : new mediabunny.WebMOutputFormat();
      const output = new mediabunny.Output({ format, target: new mediabunny.BufferTarget() });
      const source = new mediabunny.CanvasSource(canvas, { codec: "vp9", bitrate: 2e6, keyFrameInterval: 0.5 });
      output.addVideoTrack(source);
      await output.start();
      for (let i = 0; i < 40; i++) {
        context.fillStyle = `rgb(${20 + 5 * i}, ${20 + 5 * i}, ${20 + 5 * i})`;
        context.fillRect(0, 0, 64, 48);
        await source.add(i / 20, 1 / 20);
      }
      await output.finalize();
      const file = new Blob([output.target.buffer!], { type: `video/${kind}` });
      let alive = 0;
      const levels = async (options: object) => {
        const found: number[] = [];
        for await (const frame of webjepa.videoFrames(file, { fps: 5, ...options })) {
          const is = frame instanceof VideoFrame;
          context.drawImage(frame, 0, 0);
          found.push(context.getImageData(32, 24, 1, 1).data[0]!);
          frame.close();
          alive += is ? 1 : 0;
        }
        return found;
      };
      return { decoded: await levels({ demuxer: mediabunny }), played: await levels({}), part: await levels({ demuxer: mediabunny, start: 0.4, end: 1.2 }), alive };
    }, kind);
    // In the middle of each fifth of a second: frames 2, 6, 10, …, 38.
    expect(decoded).toHaveLength(10);
    decoded.forEach((level, i) => expect(Math.abs(level - (20 + 5 * (2 + 4 * i))), `frame ${i}`).toBeLessThan(5));
    expect(worst(decoded, played)).toBeLessThan(3);
    expect(part).toEqual(decoded.slice(2, 6));
    expect(alive).toBe(14);
  });

  it("says what is wrong with one that is damaged, has no picture, or is not there any more", async () => {
    const found = await test.page.evaluate(async () => {
      const output = new mediabunny.Output({ format: new mediabunny.WavOutputFormat(), target: new mediabunny.BufferTarget() });
      const sound = new mediabunny.AudioSampleSource({ codec: "pcm-s16" });
      output.addAudioTrack(sound);
      await output.start();
      await sound.add(new mediabunny.AudioSample({ data: new Float32Array(800), format: "f32", numberOfChannels: 1, sampleRate: 8000, timestamp: 0 }));
      await output.finalize();
      const controller = new AbortController();
      controller.abort();
      const cases: [Blob, object][] = [
        [new Blob([new Uint8Array(1000)]), {}],
        [new Blob([output.target.buffer!]), {}],
        [new Blob([new Uint8Array(1000)]), { signal: controller.signal }],
        [new Blob([new Uint8Array(1000)]), { fps: 0 }],
        [new Blob([new Uint8Array(1000)], { type: "video/webm" }), { demuxer: undefined }],
      ];
      const all: string[] = [];
      for (const [file, options] of cases) {
        try {
          for await (const _ of webjepa.videoFrames(file, { demuxer: mediabunny, ...options })) all.push("a frame came");
          all.push("it ended");
        } catch (error) {
          const { code, message } = error as InstanceType<typeof webjepa.JepaError>;
          all.push(`${code}: ${message}`);
        }
      }
      return all;
    });
    expect(found).toEqual([
      expect.stringMatching(/^bad-input: .*cannot be read/),
      expect.stringMatching(/^bad-input: .*no video track/),
      expect.stringMatching(/^aborted: /),
      expect.stringMatching(/^bad-input: .*fps/),
      expect.stringMatching(/^bad-input: .*cannot be played/),
    ]);
  });
});

describe("a video element", () => {
  it("gives frames at even distances, which are embedded in windows", async () => {
    // Two seconds in which a bar crosses the picture, as MediaRecorder writes them: without their duration.
    const film = await recordFilm(test.page, 2000);
    const { windows, frames } = await test.page.evaluate(async (film) => {
      const video = document.createElement("video");
      video.muted = true;
      video.src = URL.createObjectURL(new Blob([Uint8Array.from(film)], { type: "video/webm" }));
      const jepa = await webjepa.Jepa.load(new URL("/fixtures/vjepa2_pan/", location.href), { backend: "cpu" });
      const windows: [number, number, number[]][] = [];
      for await (const { first, last, shape, data } of jepa.embedStream(webjepa.videoFrames(video, { fps: 6 }), { window: 4, hop: 2 })) {
        if (!data.every(Number.isFinite)) throw new Error("an embedding is not finite");
        windows.push([first, last, shape]);
      }
      await jepa.dispose();
      return { windows, frames: Math.floor(video.duration * 6) };
    }, film);
    const last = windows.at(-1)![1];
    expect(last + 1).toBeGreaterThanOrEqual(frames);
    expect(windows[1]).toEqual([2, 5, [192]]);
    expect(windows.length).toBeGreaterThanOrEqual(4);
    expect(frames).toBeLessThan(20);
  });

  it("says what is wrong with a damaged film", async () => {
    const error = await test.page.evaluate(async () => {
      const video = document.createElement("video");
      video.src = URL.createObjectURL(new Blob([new Uint8Array(1000)], { type: "video/webm" }));
      try {
        for await (const _ of webjepa.videoFrames(video)) return "a frame came";
        return "it ended";
      } catch (error) {
        const { code, message } = error as InstanceType<typeof webjepa.JepaError>;
        return { code, message };
      }
    });
    expect(error).toMatchObject({ code: "bad-input", message: expect.stringContaining("cannot be played") });
  });
});

describe("a camera", () => {
  it("gives its frames until it is unplugged, which is an error", async () => {
    await test.page.context().grantPermissions(["camera"]);
    const { size, frames, error } = await test.page.evaluate(async () => {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240 } });
      const video = document.createElement("video");
      Object.assign(video, { muted: true, srcObject: stream });
      await video.play();
      const size: number[] = [];
      let frames = 0;
      try {
        for await (const frame of webjepa.videoFrames(video, { fps: 20 })) {
          size.splice(0, 2, frame.width, frame.height);
          frame.close();
          if (++frames === 5) stream.getTracks()[0]!.stop();
        }
        return { size, frames, error: undefined };
      } catch (error) {
        const { code, message } = error as InstanceType<typeof webjepa.JepaError>;
        return { size, frames, error: { code, message } };
      }
    });
    expect(size).toEqual([320, 240]);
    // A frame that was on its way may still come.
    expect([5, 6]).toContain(frames);
    expect(error).toMatchObject({ code: "bad-input", message: expect.stringMatching(/switched off or unplugged/) });
  });
});

describe("frames are closed", () => {
  beforeEach(async () => {
    lab.server.files.set("mediabunny.js", readFileSync(MEDIABUNNY, "utf8"));
    await test.page.addScriptTag({ type: "module", content: 'globalThis.mediabunny = await import("/mediabunny.js");' });
    await test.page.waitForFunction(() => "mediabunny" in globalThis);
    await test.page.evaluate(async () => {
      // Every bitmap that is made, until it is closed.
      const open = new Set<ImageBitmap>();
      const counts = { made: 0, most: 0 };
      const counted = <B extends ImageBitmap>(bitmap: B): B => {
        counts.made++;
        open.add(bitmap);
        counts.most = Math.max(counts.most, open.size);
        return bitmap;
      };
      const { createImageBitmap: create } = globalThis;
      globalThis.createImageBitmap = (async (...args: Parameters<typeof create>) => counted(await create(...args))) as typeof create;
      const { transferToImageBitmap: transfer } = OffscreenCanvas.prototype;
      OffscreenCanvas.prototype.transferToImageBitmap = function () {
        return counted(transfer.call(this));
      };
      const { close } = ImageBitmap.prototype;
      ImageBitmap.prototype.close = function () {
        open.delete(this);
        close.call(this);
      };
      /** Frames of 64 × 48, 20 a second, stored upright or turned. */
      const film = async (frames: number, rotation: number) => {
        const canvas = new OffscreenCanvas(64, 48);
        const context = canvas.getContext("2d")!;
        const output = new mediabunny.Output({ format: new mediabunny.Mp4OutputFormat(), target: new mediabunny.BufferTarget() });
        const source = new mediabunny.CanvasSource(canvas, { codec: "vp9", bitrate: 1e6 });
        output.addVideoTrack(source, { rotation });
        await output.start();
        for (let i = 0; i < frames; i++) {
          context.fillStyle = `rgb(${2 * i} 0 0)`;
          context.fillRect(0, 0, 64, 48);
          await source.add(i / 20, 1 / 20);
        }
        await output.finalize();
        return new Blob([output.target.buffer!], { type: "video/mp4" });
      };
      const jepa = await webjepa.Jepa.load(new URL("/fixtures/vjepa2_tiny_hf/", location.href), { backend: "cpu" });
      Object.assign(globalThis, { open, counts, film, jepa });
    });
  });

  it.each([
    ["by the element", 0, false],
    ["by WebCodecs, stored turned", 90, true],
  ] as const)("that videoFrames made for embedStream: a hundred, read %s", async (_, rotation, decoded) => {
    const found = await test.page.evaluate(
      async ({ rotation, decoded }) => {
        const { open, counts, film, jepa } = globalThis as unknown as Counted;
        const file = await film(100, rotation);
        Object.assign(counts, { made: 0, most: 0 });
        let last = 0;
        for await (const window of jepa.embedStream(webjepa.videoFrames(file, { fps: 20, ...(decoded ? { demuxer: mediabunny } : {}) }), { window: 4, hop: 4 })) last = window.last;
        const whole = { ...counts, last, left: open.size };
        // One frame of three is taken; the stream is left in its middle.
        for await (const window of jepa.embedStream(webjepa.videoFrames(file, { fps: 20, ...(decoded ? { demuxer: mediabunny } : {}) }), { window: 2, hop: 2, stride: 3 })) if (window.last > 4) break;
        return { ...whole, leftAfterBreak: open.size };
      },
      { rotation, decoded },
    );
    // Each frame is a bitmap, and another when its pixels are read.
    expect(found).toEqual({ made: 200, most: 2, last: 99, left: 0, leftAfterBreak: 0 });
  });

  it("but not those that are the caller's", async () => {
    const found = await test.page.evaluate(async () => {
      const { open, film, jepa } = globalThis as unknown as Counted;
      const file = await film(8, 0);
      // Read by the caller.
      const read: ImageBitmap[] = [];
      for await (const frame of webjepa.videoFrames(file, { fps: 20 })) read.push(frame as ImageBitmap);
      const widths = read.map(({ width }) => width);
      read.forEach((frame) => frame.close());
      // Embedded through an iterator of the caller's, who keeps them.
      const kept: ImageBitmap[] = [];
      async function* through() {
        for await (const frame of webjepa.videoFrames(file, { fps: 20 })) {
          kept.push(frame as ImageBitmap);
          yield frame;
        }
      }
      for await (const _ of jepa.embedStream(through(), { window: 4, hop: 4 }));
      const passed = kept.map(({ width }) => width);
      kept.forEach((frame) => frame.close());
      // The first frames are taken by the caller, the others by the stream.
      const frames = webjepa.videoFrames(file, { fps: 20 });
      const first = (await frames.next()).value as ImageBitmap;
      for await (const _ of jepa.embedStream(frames, { window: 4, hop: 4 }));
      const [left, width] = [open.size, first.width];
      first.close();
      return { widths, passed, left, width };
    });
    expect(found).toEqual({ widths: Array(8).fill(64), passed: Array(8).fill(64), left: 1, width: 64 });
  });

  it("when they are VideoFrames of a stream: read, passed over, and when the stream is aborted", async () => {
    const found = await test.page.evaluate(async () => {
      const { jepa } = globalThis as unknown as Counted;
      const canvas = new OffscreenCanvas(64, 48);
      canvas.getContext("2d")!.fillRect(0, 0, 64, 48);
      const embed = async (options: object, onWindow: (windows: number) => void = () => {}) => {
        const made: VideoFrame[] = [];
        const stream = new ReadableStream<VideoFrame>(
          {
            pull(controller) {
              if (made.length === 100) return controller.close();
              made.push(new VideoFrame(canvas, { timestamp: made.length * 40_000 }));
              controller.enqueue(made.at(-1)!);
            },
          },
          { highWaterMark: 0 },
        );
        let windows = 0;
        let code = "";
        try {
          for await (const _ of jepa.embedStream(stream, { window: 4, hop: 4, ...options })) onWindow(++windows);
        } catch (error) {
          code = (error as InstanceType<typeof webjepa.JepaError>).code;
        }
        // A frame that is closed has no format.
        return { made: made.length, open: made.filter(({ format }) => format !== null).length, windows, code };
      };
      const controller = new AbortController();
      return [await embed({}), await embed({ stride: 5 }), await embed({ signal: controller.signal }, (windows) => windows === 2 && controller.abort())];
    });
    expect(found).toEqual([
      { made: 100, open: 0, windows: 25, code: "" },
      { made: 100, open: 0, windows: 5, code: "" },
      { made: 9, open: 0, windows: 2, code: "aborted" },
    ]);
  });
});

/** What the page of the tests above has besides the library. */
interface Counted {
  open: Set<ImageBitmap>;
  counts: { made: number; most: number };
  film(frames: number, rotation: number): Promise<Blob>;
  jepa: Awaited<ReturnType<typeof webjepa.Jepa.load>>;
}
