import { WorkerEngine } from "./client.js";
import { LocalEngine, namePicture, type EmbedRequest, type Engine, type Loaded, type LoadRequest } from "./engine.js";
import { abortable, JepaError, throwIfAborted } from "./errors.js";
import { capture, discard, type ImageInput, type Picture } from "./inputs.js";
import { inNode } from "./environment.js";
import type { Backend, Dtype, Embedding, Grid, ModelConfig, ModelPreset, Progress } from "./types.js";
import { describeSource, type ModelSource } from "./weights.js";

declare global {
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

/** Where the runtime has no such symbol yet, the one that its polyfills use. */
const asyncDispose: typeof Symbol.asyncDispose = Symbol.asyncDispose ?? (Symbol.for("Symbol.asyncDispose") as typeof Symbol.asyncDispose);

export interface LoadOptions {
  /** Default `"auto"`: WebGPU where {@link probeDevice} finds it usable, else the CPU. */
  backend?: Backend | "auto" | undefined;
  /** How weights are kept. Default `"auto"`: `"f32"`, which is exact; `"f16"` halves and `"q8"` quarters the memory. */
  dtype?: Dtype | "auto" | undefined;
  /** Compute in a dedicated worker, where the runtime has them. Default true; false computes in this thread. */
  worker?: boolean | undefined;
  /** The geometry of a checkpoint that has no `config.json`: a published one by its name, or in numbers. */
  config?: ModelPreset | ModelConfig | undefined;
  /** Which encoder of a training checkpoint, which has two. Default `"auto"`: the target encoder where there is one. */
  encoder?: "auto" | "context" | "target" | undefined;
  /** Run the model once while loading, so that the first `embed` is as fast as the others. Default false. */
  warmup?: boolean | undefined;
  /** Told how far the load has come, about twenty times a second. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborts the load. */
  signal?: AbortSignal | undefined;
  /** Only `"none"` in this version: the browser's HTTP cache is all the cache there is. */
  cache?: "none" | undefined;
}

export interface EmbedOptions {
  /**
   * `"mean"` (default): the mean over all tokens, `[D]`. `"none"`: every token, `[N, D]`.
   * `"last4-mean"`: the means of the last four layers, each after the final norm, from the earliest to the last, `[4·D]`.
   */
  pool?: "mean" | "none" | "last4-mean" | undefined;
  /** Scale each vector to length 1. Default false. */
  normalize?: boolean | undefined;
  /** Height and width in pixels that pictures are resized to, each a multiple of the patch size. Default: the model's own. */
  imageSize?: number | [height: number, width: number] | undefined;
  /** False: pictures are Float32Array pixel data, resized and normalised by the caller to be the model's very input. Default true. */
  preprocess?: boolean | undefined;
  /** Aborts the call; the model stays usable. */
  signal?: AbortSignal | undefined;
}

/**
 * A loaded encoder.
 *
 * Calls are answered one at a time, in the order in which they were made. After a failed call, a lost GPU device or a crash
 * included, the same object answers again; where needed it loads the model anew.
 *
 * @example
 * const jepa = await Jepa.load("/models/ijepa_vith14_1k/");
 * const { data, shape } = await jepa.embed(document.querySelector("img"), { pool: "mean" });
 */
export class Jepa {
  readonly #request: LoadRequest;
  readonly #spawn: () => Engine;
  #engine: Engine;
  #loaded: Loaded;
  #queue: Promise<unknown> = Promise.resolve();
  readonly #disposal = new AbortController();

  /**
   * Loads a model.
   *
   * @param source - where its files are; see {@link ModelSource}
   * @throws {@link JepaError} `network`, `bad-config`, `bad-checkpoint`, `missing-tensor`, `shape-mismatch`, `unsupported`,
   * `no-webgpu` (only with `backend: "webgpu"`), `out-of-memory`, `bad-input`, `aborted`
   */
  static async load(source: ModelSource, options: LoadOptions = {}): Promise<Jepa> {
    const { signal } = options;
    throwIfAborted(signal);
    const request = loadRequest(source, options);
    // Node's own workers are another interface, and its module is started from a file.
    const spawn = (options.worker ?? true) && !inNode && typeof Worker === "function" ? () => new WorkerEngine() : () => new LocalEngine();
    const engine = spawn();
    return new Jepa(request, spawn, engine, await loadInto(engine, request, isolated(options.onProgress), signal));
  }

  private constructor(request: LoadRequest, spawn: () => Engine, engine: Engine, loaded: Loaded) {
    this.#request = request;
    this.#spawn = spawn;
    this.#engine = engine;
    this.#loaded = loaded;
  }

  /** What computes. */
  get backend(): Backend {
    return this.#loaded.info.backend;
  }

  /** Why `backend: "auto"` chose the CPU, as a sentence; undefined when it did not. */
  get fallbackReason(): string | undefined {
    return this.#loaded.fallbackReason;
  }

  /** How the weights are kept. */
  get dtype(): Dtype {
    return this.#loaded.info.dtype;
  }

  /** The geometry of the model. */
  get config(): ModelConfig {
    return this.#loaded.info.config;
  }

  /** Patches along time, height and width of the model's own input size. */
  get grid(): Grid {
    return [...this.#loaded.info.grid];
  }

  /**
   * Embeds a picture, or several.
   *
   * Pictures are taken as they are when this is called; the caller's objects are never changed, closed or transferred.
   *
   * @returns row-major data of shape `[D]`, or `[N, D]` with `pool: "none"`; with a leading `B` when `images` is an array
   * @throws {@link JepaError} `bad-input`, `network`, `aborted`, `disposed`, `device-lost`, `out-of-memory`, `internal`
   */
  embed(images: ImageInput | readonly ImageInput[], options: EmbedOptions = {}): Promise<Embedding> {
    const { signal } = options;
    const list: readonly ImageInput[] | undefined = Array.isArray(images) ? images : undefined;
    const embedding = async () => {
      throwIfAborted(signal);
      const request = embedRequest(options);
      if (list?.length === 0) throw new JepaError("bad-input", "There is no picture to embed: the array is empty.");
      const pictures = await captureAll(list ?? [images as ImageInput], !request.preprocess);
      const complete: EmbedRequest = { ...request, pictures };
      // A prepared picture says its size itself.
      const [first] = pictures;
      if (!request.preprocess && first?.kind === "pixels") complete.imageSize ??= [first.pixels.height, first.pixels.width];
      return complete;
    };
    // Captured now, even when other calls are waiting.
    const request = embedding();
    request.catch(() => {});
    return this.#enqueue(async (engine) => {
      const { data, shape, grid } = await engine.embed(await request, signal);
      return { data, shape: list ? shape : shape.slice(1), grid };
    }, signal).catch((error) => {
      request.then(({ pictures }) => pictures.forEach(discard), () => {});
      throw error;
    });
  }

  /**
   * Runs the model once, so that the first `embed` is as fast as the others. Worth while on WebGPU, whose shaders are
   * compiled at first use.
   */
  async warmup(options: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    await this.embed({ data: new Uint8Array([128, 128, 128]), width: 1, height: 1, channels: 3 }, options);
  }

  /** One turn in the queue, with an engine that works. */
  #enqueue<T>(task: (engine: Engine) => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const turn = this.#queue.then(async () => {
      this.#throwIfDisposed();
      throwIfAborted(signal);
      if (this.#engine.dead) await this.#revive(signal);
      return task(this.#engine);
    });
    this.#queue = turn.catch(() => {});
    return this.#untilDisposed(abortable(turn, signal));
  }

  async #revive(signal: AbortSignal | undefined): Promise<void> {
    this.#engine.close();
    this.#engine = this.#spawn();
    // Not to be aborted by the disposal alone: closing the engine ends the load.
    this.#loaded = await loadInto(this.#engine, this.#request, () => {}, signal);
  }

  async #untilDisposed<T>(promise: Promise<T>): Promise<T> {
    try {
      return await abortable(promise, this.#disposal.signal);
    } catch (error) {
      this.#throwIfDisposed();
      throw error;
    }
  }

  #throwIfDisposed(): void {
    if (this.#disposal.signal.aborted) throw new JepaError("disposed", "The model has been disposed of; load it again.");
  }

  /** Gives back the model's memory, its worker and its GPU device. Calls in progress reject with `disposed`. May be called twice. */
  async dispose(): Promise<void> {
    this.#disposal.abort();
    this.#engine.close();
    await this.#queue;
  }

  /** The same as {@link Jepa.dispose}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** A listener whose own errors go where uncaught errors go, and not into the load. */
