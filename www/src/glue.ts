// The wasm module as TypeScript sees it. The builds of both backends export the same names; that of masks.ts is another.

import { inNode } from "./environment.js";
import { compileError, JepaError, messageOf } from "./errors.js";
import type { Masks } from "./masks.js";
import type { Backend, ModelConfig } from "./types.js";

export interface Glue {
  /** Starts the module; where it has been started, only gives the exports of its present instance. */
  default(options?: { module_or_path: Response | BufferSource | WebAssembly.Module }): Promise<{ memory: WebAssembly.Memory }>;
  /** WebGPU build: acquires adapter and device. CPU build: resolves at once. Must be awaited before a ModelLoader is made. */
  initDevice(): Promise<void>;
  /** WebGPU build: kernels may use subgroups, as the device was made with that feature. */
  useSubgroups?(): void;
  /** The build with shared memory: work is dealt out by `share`, which is given a number of parts, from now on. */
  shareWork?(threads: number, share: (parts: number) => void): void;
  /** The same build: does a part of what is being shared, as the thread of that number. */
  doPart?(part: number, thread: number): void;
  /** Length of the JSON header that follows the first 8 bytes of a safetensors file of `fileSize` bytes. */
  headerLength(prefix: Uint8Array, fileSize: number): number;
  /** Whether a file that begins with these bytes is a PyTorch archive. */
  isArchive(prefix: Uint8Array): boolean;
  /** Of a file of `size` bytes: given the bytes of each `nextRange` in turn, until there is none. */
  Archive: new (size: number) => GlueArchive;
  ModelLoader: new (options: GlueLoadOptions) => GlueModelLoader;
  Trainer: {
    /** A trainer with freshly initialised weights. */
    create(options: GlueTrainerOptions): Promise<GlueTrainer>;
    /** A trainer as `save` left it; `options` may only repeat what the file says. */
    resume(file: Uint8Array, options: Partial<GlueTrainerOptions>): Promise<GlueTrainer>;
  };
  Replay: { new (side: number, action: number): GlueReplay; load(file: Uint8Array): GlueReplay };
  Probe: {
    /** A probe with freshly initialised weights; `labels` is the JSON of an array. */
    create(hiddenSize: number, depth: number, heads: number, mlpHidden: number, labels: string, seed: number): GlueProbe;
  };
  /** Replaces the wasm instance by a fresh one; everything that the old one made is stale afterwards. */
  __wbg_reset_state(): void;
}

export interface GlueLoadOptions {
  config?: string;
  preset?: string | ModelConfig;
  preprocessor?: string;
  dtype: "f32" | "f16" | "q8";
  encoder?: "auto" | "context" | "target";
  /** Whether the predictor is read where the checkpoint has one, and with it both encoders where it has two. */
  predictor: boolean;
  /** Whether a world model is to be made. */
  world?: boolean;
  /** Whether the predictor may be a world model's, too. */
  training?: boolean;
  /** Whether the attentive probe is read too where the checkpoint has one. */
  classifier?: boolean;
  /** Whether the attentive probe alone is read, for `finishProbe`. */
  probe?: boolean;
  /** Attention heads of the probe, instead of what the files say or the original projects have. */
  heads?: number;
}

export interface GlueArchive {
  nextRange(): Float64Array | undefined;
  give(bytes: Uint8Array): void;
  free(): void;
}

export interface GlueModelLoader {
  /** One call per safetensors file; `header` is its JSON header. */
  addFile(name: string, fileSize: number, header: Uint8Array): void;
  /** The same for a PyTorch archive that has been read to its end, and that is consumed. */
  addArchive(name: string, archive: GlueArchive): void;
  /** Checks everything and says which bytes to bring, in file order; positions count from the start of the file. */
  plan(): PlannedTensor[];
  /** Tensor `index` of the plan follows; its bytes then come through `write`, in chunks of any size. */
  begin(index: number): void;
  write(chunk: Uint8Array): void;
  /** After the last tensor. Consumes the loader. */
  finish(): Promise<GlueModel>;
  /** After the last tensor, with the option `world`. Consumes the loader. */
  finishWorld(): Promise<GlueWorld>;
  /** After the last tensor, with the option `probe`. Consumes the loader. */
  finishProbe(): Promise<GlueProbe>;
  /** After the last tensor: a trainer that goes on from these weights. Consumes the loader. */
  finishTrainer(options: Omit<GlueTrainerOptions, "model">): Promise<GlueTrainer>;
  free(): void;
}

