import { cosineSimilarity, pca, type Jepa, type Pca, type PixelData } from "webjepa";
import { featureMap, predictionErrors, type ClipMasks } from "webjepa/viz";

/** What the model makes of the newest clip. */
export interface Sight {
  /** Of the last time step: RGB of each patch. */
  map: ImageData;
  /** Of the last time step: the error of each patch, NaN where it was not predicted. */
  errors: Float32Array;
  columns: number;
  /** The mean error over all that was predicted. */
  surprise: number;
  /** The mean over all tokens. */
  embedding: Float32Array;
}

/** Looks at the last frames again and again. */
export class Watcher {
  /** The principal components of the first clip, kept so that colours stay. */
  #palette: Pca | undefined;
  readonly #frames: PixelData[] = [];
  readonly window: number;

  constructor(private readonly jepa: Jepa) {
    this.window = jepa.config.frames ?? 1;
  }

  /** Adds a frame; undefined until there are enough for a clip, and for the frames between two looks. */
  async see(frame: PixelData, number: number, { context, targets }: ClipMasks): Promise<Sight | undefined> {
    this.#frames.push(frame);
    if (this.#frames.length > this.window) this.#frames.shift();
    const { tubelet = 1 } = this.jepa.config;
    if (this.#frames.length < this.window || number % tubelet > 0) return undefined;
    const clip = [...this.#frames];
    const [steps, rows, columns] = this.jepa.grid;
    const places = rows * columns;
    const tokens = steps * places;
    const [{ data, shape, grid }, { error }] = await Promise.all([
      this.jepa.embed(clip, { pool: "none" }),
      this.jepa.predict(clip, { context, targets }),
    ]);
    const dim = shape[1]!;
    const embedding = new Float32Array(dim);
    data.forEach((value, i) => (embedding[i % dim]! += value / tokens));
    const all = { data, shape: [tokens, dim], grid };
    const projected = this.#palette?.project(all) ?? (this.#palette = pca(all));
    const { values, mean } = predictionErrors(error, targets, tokens);
    return {
      map: featureMap(projected, { step: steps - 1 }),
      errors: values.subarray(tokens - places),
      columns,
      surprise: mean,
      embedding,
    };
  }
}

/** Clips that were kept, by falling similarity to an embedding. */
export function alike<T extends { embedding: Float32Array }>(kept: readonly T[], to: Float32Array): { clip: T; similarity: number }[] {
  return kept.map((clip) => ({ clip, similarity: cosineSimilarity(clip.embedding, to) })).sort((a, b) => b.similarity - a.similarity);
}
