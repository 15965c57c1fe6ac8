// A model in this thread's wasm instance.

import { frameNumbering } from "./clips.js";
import { macrotask } from "./environment.js";
import type { GlueBatch, GlueClassified, GlueModel, GlueModelInfo, GluePrediction } from "./glue.js";
import type { Picture, Pixels } from "./inputs.js";
import type { Instance } from "./instance.js";
import { fillBatch } from "./pictures.js";
import type { ClassifyRequest, EmbedRequest, PredictRequest } from "./protocol.js";
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

  /** Runs the model once on a grey picture or clip, so that everything that is made at first use is made now. */
  async warmup(signal: AbortSignal): Promise<void> {
    const pixels: Pixels = { data: new Uint8Array([128, 128, 128]), width: 1, height: 1, channels: 3 };
    const frames = this.info.config.frames ?? 1;
    await this.embed({ pictures: Array.from({ length: frames }, () => ({ kind: "pixels", pixels })), frames, pool: "mean", normalize: false, preprocess: true }, signal);
  }

  async embed({ pool, normalize, ...request }: Omit<EmbedRequest, "id">, signal: AbortSignal | undefined): Promise<Embedding> {
    const clips = request.pictures.length / request.frames;
    let data: Float32Array | undefined;
    let shape: number[] = [];
    let resultGrid: Grid = this.info.grid;
    for await (const { start, batch } of this.#batches(request, signal)) {
      const result = await this.#instance.run(() => this.#model.embed(batch, pool, normalize));
      const size = result.data.length / result.shape[0]!;
      data ??= new Float32Array(size * clips);
      data.set(result.data, start * size);
      shape = [clips, ...result.shape.slice(1)];
      resultGrid = result.grid;
    }
    this.#check(signal);
    return { data: data!, shape, grid: resultGrid };
  }

  async classify(request: Omit<ClassifyRequest, "id">, signal: AbortSignal | undefined): Promise<GlueClassified> {
    const { classes } = this.info;
    const clips = request.pictures.length / request.frames;
    const whole = { labels: new Uint32Array(clips), scores: new Float32Array(clips * classes), logits: new Float32Array(clips * classes) };
    for await (const { start, batch } of this.#batches(request, signal)) {
      const { labels, scores, logits } = await this.#instance.run(() => this.#model.classify(batch));
      whole.labels.set(labels, start);
      whole.scores.set(scores, start * classes);
      whole.logits.set(logits, start * classes);
    }
    this.#check(signal);
    return whole;
  }

  /** Pictures or clips, as many as go through the model at once. */
  async *#batches({ pictures, frames, imageSize, preprocess }: Omit<ClassifyRequest, "id">, signal: AbortSignal | undefined): AsyncGenerator<{ start: number; batch: GlueBatch }, void, undefined> {
    const { config, grid, backend } = this.info;
    const [height, width] = imageSize ?? [];
    const places = height && width ? (height * width) / config.patchSize ** 2 : grid[1] * grid[2];
    const tokens = places * Math.ceil(frames / (config.tubelet ?? 1));
    const atOnce = Math.max(1, Math.floor(TOKENS_AT_ONCE[backend] / tokens));
    for (let start = 0; start < pictures.length / frames; start += atOnce) {
      // An abort or a paint that has been waiting gets its turn between batches.
      await macrotask();
      this.#check(signal);
      yield { start, batch: await this.#fill(pictures, [start, start + atOnce], { frames, imageSize, preprocess }, signal) };
    }
  }

  async predict({ pictures, context, targets, contextFrom, maskIndex, preprocess }: Omit<PredictRequest, "id">, signal: AbortSignal | undefined): Promise<GluePrediction> {
    await macrotask();
    const batch = await this.#fill(pictures, [0, 1], { frames: pictures.length, imageSize: undefined, preprocess }, signal);
    const result = await this.#instance.run(() => this.#model.predict(batch, context, targets, contextFrom, maskIndex));
    this.#check(signal);
    return result;
  }

  #fill(
    pictures: readonly Picture[],
    [start, end]: [number, number],
    { frames, imageSize, preprocess }: { frames: number; imageSize: [number, number] | undefined; preprocess: boolean },
    signal: AbortSignal | undefined,
  ): Promise<GlueBatch> {
    return fillBatch(this.#instance, pictures.slice(start * frames, end * frames), {
      open: () => this.#model.newBatch(imageSize, preprocess, frames),
      check: () => this.#check(signal),
      signal,
      number: frameNumbering((i) => (pictures.length > frames ? start + i : undefined), frames),
    });
  }

  free(): void {
    this.#model.free();
  }
}