export interface PlannedTensor {
  file: string;
  tensor: string;
  begin: number;
  end: number;
}

export interface GlueModel {
  info(): GlueModelInfo;
  /** Of clips of `frames`, 1 unless given, at the checkpoint's own resolution, or at `size` = [height, width]. Without preprocessing, pictures are the model's normalised input. */
  newBatch(size?: [number, number], preprocess?: boolean, frames?: number): GlueBatch;
  /** Consumes the batch. `shape` has the leading batch axis. */
  embed(batch: GlueBatch, pool: string, normalize: boolean): Promise<{ data: Float32Array; shape: number[]; grid: [number, number, number] }>;
  /** Consumes the batch. `unsupported` where the model has no attentive probe. */
  classify(batch: GlueBatch): Promise<GlueClassified>;
  /** Consumes a batch of one picture or clip. `targets` is one list of token indices per block, all of one length. */
  predict(batch: GlueBatch, context: Uint32Array, targets: Uint32Array[], contextFrom: string, maskIndex: number): Promise<GluePrediction>;
  free(): void;
}

export interface GluePrediction {
  /** `[blocks, K, D]`. */
  predicted: Float32Array;
  /** `[blocks, K, D]`. */
  target: Float32Array;
  /** `[blocks, K]`. */
  error: Float32Array;
  /** V-JEPA 2.1: `[blocks, context tokens, D]`. */
  contextPredicted?: Float32Array;
  shape: [blocks: number, tokens: number, d: number];
}

/** `n` samples by an attentive probe. */
export interface GlueClassified {
  /** Of the highest score, as its place among the classes, `[n]`. */
  labels: Uint32Array<ArrayBuffer>;
  /** Probabilities, `[n, classes]`. */
  scores: Float32Array<ArrayBuffer>;
  /** `[n, classes]`. */
  logits: Float32Array<ArrayBuffer>;
}

export interface GlueProbe {
  info(): GlueProbeInfo;
  /** Which `batch` of `length` samples, or all where there are fewer, the next step takes; until that is taken the answer stays the same. */
  nextIndices(length: number, batch: number, seed: number): Uint32Array;
  /** A step on the tokens `[labels.length, n, d]`. A failure with a code other than `internal` leaves the probe as it was. */
  step(tokens: Float32Array, labels: Uint32Array, steps: number, learningRate: number, warmup: number, weightDecay: number, clip: number): Promise<GlueFitStep>;
  /** The classes of the tokens `[count, n, d]`. */
  classify(tokens: Float32Array, count: number): Promise<GlueClassified>;
  /** A safetensors file. */
  save(): Promise<Uint8Array<ArrayBuffer>>;
  free(): void;
}

export interface GlueProbeInfo {
  hiddenSize: number;
  depth: number;
  heads: number;
  classes: number;
  /** What the classes are called: the JSON of an array, or of null where nothing says. */
  labels: string;
  backend: Backend;
}

export interface GlueFitStep {
  /** Steps that have been taken, this one included. */
  step: number;
  /** Before the update, like `accuracy`. */
  loss: number;
  accuracy: number;
  lr: number;
}

export interface GlueWorld {
  info(): GlueWorldInfo;
  newBatch(preprocess: boolean): GlueBatch;
  /** Consumes the batch. `[pictures, ...shape]`. */
  encode(batch: GlueBatch): Promise<Float32Array<ArrayBuffer>>;
  /**
   * `[count, horizon, ...shape]`, from `[frames, ...shape]`, the `[frames − 1, A]` between them, the states `[frames, S]` in them and
   * `[count, horizon, A]`. `told`: the states before these actions, `[count, horizon, S]`. Waits for `turn` before each pass, and rejects with
   * what that rejects with.
   */
  rollout(
    embeddings: Float32Array,
    past: Float32Array,
    states: Float32Array,
    actions: Float32Array,
    told: Float32Array | undefined,
    count: number,
    horizon: number,
    turn: () => Promise<void>,
  ): Promise<Float32Array<ArrayBuffer>>;
  plan(
    embeddings: Float32Array,
    past: Float32Array,
    states: Float32Array,
    goal: Float32Array,
    options: GluePlanOptions,
    turn: () => Promise<void>,
    told: ((samples: Float32Array, costs: Float32Array) => void) | undefined,
  ): Promise<{ actions: Float32Array; costs: number[] }>;
  free(): void;
}

