// Stands in for the wasm module: the same interface, with a "model" whose numbers can be told from its weights and pictures.
//
// A pooled embedding is [hash of the weights, mean of the picture, width, height]. Every prediction is the hash of the weights, and
// every target the mean of the picture plus the index of the token. Training adds the mean of each picture to the hash.

import { vi } from "vitest";
import type { Glue, GlueArchive, GlueBatch, GlueLoadOptions, GlueModel, GlueTrainer, GlueTrainerOptions, PlannedTensor } from "../../www/src/glue.js";
import type { Masks } from "../../www/src/masks.js";

/** What the fake does instead of its work, until told otherwise. */
export interface Faults {
  initDevice?: () => Promise<void>;
  finish?: () => Promise<void>;
  embed?: () => Promise<void>;
  predict?: () => Promise<void>;
  create?: () => Promise<void>;
  step?: () => Promise<void>;
  save?: () => Promise<void>;
  model?: () => Promise<void>;
  write?: () => void;
  reset?: () => void;
}

export interface FakeState {
  /** What the model says that it runs on. */
  backend: "cpu" | "webgpu";
  faults: Faults;
  /** How often the module was loaded, and its instance replaced. */
  loads: number;
  resets: number;
  /** Objects of the module that have been made and not freed or consumed. */
  alive: Set<string>;
  /** Sizes of the batches that were embedded, and of the chunks that were written. */
  batches: number[];
  chunks: number[];
  options: GlueLoadOptions[];
  /** What trainers were made with. */
  training: object[];
  memory: WebAssembly.Memory;
}

const newMemory = () => new WebAssembly.Memory({ initial: 1 });

export const fake: FakeState = { backend: "cpu", faults: {}, loads: 0, resets: 0, alive: new Set(), batches: [], chunks: [], options: [], training: [], memory: newMemory() };

export function resetFake(): void {
  Object.assign(fake, { backend: "cpu", faults: {}, loads: 0, resets: 0, batches: [], chunks: [], options: [], training: [], memory: newMemory() });
  fake.alive.clear();
}

export function coded(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

let serial = 0;

function track(kind: string): { free(): void; stale(): boolean } {
  const name = `${kind} ${++serial}`;
  const instance = fake.resets;
  fake.alive.add(name);
  return {
    free() {
      if (instance !== fake.resets) throw new Error(`${name} is of a dead instance`);
      if (!fake.alive.delete(name)) throw new Error(`${name} was freed twice`);
    },
    stale: () => instance !== fake.resets || !fake.alive.has(name),
  };
}

export function fakeGlue(): Glue {
  return {
    async default() {
      return { memory: fake.memory };
    },
    async initDevice() {
      await fake.faults.initDevice?.();
    },
    headerLength(prefix: Uint8Array, fileSize: number) {
      if (prefix.length !== 8) throw coded("bad-checkpoint", "a file needs 8 bytes");
      const length = Number(new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true));
      if (length + 8 > fileSize) throw coded("bad-checkpoint", `a header of ${length} bytes does not fit a file of ${fileSize}`);
      return length;
    },
    isArchive: (prefix: Uint8Array) => new TextDecoder().decode(prefix.subarray(0, 2)) === "PK",
    Archive: FakeArchive,
    ModelLoader: FakeLoader,
    Probe: {
      create() {
        throw coded("unsupported", "the fake has no attentive probes");
      },
    },
    Replay: class {
      static load(): never {
        throw coded("unsupported", "the fake has no recordings");
      }
      constructor() {
        throw coded("unsupported", "the fake has no recordings");
      }
    } as never,
    Trainer: {
      async create(options) {
        fake.training.push(options);
        await fake.faults.create?.();
        return new FakeTrainer({ ...defaults(options), weights: options.seed, step: 0, imageSize: imageSizeOf(options.model) });
      },
      async resume(file) {
        fake.training.push({ file });
        await fake.faults.create?.();
        try {
          return new FakeTrainer(JSON.parse(new TextDecoder().decode(file)));
        } catch {
          throw coded("bad-checkpoint", "this is no save of a trainer");
        }
      },
    },
    __wbg_reset_state() {
      fake.faults.reset?.();
      fake.resets++;
      fake.alive.clear();
    },
  };
}

/** An archive of one tensor, "weight", whose bytes are the last half of the file. */
class FakeArchive {
  #handle = track("archive");
  #given = 0;

