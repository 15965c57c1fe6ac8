// Memory and time of long clips and of gradient checkpointing: node www/bench/clips.mjs [--backend cpu|webgpu] [--frames 4,16] [--batches 2,8]
//
// Encodes clips of 256 × 256 pixels with a ViT-B of V-JEPA 2 (random weights), and makes steps of LeJEPA (ViT-Ti, four views of
// 224 × 224) with and without `gradientCheckpointing`, each in a process of its own, whose peak is that
// of all memory that the operating system gave it. On WebGPU in Node the adapter's memory is the process's, too. Needs pkg/ (npm run build) and, for WebGPU, lavapipe (docs/benchmarks.md).

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { answering, inProcess } from "./process.mjs";

const SIDE = 256;
const TUBELET = 2;
/** Views that LeJEPA makes of a picture. */
const VIEWS = 4;
const model = (frames) => ({
  system: "vjepa2", imageSize: SIDE, patchSize: 16, frames, tubelet: TUBELET, hiddenSize: 768, layers: 12, heads: 12,
});
const noise = (length, seed) => Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 2654435761) >>> 24);
const clip = (frames) => ({ data: noise(frames * SIDE * SIDE * 3, 0), frames, height: SIDE, width: SIDE, channels: 3 });

/** A checkpoint of such an encoder: small numbers that do not repeat within a row. */
async function checkpoint(folder) {
  const { hiddenSize: d, layers } = model(0);
  const shapes = { "patch_embed.proj.weight": [d, 3, TUBELET, 16, 16], "patch_embed.proj.bias": [d], "norm.weight": [d], "norm.bias": [d] };
  for (let i = 0; i < layers; i++) {
    for (const norm of ["norm1", "norm2"]) Object.assign(shapes, { [`blocks.${i}.${norm}.weight`]: [d], [`blocks.${i}.${norm}.bias`]: [d] });
    for (const [layer, from, to] of [["attn.qkv", d, 3 * d], ["attn.proj", d, d], ["mlp.fc1", d, 4 * d], ["mlp.fc2", 4 * d, d]]) {
      Object.assign(shapes, { [`blocks.${i}.${layer}.weight`]: [to, from], [`blocks.${i}.${layer}.bias`]: [to] });
    }
  }
  let end = 0;
  const header = {};
  for (const [name, shape] of Object.entries(shapes)) {
    const begin = end;
    end += 4 * shape.reduce((a, b) => a * b, 1);
    header[`encoder.${name}`] = { dtype: "F32", shape, data_offsets: [begin, end] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const values = Float32Array.from({ length: end / 4 }, (_, i) => ((Math.imul(i, 2654435761) >>> 8) / 2 ** 24 - 0.5) / 16);
  await writeFile(join(folder, "config.json"), JSON.stringify(model(64)));
  await writeFile(join(folder, "model.safetensors"), Buffer.concat([Buffer.from(new BigUint64Array([BigInt(text.length)]).buffer), text, Buffer.from(values.buffer)]));
}

const peak = () => process.resourceUsage().maxRSS / 1024;

/** What a child process does, by name. */
const TASKS = {
  checkpoint: (_, { folder }) => checkpoint(folder),
  async encode({ Jepa }, { folder, backend, frames }) {
    const jepa = await Jepa.load(folder, { backend, worker: false });
    if (jepa.backend !== backend) throw new Error(jepa.fallbackReason);
    const input = clip(frames);
    const before = peak();
    const start = performance.now();
    const { shape } = await jepa.embed(input, { pool: "none", imageSize: SIDE });
    return { tokens: shape[0], seconds: (performance.now() - start) / 1e3, loadedMb: before, peakMb: peak() };
  },
  async train({ Trainer }, { backend, batchSize, gradientCheckpointing }) {
    const trainer = await Trainer.create({ model: "vit-tiny", objective: "lejepa", batchSize, backend, gradientCheckpointing, worker: false });
    const pictures = Array.from({ length: batchSize }, (_, i) => ({ data: noise(SIDE * SIDE * 3, i), width: SIDE, height: SIDE, channels: 3 }));
    const before = peak();
    const { ms } = await trainer.step(pictures);
    return { tokens: batchSize * VIEWS * 196, seconds: ms / 1e3, loadedMb: before, peakMb: peak() };
  },
};

if (process.send) {
  answering(async ({ task, ...request }) => {
    if (request.backend === "webgpu") await import("./dawn.mjs");
    return TASKS[task](await import("../../pkg/dist/index.js"), request);
  });
} else {
  const { values } = parseArgs({
    options: { backend: { type: "string", default: "cpu" }, frames: { type: "string", default: "4,8,16,32,64" }, batches: { type: "string", default: "2,8" } },
  });
  const { backend } = values;
  const list = (text) => text.split(",").filter(Boolean).map(Number);
  const run = (request) => inProcess(import.meta.url, request);
  const row = (what, { tokens, seconds, loadedMb, peakMb }) => console.log(`| ${what} | ${tokens.toLocaleString("en")} | ${seconds.toFixed(1)} s | ${loadedMb.toFixed(0)} MB | + ${(peakMb - loadedMb).toFixed(0)} MB |`);
  const folder = await mkdtemp(join(tmpdir(), "webjepa-clips-"));
  try {
    // A process begins with the peak of its parent, so this one stays small.
    await run({ task: "checkpoint", folder });
    console.log(`| ${backend} | tokens | time | process before | at most |\n|---|---|---|---|---|`);
    for (const frames of list(values.frames)) row(`encode ${frames} frames`, await run({ task: "encode", folder, backend, frames }));
    for (const batchSize of list(values.batches)) {
      for (const gradientCheckpointing of [false, true]) {
        row(`step of ${batchSize} pictures${gradientCheckpointing ? ", checkpointed" : ""}`, await run({ task: "train", backend, batchSize, gradientCheckpointing }));
      }
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}