export interface GlueWorldInfo {
  config: ModelConfig;
  backend: Backend;
  dtype: "f32" | "f16" | "q8";
  /** Of a frame's embeddings: `[D]`, or `[N, D]`. */
  shape: number[];
  /** Numbers of an action block. */
  actionSize: number;
  /** Numbers of a state; 0 where the model is told none. */
  stateSize: number;
  /** Most frames that the predictor sees. */
  history: number;
  parameters: number;
  weightBytes: number;
}

/** Absent fields have the published defaults. */
export interface GluePlanOptions {
  planner: string;
  preset?: string;
  seed: number;
  horizon?: number;
  samples?: number;
  iterations?: number;
  elites?: number;
  momentum?: [mean: number, std: number];
  centre?: boolean;
  maxStd?: number;
  temperature?: number;
  rate?: number;
  scale?: number;
  limit?: number;
  maxNorm?: number;
  cost?: "last" | "sum";
  start?: number[];
  axes?: { scale?: number; limit?: number; pin?: [from: number, value: number]; deadZone?: number; momentum?: [mean: number, std: number] }[];
}

/** `www/src/trainer.ts` documents and checks these; Rust checks them again. Absent fields have the recipe's defaults. */
export interface GlueTrainerOptions {
  model: string | ModelConfig;
  objective: string | { kind: string; [parameter: string]: unknown };
  seed: number;
  batchSize: number;
  schedule?: object;
  optimizer?: object;
  masks?: object;
  augmentation?: object | object[];
  projector?: object;
  /** Whether fresh weights are rescaled by depth. */
  depthRescale?: boolean;
  dtype?: "f32" | "f16";
  /** What is trained of a loaded model: everything, its last blocks, or low-rank adapters. */
  train?: "full" | { lastBlocks: number } | { lora: { rank: number; alpha?: number } };
  /** Batches whose gradients are summed before a step of the optimizer. */
  accumulate?: number;
  normalization?: { mean: number[]; std: number[] };
}

export interface GlueTrainer {
  info(): GlueTrainerInfo;
  /**
   * Which pictures of a data set of `length` the next step takes: `batchSize · accumulate` different indices, shuffled anew each
   * epoch. Until that step is taken the answer stays the same.
   */
  nextIndices(length: number): Uint32Array;
  /**
   * An empty batch for the next step; pictures are augmented as they are pushed, in the order of the step's random numbers. A batch
   * that is freed leaves no trace: the next one begins those numbers anew. Without preprocessing, pictures are the model's normalised
   * input.
   */
  newBatch(preprocess: boolean): GlueBatch;
  /**
   * Consumes the batch. Masks of the caller's, as `lastMasks` gives them, take the place of those that would be drawn; windows come with
   * their actions, `[windows, frames − 1, A]`, and, of V-JEPA 2-AC, the states in them, `[windows, frames, S]`. A failure with a code other than `internal`, such as a loss that is no number, leaves the trainer as it was.
   */
  step(batch: GlueBatch, masks: Masks | undefined, actions: Float32Array | undefined, states: Float32Array | undefined): Promise<GlueTrainStep>;
  /** The masks of the last step: token indices, raster order; empty where the objective has none. */
  lastMasks(): Masks;
  save(): Promise<Uint8Array<ArrayBuffer>>;
  /** `"hf"`: the encoder as transformers loads it. `"original"`: encoder, predictor and target encoder by the original project's names. */
  export(layout: "hf" | "original"): Promise<Record<string, Uint8Array<ArrayBuffer>>>;
  /** A model on the present weights of the target encoder, or of the online encoder where there is no other; later steps do not change it. */
  model(): Promise<GlueModel>;
  /** A world model on the present weights; `unsupported` where the objective makes none. */
  world(): Promise<GlueWorld>;
  free(): void;
}

export interface GlueTrainerInfo {
  config: ModelConfig;
  grid: [number, number, number];
  /** Of each clip or window; 1 for pictures. */
  frames: number;
  backend: Backend;
  objective: string;
  /** Steps that have been taken. */
  step: number;
  batchSize: number;
  accumulate: number;
  /** Steps of the schedule. */
  steps: number;
  trainable: number;
  parameters: number;
}

