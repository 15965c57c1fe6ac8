// A model in this thread: loads it into the thread's wasm instance and runs it. Calls come one at a time.

import { chooseBackend } from "./device.js";
import { macrotask } from "./environment.js";
import { abortError, JepaError, throwIfAborted, toJepaError } from "./errors.js";
import type { GlueBatch, GlueLoadOptions, GlueModel, GlueModelInfo } from "./glue.js";
import { decode, discard, type Picture, type Pixels } from "./inputs.js";
import { Instance } from "./instance.js";
import type { Backend, Embedding, Grid, Progress } from "./types.js";
import { openCheckpoint, readHeaders, streamWeights, type Source } from "./weights.js";

/** Everything that loading needs, in a form that can be posted to a worker and used again after a loss. */
export interface LoadRequest {
  source: Source;
  backend: Backend | "auto";
  options: Omit<GlueLoadOptions, "config" | "preprocessor">;
  warmup: boolean;
}

export interface Loaded {
  info: GlueModelInfo;
  /** Why "auto" chose the CPU. */
  fallbackReason?: string;
}

export interface EmbedRequest {
  pictures: Picture[];
  pool: "mean" | "none" | "last4-mean";
  normalize: boolean;
  imageSize?: [height: number, width: number];
  preprocess: boolean;
}

/** What a model does, here or behind a worker. After a fatal failure `dead` is set, and another engine must be made. */
export interface Engine {
  readonly dead: boolean;
  load(request: LoadRequest, onProgress: (progress: Progress) => void, signal: AbortSignal | undefined): Promise<Loaded>;
  /** The result has the leading batch axis. */
  embed(request: EmbedRequest, signal: AbortSignal | undefined): Promise<Embedding>;
  /** Gives back everything at once where that can be done, else when the call in progress ends. */
  close(): void;
}

/**
 * On a GPU as many tokens go through the model at once as 16 pictures of 14 × 14 patches have: enough to fill it, and aborts stay
 * quick. On the CPU pictures go one by one: eight at once took twice as long, because what they need leaves the cache.
 */
const TOKENS_AT_ONCE = { webgpu: 16 * 196, cpu: 1 };

/** Between two messages about the same download, in milliseconds. */
const PROGRESS_INTERVAL = 50;

export class LocalEngine implements Engine {
  #instance: Instance | undefined;
  #model: GlueModel | undefined;
  #info: GlueModelInfo | undefined;
  #busy = 0;
  readonly #closing = new AbortController();

  get dead(): boolean {
    return this.#closing.signal.aborted || this.#instance?.dead === true;
  }

