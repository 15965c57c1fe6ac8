// Clips in a real browser: both backends agree, in embedding, prediction and training; frames of video elements; the demo's page.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
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
    const { windows, frames } = await test.page.evaluate(async () => {
      // A film of the page's own: two seconds in which a bar crosses the picture.
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: 64, height: 48 });
      const context = canvas.getContext("2d")!;
      const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
      const parts: Blob[] = [];
      recorder.ondataavailable = ({ data }) => parts.push(data);
      const stopped = new Promise((resolve) => (recorder.onstop = resolve));
      recorder.start();
      const start = performance.now();
      while (performance.now() - start < 2000) {
        context.fillStyle = "black";
        context.fillRect(0, 0, 64, 48);
        context.fillStyle = "white";
        context.fillRect(((performance.now() - start) / 2000) * 60, 0, 8, 48);
        await new Promise(requestAnimationFrame);
      }
      recorder.stop();
      await stopped;
      const video = document.createElement("video");
      video.muted = true;
      video.src = URL.createObjectURL(new Blob(parts, { type: "video/webm" }));
      await new Promise((resolve) => (video.onloadedmetadata = resolve));
      // A recorded film says how long it is once its end has been looked for.
      if (!Number.isFinite(video.duration)) {
        video.currentTime = 1e6;
        await new Promise((resolve) => (video.ondurationchange = resolve));
        video.currentTime = 0;
        await new Promise((resolve) => (video.onseeked = resolve));
      }
      const jepa = await webjepa.Jepa.load(new URL("/fixtures/vjepa2_pan/", location.href), { backend: "cpu" });
      const windows: [number, number, number[]][] = [];
      for await (const { first, last, shape, data } of jepa.embedStream(webjepa.videoFrames(video, { fps: 6 }), { window: 4, hop: 2 })) {
        if (!data.every(Number.isFinite)) throw new Error("an embedding is not finite");
        windows.push([first, last, shape]);
      }
      await jepa.dispose();
      return { windows, frames: Math.floor(video.duration * 6) };
    });
    const last = windows.at(-1)![1];
    expect(last + 1).toBeGreaterThanOrEqual(frames);
    expect(windows[1]).toEqual([2, 5, [192]]);
    expect(windows.length).toBeGreaterThanOrEqual(4);
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
