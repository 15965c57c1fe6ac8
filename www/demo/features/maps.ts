import { cosineSimilarity, pca } from "webjepa";
import { writeInferno } from "./colours";
import type { Overlay } from "./paint";
import { probeCell, type Embedding, type Picture, type State } from "./state";

/** The colours of pictures whose embeddings have not changed: PCA is the page's only heavy work, and opacity needs none of it. */
const known = { joint: new WeakMap<Embedding, Overlay>(), single: new WeakMap<Embedding, Overlay>(), jointOf: [] as Embedding[] };

/** PCA colours for every embedded picture, over all of them together or over each by itself. */
export function featureMaps(pictures: readonly Picture[], joint: boolean): Map<Picture, Overlay> {
  const embedded = withEmbedding(pictures);
  if (joint) {
    const embeddings = embedded.map(([, embedding]) => embedding);
    if (embeddings.length !== known.jointOf.length || embeddings.some((e, i) => e !== known.jointOf[i])) {
      known.jointOf = embeddings;
      colours(embeddings).forEach((overlay, i) => known.joint.set(embeddings[i]!, overlay));
    }
  } else {
    for (const [, embedding] of embedded) {
      if (!known.single.has(embedding)) known.single.set(embedding, colours([embedding])[0]!);
    }
  }
  const overlays = joint ? known.joint : known.single;
  return new Map(embedded.map(([picture, embedding]) => [picture, overlays.get(embedding)!]));
}

function colours(embeddings: Embedding[]): Overlay[] {
  if (embeddings.length === 0) return [];
  return pca(embeddings.map(({ tokens, dim, rows, columns }) => ({ data: tokens, shape: [rows * columns, dim] }))).map((rgb, i) => {
    const { rows, columns } = embeddings[i]!;
    const image = new ImageData(columns, rows);
    for (let patch = 0; patch < rows * columns; patch++) {
      image.data.set(rgb.subarray(3 * patch, 3 * patch + 3), 4 * patch);
      image.data[4 * patch + 3] = 255;
    }
    return image;
  });
}

export interface SimilarityMaps {
  overlays: Map<Picture, Overlay>;
  /** The similarities at the two ends of the colour scale, common to all pictures. */
  low: number;
  high: number;
}

/** How similar every patch of every picture is to the chosen patch of the selected one. */
export function similarityMaps(state: State): SimilarityMaps | undefined {
  const query = state.selected?.embedding;
  if (!query) return undefined;
  const { row, column } = probeCell(state, query);
  const probe = token(query, row * query.columns + column);

  let [low, high] = [Infinity, -Infinity];
  const maps = withEmbedding(state.pictures).map(([picture, embedding]) => {
    const values = Float32Array.from({ length: embedding.rows * embedding.columns }, (_, patch) => cosineSimilarity(probe, token(embedding, patch)));
    for (const value of values) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    return { picture, embedding, values };
  });

  const overlays = new Map<Picture, Overlay>();
  for (const { picture, embedding, values } of maps) {
    const image = new ImageData(embedding.columns, embedding.rows);
    values.forEach((value, patch) => writeInferno((value - low) / (high - low || 1), image.data, 4 * patch));
    overlays.set(picture, image);
  }
  return { overlays, low, high };
}

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
