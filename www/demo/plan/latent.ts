// Where embeddings are: among those of places, which are known.

import { pca, twoRooms, type Pca, type Place, type WorldModel } from "webjepa";
import { SIDE } from "./agents";

/** Of the room, in its own units. */
export const EXTENT = 224;
const SPACING = 12;
/** Places that say where an embedding is. */
const NEIGHBOURS = 4;
/** Somewhere, for rooms of which only the start is looked at. */
const ANYWHERE: Place = [200, 200];

/** What is seen with the dot at places. */
export function picturesAt(places: readonly Place[]) {
  const room = twoRooms({ size: SIDE });
  return places.map((place) => room.place(place, ANYWHERE).observation);
}

/** Of two embeddings. */
export const squareDistance = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);

function freePlaces(): Place[] {
  const room = twoRooms({ size: SIDE });
  const along = Array.from({ length: Math.floor(EXTENT / SPACING) }, (_, i) => (i + 0.5) * SPACING);
  return along.flatMap((y) => along.map((x): Place => [x, y])).filter((place) => {
    try {
      room.place(place, ANYWHERE);
      return true;
    } catch {
      return false;
    }
  });
}

/** The map of a model. */
export class LatentMap {
  static async of(world: WorldModel): Promise<LatentMap> {
    const places = freePlaces();
    return new LatentMap(places, await world.encode(picturesAt(places)));
  }

  readonly components: Pca;

  private constructor(readonly places: readonly Place[], private readonly embeddings: { data: Float32Array; shape: number[] }) {
    this.components = pca(embeddings, { components: 2 });
  }

  /** `[x, y]` of each embedding on the map. */
  project(data: Float32Array): Float32Array {
    const width = this.embeddings.shape[1]!;
    return this.components.project({ data, shape: [data.length / width, width] }).data;
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
