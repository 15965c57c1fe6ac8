// The real module is fed with the corpora of fuzz/ and with mutations of them, some seconds a target: whatever it reads, it answers, or refuses
// in good order, and goes on. `npm run fuzz` is led by coverage and takes hours; this shows on every change that nothing traps in the browser's build.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import type { Embedding, Jepa, ModelConfig, ModelFile, PixelData } from "../../www/src/index.js";
import { freshLibrary } from "../unit/real-module.js";
import { mutated } from "./mutate.js";

/** Of each target. */
const SECONDS = Number(process.env.WEBJEPA_FUZZ_SECONDS ?? 3);

const path = (relative: string) => fileURLToPath(new URL(`../../fuzz/${relative}`, import.meta.url));
const corpusOf = (name: string) => readdirSync(path(`corpus/${name}`)).map((file) => readFileSync(path(`corpus/${name}/${file}`)));

/** Of the corpora of checkpoints and archives. */
const CONFIG = {
  imageSize: 2,
  patchSize: 1,
  channels: 1,
  hiddenSize: 4,
  layers: 1,
  heads: 1,
  mlpRatio: 0.25,
  predictor: { hiddenSize: 4, layers: 1, mlpRatio: 0.25 },
} satisfies ModelConfig;
const GREY: PixelData = { data: Float32Array.of(1, 2, 3, 4), width: 2, height: 2, channels: 1 };
const cpu = { backend: "cpu" } as const;

let library: Awaited<ReturnType<typeof freshLibrary>>;
/** Models of pictures and of clips, 16 pixels wide. */
let files: Record<"pictures" | "clips", Record<string, ModelFile>>;
let jepa: Jepa;
let expected: Embedding;
/** Of the module so far: one more is the sign of a crash. */
let instances: number;

beforeAll(async () => {
  library = await freshLibrary();
  const small = { imageSize: 16, patchSize: 4, hiddenSize: 8, layers: 1, heads: 1, predictor: { hiddenSize: 8, layers: 1, heads: 1 } };
  const exported = async (model: ModelConfig, objective: "ijepa" | "vjepa") => {
    const masks = objective === "ijepa" ? ({ strategy: "random" } as const) : undefined;
    const trainer = await library.Trainer.create({ model, objective, ...(masks ? { masks } : {}), batchSize: 1, schedule: { steps: 10 }, ...cpu });
    const made = await trainer.export("original");
    await trainer.dispose();
    return made;
  };
  files = { pictures: await exported(small, "ijepa"), clips: await exported({ ...small, system: "vjepa2", frames: 4 }, "vjepa") };
  jepa = await library.Jepa.load(files.pictures, cpu);
  expected = await coloured(jepa);
  instances = library.memories.length;
});
afterAll(async () => {
  await jepa?.dispose();
  vi.restoreAllMocks();
});

/** A few samples are repeated, so that a few bytes can be a picture, and sides wrap around, so that it is soon done. */
function picture(columns: number, rows: number, channels: number, samples: ArrayLike<number>): PixelData {
  const [width, height] = [columns % 40, rows % 40];
  return { data: Uint8Array.from({ length: width * height * channels }, (_, i) => samples[i % samples.length] ?? 0), width, height, channels };
}

async function embedded(source: Record<string, ModelFile>, input: (model: Jepa) => Promise<unknown>, options = {}): Promise<void> {
  const model = await library.Jepa.load(source, { ...cpu, ...options });
  try {
    await input(model);
  } finally {
    await model.dispose();
  }
}

const grey = (model: Jepa) => model.embed(GREY, { preprocess: false });
const coloured = (model: Jepa) => model.embed(picture(16, 16, 3, [9, 200, 40]));

/** A processor file and, after a line that says `#`, the rest. */
function split(bytes: Uint8Array<ArrayBuffer>): [file: Uint8Array<ArrayBuffer>, rest: Uint8Array] {
  const at = Buffer.from(bytes).indexOf("\n#\n");
  return at < 0 ? [bytes, bytes.subarray(bytes.length)] : [bytes.subarray(0, at), bytes.subarray(at + 3)];
}