function isolated(onProgress: LoadOptions["onProgress"]): (progress: Progress) => void {
  return (progress) => {
    try {
      onProgress?.(progress);
    } catch (error) {
      setTimeout(() => {
        throw error;
      });
    }
  };
}

/** A load that leaves nothing behind when it fails. */
async function loadInto(engine: Engine, request: LoadRequest, onProgress: (progress: Progress) => void, signal: AbortSignal | undefined): Promise<Loaded> {
  try {
    return await abortable(engine.load(request, onProgress, signal), signal);
  } catch (error) {
    engine.close();
    throw error;
  }
}

const BACKENDS: readonly unknown[] = ["auto", "webgpu", "cpu"];
const DTYPES: readonly unknown[] = ["auto", "f32", "f16", "q8"];
const POOLS: readonly unknown[] = ["mean", "none", "last4-mean"];
const ENCODERS: readonly unknown[] = ["auto", "context", "target"];

function oneOf<T>(name: string, value: T, allowed: readonly unknown[]): T {
  if (allowed.includes(value)) return value;
  throw new JepaError("bad-input", `The option ${name} is one of ${allowed.map((known) => `"${known}"`).join(", ")}, not ${JSON.stringify(value)}.`);
}

function loadRequest(source: ModelSource, options: LoadOptions): LoadRequest {
  const { backend = "auto", dtype = "auto", encoder = "auto", config, cache = "none", warmup = false } = options;
  if (cache !== "none") throw new JepaError("unsupported", 'This version has no cache of its own; leave out the option "cache".');
  if ("integrity" in options) throw new JepaError("unsupported", 'This version cannot check hashes; leave out the option "integrity".');
  oneOf("dtype", dtype, DTYPES);
  return {
    source: describeSource(source),
    backend: oneOf("backend", backend, BACKENDS),
    options: { dtype: dtype === "auto" ? "f32" : dtype, encoder: oneOf("encoder", encoder, ENCODERS), ...(config === undefined ? {} : { preset: config }) },
    warmup,
  };
}

