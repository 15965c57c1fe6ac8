// Where embeddings are: among those of places, which are known.

import { pca, type Pca, type Place, type WorldModel } from "webjepa";
import { EXTENT, freeOf, picturesAt, squareDistance } from "../shared/room";

const SPACING = 12;
/** Places that say where an embedding is. */
const NEIGHBOURS = 4;

function grid(): Place[] {
  const along = Array.from({ length: Math.floor(EXTENT / SPACING) }, (_, i) => (i + 0.5) * SPACING);
  return freeOf(along.flatMap((y) => along.map((x): Place => [x, y])));
}

/** Two axes of the space of embeddings, and where the places are along them. */
export class View {
  readonly places: readonly Place[];

  constructor(private readonly components: Pca, embeddings: Float32Array) {
    this.places = this.project(embeddings);
  }

  /** `[x, y]` of each embedding. */
  project(data: Float32Array): Place[] {
    const width = this.components.mean.length;
    const { data: points } = this.components.project({ data, shape: [data.length / width, width] });
    return Array.from({ length: data.length / width }, (_, i): Place => [points[2 * i]!, points[2 * i + 1]!]);
  }
}

/** The map of a model. */
export class LatentMap {
  static async of(world: WorldModel): Promise<LatentMap> {
    const places = grid();
    return new LatentMap(places, await world.encode(picturesAt(places)));
  }

  /** Along the principal components of all places. */
  readonly whole: View;

  private constructor(readonly places: readonly Place[], private readonly embeddings: { data: Float32Array; shape: number[] }) {
    this.whole = new View(pca(embeddings, { components: 2 }), embeddings.data);
  }

  /** Along the principal components of predictions. */
  along(data: Float32Array): View {
    const width = this.embeddings.shape[1]!;
    return new View(pca({ data, shape: [data.length / width, width] }, { components: 2 }), this.embeddings.data);
  }

  /** Between the places whose embeddings are nearest. */
  placeOf(embedding: Float32Array): Place {
    const { data, shape } = this.embeddings;
    const width = shape[1]!;
    const apart = this.places.map((place, i) => ({ place, square: squareDistance(embedding, data.subarray(i * width, (i + 1) * width)) }));
    const nearest = apart.sort((a, b) => a.square - b.square).slice(0, NEIGHBOURS).map(({ place, square }) => ({ place, weight: 1 / (square + 1e-6) }));
    const total = nearest.reduce((sum, { weight }) => sum + weight, 0);
    const mean = (axis: 0 | 1) => nearest.reduce((sum, { place, weight }) => sum + weight * place[axis], 0) / total;
    return [mean(0), mean(1)];
  }
}