const TARGETS: Record<string, { corpora?: string[]; read: (bytes: Uint8Array<ArrayBuffer>) => Promise<unknown> }> = {
  checkpoint: { corpora: ["checkpoint", "safetensors_header"], read: (bytes) => embedded({ "model.safetensors": bytes }, grey, { config: CONFIG }) },
  pytorch: { read: (bytes) => embedded({ "model.pt": bytes }, grey, { config: CONFIG }) },
  index: {
    read(bytes) {
      const { "model.safetensors": shard, ...others } = files.pictures;
      return embedded({ ...others, "a.safetensors": shard!, "model.safetensors.index.json": bytes }, coloured);
    },
  },
  config: { read: (bytes) => embedded({ ...files.pictures, "config.json": bytes }, coloured) },
  preprocessor: {
    read(bytes) {
      const [file, [width = 1, height = 1, channels = 1, ...samples]] = split(bytes);
      return embedded({ ...files.pictures, "preprocessor_config.json": file }, (model) => model.embed(picture(width, height, channels, samples)));
    },
  },
  picture: { read: (bytes) => jepa.embed(new Blob([bytes])) },
  clip: {
    read(bytes) {
      const [file, [count = 0, ...rest]] = split(bytes);
      const samples = rest.slice(3 * count);
      const frames = Array.from({ length: count }, (_, i) => picture(rest[3 * i] ?? 1, rest[3 * i + 1] ?? 1, rest[3 * i + 2] ?? 1, samples));
      return embedded({ ...files.clips, "video_preprocessor_config.json": file }, (model) => model.embed(frames));
    },
  },
  save: {
    async read(bytes) {
      const trainer = await library.Trainer.resume(bytes, cpu);
      try {
        const { batchSize, accumulate, frames } = trainer.info;
        // More than a mutated batch size asks for would be the test's own memory.
        if (batchSize * accumulate > 8 || frames > 1) return;
        await trainer.step(Array.from({ length: batchSize * accumulate }, (_, i) => picture(8, 8, 3, [i, 90, 180])));
        await trainer.save();
      } finally {
        await trainer.dispose();
      }
    },
  },
  probe: {
    async read(bytes) {
      const probe = await library.AttentiveProbe.load(bytes, cpu);
      try {
        await probe.predict({ data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), shape: [2, 4] });
      } finally {
        await probe.dispose();
      }
    },
  },
};

it.each(Object.entries(TARGETS))("%s", { timeout: 1000 * SECONDS + 120_000 }, async (target, { corpora = [target], read }) => {
  const corpus = corpora.flatMap(corpusOf);
  const accepted: Uint8Array[] = [];
  const outcomes: Record<string, number> = {};
  const end = performance.now() + 1000 * SECONDS;
  let i = 0;
  for (; i < corpus.length || performance.now() < end; i++) {
    // The corpus as it is; then, in turns, faults in all of it, and in what was accepted, which get further.
    const input = i < corpus.length ? new Uint8Array(corpus[i]!) : mutated(target, i % 2 && accepted.length > 0 ? accepted : corpus, i);
    const outcome = await read(input).then(() => "an answer", (error) => (error instanceof library.JepaError ? error.code : `no JepaError: ${error?.stack ?? error}`));
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    if (outcome === "an answer" && i < corpus.length) accepted.push(input);
    const after = await coloured(jepa);
    const sound = outcome !== "internal" && !outcome.startsWith("no ") && library.memories.length === instances && Buffer.from(after.data.buffer).equals(Buffer.from(expected.data.buffer));
    if (sound) continue;
    mkdirSync(path(`artifacts/${target}`), { recursive: true });
    writeFileSync(path(`artifacts/${target}/wasm-${i}`), input);
    expect.unreachable(`input ${i}, which is in fuzz/artifacts/${target}/wasm-${i}: ${outcome}; ${library.memories.length - instances} crashes; afterwards ${after.data}`);
  }
  console.log(`${target}: ${i} inputs, ${Object.entries(outcomes).map(([outcome, count]) => `${count} × ${outcome}`).join(", ")}`);
  expect(outcomes["an answer"], "no input was accepted").toBeGreaterThan(0);
});
