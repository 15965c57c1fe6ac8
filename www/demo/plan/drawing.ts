// The room and the latent map, and the bundle of candidates in both.

import { twoRooms, type Place } from "webjepa";
import { EXTENT, imageOf } from "../shared/room";
import type { LatentMap, View } from "./latent";

/** Predictions of candidates, from where they start on: as places, and on the map. */
export interface Bundle {
  places: Place[][];
  points: Place[][];
  /** Of how many, from the first on, the costs are lowest. */
  cheap: number;
}

const picture = twoRooms({ size: EXTENT });

function lines(context: CanvasRenderingContext2D, paths: readonly Place[][], cheap: number, to: (place: Place) => Place): void {
  const draw = (path: readonly Place[], colour: string, width: number) => {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    path.forEach((place, i) => context[i === 0 ? "moveTo" : "lineTo"](...to(place)));
    context.stroke();
  };
  // The cheapest last, on top.
  paths.slice(cheap).forEach((path) => draw(path, "#7a8a9455", 1));
  paths.slice(0, cheap).forEach((path) => draw(path, "#c75b00bb", 1.75));
}

/** The room with the dot at a place, and what is imagined. */
export function drawRoom(canvas: HTMLCanvasElement, { at, goal, walked, bundle }: { at: Place; goal: Place; walked: readonly Place[]; bundle?: Bundle | undefined }): void {
  const image = imageOf(picture.place(at, goal).observation);
  const small = new OffscreenCanvas(image.width, image.height);
  small.getContext("2d")!.putImageData(image, 0, 0);
  const context = canvas.getContext("2d")!;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  const to = (place: Place): Place => [(place[0] * canvas.width) / EXTENT, (place[1] * canvas.height) / EXTENT];
  if (bundle) lines(context, bundle.places, bundle.cheap, to);
  context.strokeStyle = "#0b57d0";
  context.lineWidth = 4;
  context.beginPath();
  walked.forEach((place, i) => context[i === 0 ? "moveTo" : "lineTo"](...to(place)));
  context.stroke();
}

/** The map: every place, the embedding of the goal, and predictions. */
export function drawMap(canvas: HTMLCanvasElement, map: LatentMap, aim: Float32Array, { view = map.whole, bundle }: { view?: View; bundle?: Bundle } = {}): void {
  const context = canvas.getContext("2d")!;
  const points = view.places;
  const [goal] = view.project(aim) as [Place];
  const all = [...points, goal];
  const range = ([0, 1] as const).map((axis) => {
    const values = all.map((point) => point[axis]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = 0.08 * (high - low || 1);
    return [low - margin, high + margin] as const;
  });
  const to = (point: Place): Place => {
    const share = (axis: 0 | 1) => (point[axis] - range[axis]![0]) / (range[axis]![1] - range[axis]![0]);
    return [share(0) * canvas.width, share(1) * canvas.height];
  };
  const disc = (point: Place, radius: number, colour: string) => {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(...to(point), radius, 0, 2 * Math.PI);
    context.fill();
  };
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  points.forEach((point, i) => {
    const [x, y] = map.places[i]!;
    disc(point, 5, `hsl(${x < EXTENT / 2 ? 160 : 275} 55% ${25 + (50 * y) / EXTENT}%)`);
  });
  if (bundle) lines(context, bundle.points, bundle.cheap, to);
  disc(goal, 9, "#fff");
  disc(goal, 7, "#14642b");
  if (bundle) {
    const [start] = bundle.points[0]!;
    disc(start!, 9, "#fff");
    disc(start!, 7, "#b3261e");
  }
}