  constructor(readonly size: number) {}

  nextRange() {
    if (this.#given === 2) return undefined;
    return new Float64Array(this.#given === 0 ? [this.size - 4, this.size] : [0, 4]);
  }

  give(bytes: Uint8Array) {
    if (bytes.length !== 4) throw coded("bad-checkpoint", `${bytes.length} bytes of an archive came where 4 were due`);
    this.#given++;
  }

  get complete() {
    return this.#given === 2;
  }

  free() {
    this.#handle.free();
  }
}

function parseHeader(header: Uint8Array): Record<string, { data_offsets: [number, number] }> {
  try {
    return JSON.parse(new TextDecoder().decode(header));
  } catch {
    throw coded("bad-checkpoint", "the header is no JSON");
  }
}

class FakeLoader {
  #handle = track("loader");
  #plan: PlannedTensor[] = [];
  #current = -1;
  #received = 0;
  #hash = 0;
  #imageSize: number;
  #predictor: boolean;

  constructor(options: GlueLoadOptions) {
    fake.options.push(options);
    this.#predictor = options.predictor;
    if (options.config === undefined && options.preset === undefined) throw coded("bad-config", "there is no config");
    this.#imageSize = options.config === undefined ? 32 : JSON.parse(options.config).image_size;
  }

  addFile(name: string, fileSize: number, header: Uint8Array) {
    const { __metadata__, ...tensors } = parseHeader(header);
    const base = 8 + header.length;
    for (const [tensor, { data_offsets }] of Object.entries(tensors)) {
      const [begin, end] = [base + data_offsets[0], base + data_offsets[1]];
      if (end > fileSize) throw coded("bad-checkpoint", `${tensor} ends at ${end} of ${fileSize}`);
      if (!tensor.startsWith("skip")) this.#plan.push({ file: name, tensor, begin, end });
    }
  }

  addArchive(name: string, archive: GlueArchive) {
    const { size, complete } = archive as FakeArchive;
    if (!complete) throw coded("internal", "the archive was not read to its end");
    archive.free();
    this.#plan.push({ file: name, tensor: "weight", begin: Math.floor(size / 2), end: size });
  }

  plan() {
    if (this.#plan.length === 0) throw coded("missing-tensor", "there is no tensor");
    return this.#plan.sort((a, b) => (a.file < b.file ? -1 : a.file > b.file ? 1 : a.begin - b.begin));
  }

  begin(index: number) {
    this.#finishTensor();
    this.#current = index;
    this.#received = 0;
  }

  write(chunk: Uint8Array) {
    if (this.#handle.stale()) throw new Error("write to a stale loader");
    fake.faults.write?.();
    fake.chunks.push(chunk.length);
    this.#received += chunk.length;
    for (const byte of chunk) this.#hash = hash(this.#hash, byte);
  }

  #finishTensor() {
    const { begin, end, tensor } = this.#plan[this.#current] ?? { begin: 0, end: this.#received, tensor: "" };
    if (this.#received !== end - begin) throw coded("bad-checkpoint", `${tensor} got ${this.#received} of ${end - begin} bytes`);
  }

  async finish() {
    this.#finishTensor();
    this.#handle.free();
    await fake.faults.finish?.();
    return new FakeModel(this.#hash, this.#imageSize, this.#predictor && this.#plan.some(({ tensor }) => tensor.startsWith("predictor")));
  }

  /** World models are tested with the real module. */
  finishWorld(): Promise<never> {
    return Promise.reject(coded("unsupported", "the fake has no world models"));
  }

  /** Attentive probes, too. */
  finishProbe(): Promise<never> {
    return Promise.reject(coded("unsupported", "the fake has no attentive probes"));
  }

  async finishTrainer(options: Omit<GlueTrainerOptions, "model">) {
    fake.training.push(options);
    this.#finishTensor();
    this.#handle.free();
    await fake.faults.finish?.();
    return new FakeTrainer({ ...defaults(options), weights: this.#hash, step: 0, imageSize: this.#imageSize });
  }

  free() {
    this.#handle.free();
  }
}

const geometry = (imageSize: number) => ({
  config: { imageSize, patchSize: 16, hiddenSize: 4, layers: 1, heads: 1 },
  grid: [1, imageSize / 16, imageSize / 16] as [number, number, number],
  backend: fake.backend,
  parameters: 1,
});

class FakeModel implements GlueModel {
  #handle = track("model");
  readonly hash: number;
  readonly imageSize: number;
  readonly predictor: boolean;

  constructor(hash: number, imageSize: number, predictor: boolean) {
    this.hash = hash;
    this.imageSize = imageSize;
    this.predictor = predictor;
  }

  info() {
    return { ...geometry(this.imageSize), hiddenSize: 4, dtype: "f32" as const, weightBytes: 4, predictor: this.predictor, classes: 0, labels: null };
  }

  newBatch(size?: [number, number], preprocess = true): FakeBatch {
    if (this.#handle.stale()) throw new Error("stale model");
    const [h, w] = size ?? [this.imageSize, this.imageSize];
    if (h % 16 || w % 16) throw coded("bad-input", `${h} × ${w} is no multiple of 16`);
    return new FakeBatch([h, w], preprocess);
  }

  classify(): Promise<never> {
    return Promise.reject(coded("unsupported", "the fake has no attentive probes"));
  }

  async embed(batch: GlueBatch, pool: string, normalize: boolean) {
    const { rows, size, take } = batch as FakeBatch;
    take();
    if (this.#handle.stale()) throw new Error("stale model");
    fake.batches.push(rows.length);
    await fake.faults.embed?.();
    const grid: [number, number, number] = [1, size[0] / 16, size[1] / 16];
    const tokens = pool === "none" ? grid[1] * grid[2] : 1;
    const data = new Float32Array(
      rows.flatMap((row) => {
        const values = [this.hash, ...row];
        const length = normalize ? Math.hypot(...values) : 1;
        return Array.from({ length: tokens }, () => values.map((value) => value / length)).flat();
      }),
    );
    return { data, shape: pool === "none" ? [rows.length, tokens, 4] : [rows.length, 4], grid };
  }

  async predict(batch: GlueBatch, context: Uint32Array, targets: Uint32Array[]) {
    const { rows, take } = batch as FakeBatch;
    take();
    if (this.#handle.stale()) throw new Error("stale model");
    if (context.length === 0 || rows.length !== 1) throw new Error("the module was called with nothing");
    await fake.faults.predict?.();
    const tokens = targets[0]!.length;
    const target = Float32Array.from(targets.flatMap((block) => [...block].flatMap((token) => Array<number>(4).fill(rows[0]![0]! + token))));
    return {
      predicted: target.map(() => this.hash),
      target,
      error: Float32Array.from({ length: targets.length * tokens }, (_, i) => Math.abs(this.hash - target[4 * i]!)),
      shape: [targets.length, tokens, 4] as [number, number, number],
    };
  }

  free() {
    this.#handle.free();
  }
}

const kindOf = ({ objective }: Pick<GlueTrainerOptions, "objective">) => (typeof objective === "string" ? objective : objective.kind);
const imageSizeOf = (model: GlueTrainerOptions["model"]) => (typeof model === "string" ? 32 : (model.imageSize as number));
const defaults = (options: Omit<GlueTrainerOptions, "model">) => ({
  objective: kindOf(options),
  batchSize: options.batchSize,
  accumulate: options.accumulate ?? 1,
  steps: (options.schedule as { steps?: number } | undefined)?.steps ?? 100,
});

interface TrainerState {
  objective: string;
  batchSize: number;
  accumulate: number;
  steps: number;
  weights: number;
  step: number;
  imageSize: number;
}

class FakeTrainer implements GlueTrainer {
  #handle = track("trainer");
  #state: TrainerState;
  #masks: Masks = { context: [], targets: [] };

  constructor(state: TrainerState) {
    this.#state = state;
  }

  get #atOnce() {
    return this.#state.batchSize * this.#state.accumulate;
  }

  info() {
    const { weights: _, imageSize, ...rest } = this.#state;
    return { ...geometry(imageSize), frames: 1, ...rest, trainable: 1 };
  }

  /** Runs through the data set in order, each epoch beginning one picture later. */
  nextIndices(length: number) {
    this.#fresh();
    const perEpoch = Math.floor(length / this.#atOnce);
    if (perEpoch === 0) throw coded("bad-input", "not enough pictures");
    const [epoch, batch] = [Math.floor(this.#state.step / perEpoch), this.#state.step % perEpoch];
    return Uint32Array.from({ length: this.#atOnce }, (_, i) => (epoch + batch * this.#atOnce + i) % length);
  }

  newBatch(preprocess: boolean) {
    this.#fresh();
    return new FakeBatch([this.#state.imageSize, this.#state.imageSize], preprocess);
  }

  async step(batch: GlueBatch, masks: Masks | undefined) {
    const { rows, take } = batch as FakeBatch;
    this.#masks = masks ?? { context: [Uint32Array.of(this.#state.step + 1)], targets: [[Uint32Array.of(0)]] };
    take();
    this.#fresh();
    fake.batches.push(rows.length);
    if (rows.length !== this.#atOnce) throw coded("bad-input", `${rows.length} pictures are no batch`);
    await fake.faults.step?.();
    const state = this.#state;
    state.step++;
    state.weights = rows.reduce((sum, [mean]) => (sum * 3 + mean!) % 65521, state.weights);
    return {
      step: state.step,
      loss: state.weights,
      parts: {},
      lr: 1e-3,
      weightDecay: 0.04,
      ema: 0.996,
      std: 1,
      effectiveRank: 4,
      cosine: 0,
      gradNorm: 1,
      emaDistance: 0,
      warning: rows.every(([mean]) => mean === 0) ? "every picture is black" : null,
    };
  }

  lastMasks() {
    this.#fresh();
    return this.#masks;
  }

  async save() {
    this.#fresh();
    const bytes = new TextEncoder().encode(JSON.stringify(this.#state));
    await fake.faults.save?.();
    return bytes;
  }

  async export(layout: "hf" | "original") {
    this.#fresh();
    const config = new TextEncoder().encode(JSON.stringify({ image_size: this.#state.imageSize }));
    const weights = safetensors({ [layout]: this.#state.weights % 100 });
    return { "config.json": config, "model.safetensors": weights };
  }

  async model() {
    this.#fresh();
    await fake.faults.model?.();
    return new FakeModel(this.#state.weights, this.#state.imageSize, true);
  }

  async world(): Promise<never> {
    throw coded("unsupported", "no world model");
  }

  #fresh() {
    if (this.#handle.stale()) throw new Error("stale trainer");
  }

  free() {
    this.#handle.free();
  }
}

class FakeBatch implements GlueBatch {
  #handle = track("batch");
  readonly rows: number[][] = [];
  readonly size: [number, number];
  readonly preprocess: boolean;

  constructor(size: [number, number], preprocess: boolean) {
    this.size = size;
    this.preprocess = preprocess;
  }

  pushU8(data: Uint8Array, width: number, height: number, _channels: number) {
    if (width > 4000) throw coded("bad-input", "the picture is too wide");
    this.rows.push([data.reduce((a, b) => a + b, 0) / data.length, width, height]);
  }

  pushF32(data: Float32Array, width: number, height: number, _channels: number) {
    if (!this.preprocess && (width !== this.size[1] || height !== this.size[0])) throw coded("bad-input", "not the size of the batch");
    this.rows.push([(this.preprocess ? 255 : 1) * (data.reduce((a, b) => a + b, 0) / data.length), width, height]);
  }

  take = () => this.#handle.free();

  free() {
    this.#handle.free();
  }
}

/** For `vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue())`. */
export const mockGlue = () => ({
  loadGlue: vi.fn(async () => {
    fake.loads++;
    return fakeGlue();
  }),
});

/** A safetensors file with one byte tensor after another, named and sized as given; byte i is i % 251. */
export function safetensors(sizes: Record<string, number>): Uint8Array<ArrayBuffer> {
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, size] of Object.entries(sizes)) {
    header[name] = { dtype: "U8", shape: [size], data_offsets: [offset, offset + size] };
    offset += size;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  for (let i = 0; i < offset; i++) file[8 + json.length + i] = i % 251;
  return file;
}

/** Of bytes in their order; small enough to be exact in 32-bit floats. */
const hash = (before: number, byte: number) => (before * 31 + byte) % 65521;

/** The hash of the weights of files with these sizes, without the tensors that the fake skips. */
export function hashOf(...files: Record<string, number>[]): number {
  let value = 0;
  for (const sizes of files) {
    let offset = 0;
    for (const [name, size] of Object.entries(sizes)) {
      for (let i = offset; i < offset + size; i++) if (!name.startsWith("skip")) value = hash(value, i % 251);
      offset += size;
    }
  }
  return value;
}

export const CONFIG = JSON.stringify({ image_size: 32 });