  load(request: LoadRequest, onProgress: (progress: Progress) => void, signal: AbortSignal | undefined): Promise<Loaded> {
    return this.#work(async () => {
      const report = progressReporter(onProgress, request.warmup);
      // One signal for everything that is opened on the way, so that a failure anywhere ends all of it.
      const failing = new AbortController();
      const onAbort = () => failing.abort(signal!.reason);
      signal?.addEventListener("abort", onAbort);
      const onClose = () => failing.abort(this.#closing.signal.reason);
      this.#closing.signal.addEventListener("abort", onClose);
      if (signal?.aborted) onAbort();
      try {
        return await this.#load(request, report, failing.signal);
      } catch (error) {
        failing.abort(error);
        throw error;
      } finally {
        signal?.removeEventListener("abort", onAbort);
        this.#closing.signal.removeEventListener("abort", onClose);
      }
    });
  }

  async #load({ source, backend, options, warmup }: LoadRequest, report: Report, signal: AbortSignal): Promise<Loaded> {
    throwIfAborted(signal);
    const opening = this.#open(backend);
    const opened = opening.then(() => report("compile", 1));
    const [fallbackReason, checkpoint] = await Promise.all([opening, openCheckpoint(source, options.preset !== undefined, signal), opened]).catch(async (error) => {
      // An instance that comes up after the failure must be known, to be released.
      await opened.catch(() => {});
      throw error;
    });
    throwIfAborted(signal);
    const instance = this.#instance!;
    const { config, preprocessor } = checkpoint;
    const loader = instance.call(
      () => new instance.glue.ModelLoader({ ...options, ...(config === undefined ? {} : { config }), ...(preprocessor === undefined ? {} : { preprocessor }) }),
    );
    let streamed = false;
    try {
      const readers = await instance.run(() => readHeaders(instance.glue, loader, checkpoint.weights, signal));
      await instance.run(() => streamWeights(loader, readers, (file, loaded, total, done) => report("download", done, file, loaded, total)));
      throwIfAborted(signal);
      streamed = true;
      this.#model = await instance.run(() => loader.finish());
    } finally {
      if (!streamed && !instance.dead) loader.free();
    }
    throwIfAborted(signal);
    report("upload", 1);
    this.#info = instance.call(() => this.#model!.info());
    if (warmup) {
      await this.#warmup(signal);
      report("warmup", 1);
    }
    return { info: this.#info, ...(fallbackReason === undefined ? {} : { fallbackReason }) };
  }

  /** Opens an instance; gives the reason when "auto" had to do without WebGPU. */
  async #open(requested: Backend | "auto"): Promise<string | undefined> {
    const { backend, reason } = await chooseBackend(requested);
    try {
      this.#instance = await Instance.open(backend);
      return reason;
    } catch (error) {
      const { code, message } = toJepaError(error);
      if (requested !== "auto" || code !== "no-webgpu") throw error;
      this.#instance = await Instance.open("cpu");
      return message;
    }
  }

  /** Runs the model once on a grey picture, so that everything that is made at first use is made now. */
  async #warmup(signal: AbortSignal): Promise<void> {
    const pixels: Pixels = { data: new Uint8Array([128, 128, 128]), width: 1, height: 1, channels: 3 };
    await this.#embed({ pictures: [{ kind: "pixels", pixels }], pool: "mean", normalize: false, preprocess: true }, signal);
  }

  embed(request: EmbedRequest, signal: AbortSignal | undefined): Promise<Embedding> {
    return this.#work(async () => {
      try {
        return await this.#embed(request, signal);
      } finally {
        request.pictures.forEach(discard);
      }
    });
  }

  async #embed({ pictures, pool, normalize, imageSize, preprocess }: EmbedRequest, signal: AbortSignal | undefined): Promise<Embedding> {
    const instance = this.#instance!;
    const model = this.#model!;
    const { config, grid, backend } = this.#info!;
    const [height, width] = imageSize ?? [];
    const tokens = height && width ? (height * width) / config.patchSize ** 2 : grid[1] * grid[2];
    const atOnce = Math.max(1, Math.floor(TOKENS_AT_ONCE[backend] / tokens));
    let data: Float32Array | undefined;
    let shape: number[] = [];
    let resultGrid: Grid = grid;
    for (let start = 0; start < pictures.length; start += atOnce) {
      // An abort or a paint that has been waiting gets its turn between batches.
      await macrotask();
      this.#check(signal);
      const batch = await this.#fill(pictures, start, Math.min(start + atOnce, pictures.length), { imageSize, preprocess }, signal);
      const result = await instance.run(() => model.embed(batch, pool, normalize));
      const size = result.data.length / result.shape[0]!;
      data ??= new Float32Array(size * pictures.length);
      data.set(result.data, start * size);
      shape = [pictures.length, ...result.shape.slice(1)];
      resultGrid = result.grid;
    }
    this.#check(signal);
    return { data: data!, shape, grid: resultGrid };
  }

  async #fill(
    pictures: Picture[],
    start: number,
    end: number,
    { imageSize, preprocess }: { imageSize: [number, number] | undefined; preprocess: boolean },
    signal: AbortSignal | undefined,
  ): Promise<GlueBatch> {
    const instance = this.#instance!;
    const batch = instance.call(() => this.#model!.newBatch(imageSize, preprocess));
    try {
      for (let i = start; i < end; i++) {
        this.#check(signal);
        try {
          const { data, width, height, channels } = await decode(pictures[i]!, signal);
          instance.call(() => (data instanceof Float32Array ? batch.pushF32(data, width, height, channels) : batch.pushU8(data, width, height, channels)));
        } catch (error) {
          throw pictures.length > 1 ? namePicture(error, i) : error;
        }
      }
      return batch;
    } catch (error) {
      if (!instance.dead) batch.free();
      throw error;
    }
  }

  #check(signal: AbortSignal | undefined): void {
    throwIfAborted(signal);
    if (this.#closing.signal.aborted) throw abortError(this.#closing.signal);
  }

  async #work<T>(body: () => Promise<T>): Promise<T> {
    this.#busy++;
    try {
      return await body();
    } catch (error) {
      throw toJepaError(error);
    } finally {
      this.#busy--;
      this.#releaseIfIdle();
    }
  }

  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#releaseIfIdle();
  }

  #releaseIfIdle(): void {
    if (!this.#closing.signal.aborted || this.#busy > 0 || !this.#instance) return;
    if (!this.#instance.dead) this.#model?.free();
    this.#instance.release();
    this.#instance = undefined;
  }
}

/** Says which of several pictures an error is about. */
export function namePicture(error: unknown, index: number): JepaError {
  const { code, message, cause } = toJepaError(error);
  return new JepaError(code, code === "aborted" ? message : `Picture ${index}: ${message}`, { cause });
}

type Report = (phase: Progress["phase"], done: number, file?: string, loaded?: number, total?: number) => void;

/** Progress of the phases, of which some run side by side, as one number; not more often than anybody can see. */
function progressReporter(onProgress: (progress: Progress) => void, warmup: boolean): Report {
  const percent = { compile: 10, download: 70, upload: warmup ? 10 : 20, warmup: warmup ? 10 : 0 };
  const done = { compile: 0, download: 0, upload: 0, warmup: 0 };
  let last = -Infinity;
  return (phase, part, file = "", loaded = 0, total = 0) => {
    done[phase] = part;
    const now = performance.now();
    if (loaded < total && now - last < PROGRESS_INTERVAL) return;
    last = now;
    let overall = 0;
    for (const name of Object.keys(percent) as Progress["phase"][]) overall += percent[name] * done[name];
    onProgress({ phase, file, loaded, total, fromCache: false, overall: overall / 100 });
  };
}
