import { cosineSimilarity, pca, type Jepa } from "webjepa";
import { featureMap } from "webjepa/viz";
import type { Drawable, Labelled } from "./picture-sets";

/** Neighbours that vote, at most. */
const MOST_NEIGHBOURS = 5;
/** Pictures that are embedded at once: a call for each would cost more than the small models take. */
const AT_ONCE = 16;

export interface FeatureMap {
  picture: Drawable;
  overlay: ImageData;
}

/** How many neighbours vote: not more than the smallest class has beside the picture itself, or the others would always win. */
export function neighboursOf(labels: readonly number[]): number {
  const sizes = new Map<number, number>();
  for (const label of labels) sizes.set(label, (sizes.get(label) ?? 0) + 1);
  return Math.max(1, Math.min(MOST_NEIGHBOURS, ...[...sizes.values()].map((size) => size - 1)));
}

/** PCA colours of the patches, over all the pictures together. */
export async function mapsOf(model: Jepa, pictures: readonly Drawable[]): Promise<FeatureMap[]> {
  const { data, shape, grid } = await model.embed(pictures, { pool: "none" });
  const [, count, width] = shape as [number, number, number];
  const each = pictures.map((_, i) => ({ data: data.subarray(i * count * width, (i + 1) * count * width), shape: [count, width], grid }));
  return pca(each).map((components, i) => ({ picture: pictures[i]!, overlay: featureMap(components) }));
}

/** The k-NN accuracy of a model's mean embeddings. */
export async function accuracyOf(model: Jepa, { pictures, labels }: Labelled): Promise<number> {
  const vectors: Float32Array[] = [];
  for (let start = 0; start < pictures.length; start += AT_ONCE) {
    const { data, shape } = await model.embed(pictures.slice(start, start + AT_ONCE));
    const [count, width] = shape as [number, number];
    for (let i = 0; i < count; i++) vectors.push(data.slice(i * width, (i + 1) * width));
  }
  return leaveOneOut(vectors, labels);
}

/** The same for the pixels, reduced to 16 × 16: what a model must beat to have learnt something. */
export function accuracyOfPixels({ pictures, labels }: Labelled): number {
  const side = 16;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  const vectors = pictures.map((picture) => {
    context.drawImage(picture, 0, 0, side, side);
    return Float32Array.from(context.getImageData(0, 0, side, side).data.filter((_, at) => at % 4 < 3));
  });
  return leaveOneOut(vectors, labels);
}

/** How often the most common class among a vector's nearest others is its own; of classes with as many votes the nearest decides. */
function leaveOneOut(raw: readonly Float32Array[], labels: readonly number[]): number {
  const vectors = centred(raw);
  const neighbours = neighboursOf(labels);
  let right = 0;
  vectors.forEach((vector, i) => {
    const nearest = vectors
      .map((other, j) => ({ label: labels[j]!, similarity: j === i ? -Infinity : cosineSimilarity(vector, other) }))
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, neighbours);
    const votes = new Map<number, number>();
    for (const { label } of nearest) votes.set(label, (votes.get(label) ?? 0) + 1);
    const most = Math.max(...votes.values());
    if (nearest.find(({ label }) => votes.get(label) === most)!.label === labels[i]) right++;
  });
  return right / vectors.length;
}

/** Without what all have in common, which says nothing of what tells them apart. */
function centred(vectors: readonly Float32Array[]): Float32Array[] {
  const mean = new Float64Array(vectors[0]!.length);
  for (const vector of vectors) vector.forEach((value, j) => (mean[j]! += value / vectors.length));
  return vectors.map((vector) => vector.map((value, j) => value - mean[j]!));
}
