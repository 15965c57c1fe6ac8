// A model in this thread's wasm instance.

import { macrotask } from "./environment.js";
import type { GlueBatch, GlueModel, GlueModelInfo, GluePrediction } from "./glue.js";
import type { Picture, Pixels } from "./inputs.js";
import type { Instance } from "./instance.js";
import { fillBatch } from "./pictures.js";
import type { EmbedRequest, PredictRequest } from "./protocol.js";
import type { Embedding, Grid } from "./types.js";

/**
 * On a GPU as many tokens go through the model at once as 16 pictures of 14 × 14 patches have: enough to fill it, and aborts stay
 * quick. On the CPU pictures go one by one: eight at once took twice as long, because what they need leaves the cache.
 */
const TOKENS_AT_ONCE = { webgpu: 16 * 196, cpu: 1 };

/** Throws when a call has been aborted. */
export type Check = (signal: AbortSignal | undefined) => void;

export class LocalModel {
  readonly #instance: Instance;
  readonly #model: GlueModel;
  readonly #check: Check;
  readonly info: GlueModelInfo;

  constructor(instance: Instance, model: GlueModel, check: Check) {
    this.#instance = instance;
    this.#model = model;
    this.#check = check;
    this.info = instance.call(() => model.info());
  }

  /** Runs the model once on a grey picture, so that everything that is made at first use is made now. */
  async warmup(signal: AbortSignal): Promise<void> {
    const pixels: Pixels = { data: new Uint8Array([128, 128, 128]), width: 1, height: 1, channels: 3 };
    await this.embed({ pictures: [{ kind: "pixels", pixels }], pool: "mean", normalize: false, preprocess: true }, signal);
  }

  async embed({ pictures, pool, normalize, imageSize, preprocess }: Omit<EmbedRequest, "id">, signal: AbortSignal | undefined): Promise<Embedding> {
    const { config, grid, backend } = this.info;
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
      const batch = await this.#fill(pictures, start, start + atOnce, { imageSize, preprocess }, signal);
      const result = await this.#instance.run(() => this.#model.embed(batch, pool, normalize));
      const size = result.data.length / result.shape[0]!;
      data ??= new Float32Array(size * pictures.length);
      data.set(result.data, start * size);
      shape = [pictures.length, ...result.shape.slice(1)];
      resultGrid = result.grid;
    }
    this.#check(signal);
    return { data: data!, shape, grid: resultGrid };
  }

  async predict({ pictures, context, targets, preprocess }: Omit<PredictRequest, "id">, signal: AbortSignal | undefined): Promise<GluePrediction> {
    await macrotask();
    const batch = await this.#fill(pictures, 0, 1, { imageSize: undefined, preprocess }, signal);
    const result = await this.#instance.run(() => this.#model.predict(batch, context, targets));
    this.#check(signal);
    return result;
  }

  #fill(
    pictures: readonly Picture[],
    start: number,
    end: number,
    { imageSize, preprocess }: { imageSize: [number, number] | undefined; preprocess: boolean },
    signal: AbortSignal | undefined,
  ): Promise<GlueBatch> {
    return fillBatch(this.#instance, pictures.slice(start, end), {
      open: () => this.#model.newBatch(imageSize, preprocess),
      check: () => this.#check(signal),
      signal,
      number: (i) => (pictures.length > 1 ? start + i : undefined),
    });
  }

  free(): void {
    this.#model.free();
  }
}
