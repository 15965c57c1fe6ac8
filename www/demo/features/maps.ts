import { cosineSimilarity, pca } from "webjepa";
import { featureMap, heatMap } from "webjepa/viz";
import { probeCell, type Embedding, type Picture, type State } from "./state";

export interface FeatureMap {
  overlay: ImageData;
  /** How much of the variance among the vectors its three colours show, 0 to 1. */
  explained: number;
}

const jointMaps = memo(mapsOf);
const singleMaps = new WeakMap<Embedding, FeatureMap>();

/** PCA colours for every embedded picture, over all of them together or over each by itself. */
export function featureMaps(pictures: readonly Picture[], joint: boolean): Map<Picture, FeatureMap> {
  const embedded = withEmbedding(pictures);
  if (joint) {
    const maps = jointMaps(...embedded.map(([, embedding]) => embedding));
    return new Map(embedded.map(([picture], i) => [picture, maps[i]!]));
  }
  for (const [, embedding] of embedded) {
    if (!singleMaps.has(embedding)) singleMaps.set(embedding, mapsOf(embedding)[0]!);
  }
  return new Map(embedded.map(([picture, embedding]) => [picture, singleMaps.get(embedding)!]));
}

function mapsOf(...embeddings: Embedding[]): FeatureMap[] {
  if (embeddings.length === 0) return [];
  return pca(embeddings.map(({ tokens, dim, rows, columns }) => ({ data: tokens, shape: [rows * columns, dim], grid: [1, rows, columns] as const }))).map((components) => ({
    overlay: featureMap(components),
    explained: components.explainedVarianceRatio.reduce((a, b) => a + b),
  }));
}

export interface SimilarityMaps {
  overlays: Map<Picture, ImageData>;
  /** The similarities at the two ends of the colour scale, common to all pictures. */
  low: number;
  high: number;
}

/** How similar every patch of every picture is to the chosen patch of the selected one. */
export function similarityMaps(state: State): SimilarityMaps | undefined {
  const query = state.selected?.embedding;
  if (!query) return undefined;
  const { row, column } = probeCell(state, query);
  const embedded = withEmbedding(state.pictures);
  const { images, low, high } = similarities(query, row * query.columns + column, ...embedded.map(([, embedding]) => embedding));
  return { overlays: new Map(embedded.map(([picture], i) => [picture, images[i]!])), low, high };
}

const similarities = memo((query: Embedding, patch: number, ...embeddings: Embedding[]) => {
  const probe = token(query, patch);
  let [low, high] = [Infinity, -Infinity];
  const values = embeddings.map((embedding) =>
    Float32Array.from({ length: embedding.rows * embedding.columns }, (_, other) => {
      const value = cosineSimilarity(probe, token(embedding, other));
      low = Math.min(low, value);
      high = Math.max(high, value);
      return value;
    }),
  );
  const images = embeddings.map(({ columns }, i) => heatMap(values[i]!, columns, { low, high }));
  return { images, low, high };
});

/** The other pictures by falling similarity of their mean vectors to the selected picture's; those not embedded yet come last. */
export function ranked(state: State): { picture: Picture; similarity?: number }[] {
  const { selected } = state;
  const reference = selected?.embedding;
  const entries = state.pictures.map((picture) => ({
    picture,
    similarity: reference && picture.embedding ? cosineSimilarity(reference.mean, picture.embedding.mean) : undefined,
  }));
  const key = ({ picture, similarity }: (typeof entries)[number]) => (picture === selected ? Infinity : (similarity ?? -Infinity));
  return entries.sort((a, b) => key(b) - key(a) || a.picture.id - b.picture.id);
}

function token({ tokens, dim }: Embedding, patch: number): Float32Array {
  return tokens.subarray(patch * dim, (patch + 1) * dim);
}

function withEmbedding(pictures: readonly Picture[]): [Picture, Embedding][] {
  return pictures.flatMap((picture): [Picture, Embedding][] => (picture.embedding ? [[picture, picture.embedding]] : []));
}

/** Remembers the last result: most changes of the page, such as the overlay's strength, leave the maps as they are. */
function memo<A extends unknown[], R>(compute: (...args: A) => R): (...args: A) => R {
  let last: { args: A; result: R } | undefined;
  return (...args) => {
    if (!last || last.args.length !== args.length || last.args.some((arg, i) => arg !== args[i])) last = { args, result: compute(...args) };
    return last.result;
  };
}
