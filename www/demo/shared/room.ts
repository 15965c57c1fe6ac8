// The two rooms, as models see them and as they are drawn.

import { twoRooms, type PixelData, type Place } from "webjepa";
import { SIDE } from "./agents";

/** Of the room, in its own units. */
export const EXTENT = 224;
/** Somewhere, for rooms of which only the start is looked at. */
const ANYWHERE: Place = [200, 200];

/** What is seen with the dot at places. */
export function picturesAt(places: readonly Place[]): PixelData[] {
  const room = twoRooms({ size: SIDE });
  return places.map((place) => room.place(place, ANYWHERE).observation);
}

/** Those of places at which the dot can be. */
export function freeOf(places: readonly Place[]): Place[] {
  const room = twoRooms({ size: SIDE });
  return places.filter((place) => {
    try {
      room.place(place, ANYWHERE);
      return true;
    } catch {
      return false;
    }
  });
}

/** RGB as a canvas takes it. */
export function imageOf({ data, width, height }: PixelData): ImageData {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([data[3 * i]!, data[3 * i + 1]!, data[3 * i + 2]!, 255], 4 * i);
  return image;
}

/** Of two embeddings. */
export const squareDistance = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0);