function embedRequest({ pool = "mean", normalize = false, imageSize, preprocess = true }: EmbedOptions): Omit<EmbedRequest, "pictures"> {
  oneOf("pool", pool, POOLS);
  if (imageSize === undefined) return { pool, normalize, preprocess };
  const size = typeof imageSize === "number" ? [imageSize, imageSize] : imageSize;
  if (size.length !== 2 || !size.every((side) => Number.isInteger(side) && side > 0)) {
    throw new JepaError("bad-input", `The option imageSize is a number of pixels or [height, width], not ${JSON.stringify(imageSize)}.`);
  }
  return { pool, normalize, preprocess, imageSize: [size[0]!, size[1]!] };
}

/** All pictures, or none: a failure gives back those that were already taken. */
async function captureAll(images: readonly ImageInput[], prepared: boolean): Promise<Picture[]> {
  const results = await Promise.allSettled(images.map(capture));
  const pictures: Picture[] = [];
  let failure: unknown;
  for (const [index, result] of results.entries()) {
    if (result.status === "fulfilled") pictures.push(result.value);
    else failure ??= images.length > 1 ? namePicture(result.reason, index) : result.reason;
    if (prepared && result.status === "fulfilled" && !(result.value.kind === "pixels" && result.value.pixels.data instanceof Float32Array)) {
      failure ??= new JepaError("bad-input", "With preprocess: false pictures are { data: Float32Array, width, height, channels }.");
    }
  }
  if (failure === undefined) return pictures;
  pictures.forEach(discard);
  throw failure;
}
