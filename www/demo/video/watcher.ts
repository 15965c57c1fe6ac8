import { cosineSimilarity, pca, type Jepa, type Pca, type PixelData } from "webjepa";
import { featureMap } from "webjepa/viz";

/** What the model makes of the newest clip. */
export interface Sight {
  /** Of the last time step: RGB of each patch. */
  map: ImageData;
  /** Of the last time step: the error of each patch. */
  errors: Float32Array;
  rows: number;
  columns: number;
  /** The mean error over the predicted half. */
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
  async see(frame: PixelData, number: number): Promise<Sight | undefined> {
    this.#frames.push(frame);
    if (this.#frames.length > this.window) this.#frames.shift();
    const { tubelet = 1 } = this.jepa.config;
    if (this.#frames.length < this.window || number % tubelet > 0) return undefined;
    const clip = [...this.#frames];
    const [steps, rows, columns] = this.jepa.grid;
    const places = rows * columns;
    const half = Math.ceil(steps / 2) * places;
    const tokens = Uint32Array.from({ length: steps * places }, (_, i) => i);
    const [{ data, shape, grid }, { error }] = await Promise.all([
      this.jepa.embed(clip, { pool: "none" }),
      this.jepa.predict(clip, { context: tokens.subarray(0, half), targets: [tokens.subarray(half)] }),
    ]);
    const dim = shape[1]!;
    const embedding = new Float32Array(dim);
    data.forEach((value, i) => (embedding[i % dim]! += value / tokens.length));
    const all = { data, shape: [tokens.length, dim], grid };
    const projected = this.#palette?.project(all) ?? (this.#palette = pca(all));
    return {
      map: featureMap(projected, { step: steps - 1 }),
      errors: error.slice(error.length - places),
      rows,
      columns,
      surprise: error.reduce((sum, value) => sum + value, 0) / error.length,
      embedding,
    };
  }
}

/** Clips that were kept, by falling similarity to an embedding. */
export function alike<T extends { embedding: Float32Array }>(kept: readonly T[], to: Float32Array): { clip: T; similarity: number }[] {
  return kept.map((clip) => ({ clip, similarity: cosineSimilarity(clip.embedding, to) })).sort((a, b) => b.similarity - a.similarity);
}
