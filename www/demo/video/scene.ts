import labels from "../data/fashion-mnist.json";
import sprite from "../data/fashion-mnist.png";

/** Frames between two happenings. */
const QUIET = 24;
/** Pixels of a frame. */
const SPEED = 1.6;

export type Happening = "cut" | "jump" | "stop";
const HAPPENINGS: readonly Happening[] = ["cut", "jump", "stop"];

export interface SceneFrame {
  canvas: OffscreenCanvas;
  /** What happened in this frame that does not happen in what the model has seen. */
  happening?: Happening;
}

/** Clothes that move across an empty picture and turn at its borders; now and then one becomes another, jumps, or stands still. */
export async function* scene(side: number, signal: AbortSignal): AsyncGenerator<SceneFrame> {
  const sheet = await createImageBitmap(await (await fetch(sprite)).blob());
  const room = side - labels.side;
  let picture = 3;
  let place = { x: 0.2 * room, y: 0.3 * room };
  let heading = 0.6;
  let still = 0;
  for (let frame = 1; !signal.aborted; frame++) {
    let happening: Happening | undefined;
    if (frame % QUIET === 0) {
      happening = HAPPENINGS[(frame / QUIET - 1) % HAPPENINGS.length];
      if (happening === "cut") picture = (picture * 7 + 11) % labels.train.length;
      if (happening === "jump") place = { x: (place.x + room / 2) % room, y: (place.y + room / 2) % room };
      if (happening === "stop") still = QUIET / 4;
    }
    if (still > 0) still--;
    else {
      const next = { x: place.x + SPEED * Math.cos(heading), y: place.y + SPEED * Math.sin(heading) };
      if (next.x < 0 || next.x > room) heading = Math.PI - heading;
      if (next.y < 0 || next.y > room) heading = -heading;
      place = { x: Math.min(room, Math.max(0, next.x)), y: Math.min(room, Math.max(0, next.y)) };
    }
    const canvas = new OffscreenCanvas(side, side);
    const context = canvas.getContext("2d")!;
    context.fillStyle = "black";
    context.fillRect(0, 0, side, side);
    const { side: size, columns } = labels;
    context.drawImage(sheet, (picture % columns) * size, Math.floor(picture / columns) * size, size, size, Math.round(place.x), Math.round(place.y), size, size);
    yield happening === undefined ? { canvas } : { canvas, happening };
  }
}