export interface GlueTrainStep {
  /** Steps that have been taken, this one included. */
  step: number;
  loss: number;
  /** The parts of the loss, where it has several. */
  parts: Record<string, number>;
  lr: number;
  weightDecay: number;
  /** Momentum of the target encoder; 1 where there is none. */
  ema: number;
  std: number;
  effectiveRank: number;
  cosine: number;
  gradNorm: number;
  /** Root mean square difference of target and online encoder, relative to the latter's root mean square. */
  emaDistance: number;
  /** Null or absent where nothing looks wrong. */
  warning?: string | null;
}

export interface GlueModelInfo {
  config: ModelConfig;
  grid: [number, number, number];
  hiddenSize: number;
  dtype: "f32" | "f16" | "q8";
  backend: Backend;
  parameters: number;
  weightBytes: number;
  /** Whether `predict` can be called. */
  predictor: boolean;
  /** Of the attentive probe; 0 where there is none, and `classify` cannot be called. */
  classes: number;
  /** What the classes are called: the JSON of an array, or of null where nothing says. Null where there are none. */
  labels: string | null;
}

/** Recorded episodes of one environment. */
export interface GlueReplay {
  /** `end`: whether it was terminated and truncated; undefined where that is not known. */
  push(frames: Uint8Array, actions: Float32Array, states: Float32Array, rewards: Float32Array, end: Uint8Array | undefined): void;
  save(): Uint8Array<ArrayBuffer>;
  readonly side: number;
  readonly action: number;
  readonly state: number;
  readonly length: number;
  frames(episode: number): Uint8Array<ArrayBuffer>;
  actions(episode: number): Float32Array<ArrayBuffer>;
  states(episode: number): Float32Array<ArrayBuffer>;
  rewards(episode: number): Float32Array<ArrayBuffer>;
  end(episode: number): Uint8Array | undefined;
  free(): void;
}

export interface GlueBatch {
  /** Interleaved; 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA. */
  pushU8(data: Uint8Array, width: number, height: number, channels: number): void;
  /** The same with values 0..1. */
  pushF32(data: Float32Array, width: number, height: number, channels: number): void;
  free(): void;
}

/** Whether the engine has relaxed SIMD, by a module with one instruction of it, `f32x4.relaxed_madd`. */
export const hasRelaxedSimd = () => WebAssembly.validate(RELAXED);
const RELAXED = new Uint8Array([
  ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
  // A type () -> v128, and a function of it.
  ...[1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0],
  // Its body: local.get 0, three times, and the instruction.
  ...[10, 15, 1, 13, 1, 1, 0x7b, 0x20, 0, 0x20, 0, 0x20, 0, 0xfd, 0x85, 2, 0x0b],
]);

/** Imports the glue of a build and starts its wasm module; once in a thread. */
export async function loadGlue(backend: Backend): Promise<Glue> {
  // Literal paths, so that bundlers see both files of every build.
  const [glue, module] = await Promise.all(
    backend === "webgpu"
      ? [glueModule(import("./wasm/webgpu/webjepa.js")), wasmFile(new URL("./wasm/webgpu/webjepa_bg.wasm", import.meta.url))]
      : hasRelaxedSimd()
      ? [glueModule(import("./wasm/cpu-relaxed/webjepa.js")), wasmFile(new URL("./wasm/cpu-relaxed/webjepa_bg.wasm", import.meta.url))]
      : [glueModule(import("./wasm/cpu/webjepa.js")), wasmFile(new URL("./wasm/cpu/webjepa_bg.wasm", import.meta.url))],
  );
  try {
    await glue.default({ module_or_path: module });
    return glue;
  } catch (error) {
    throw compileError(error);
  }
}

export async function glueModule(imported: Promise<unknown>): Promise<Glue> {
  try {
    return (await imported) as Glue;
  } catch (error) {
    throw unfetched("webjepa.js", error);
  }
}

export async function wasmFile(url: URL): Promise<Response | BufferSource> {
  try {
    if (inNode && url.protocol === "file:") return await (await import("./node.js")).readBytes(url);
    const response = await fetch(url);
    if (response.ok) return response;
    throw new Error(`the server answered ${response.status}`);
  } catch (error) {
    throw unfetched(url.href, error);
  }
}

function unfetched(file: string, cause: unknown): JepaError {
  return new JepaError("network", `${file} could not be fetched (${messageOf(cause)}): serve the folder "wasm" of the package beside its other files.`, { cause });
}
