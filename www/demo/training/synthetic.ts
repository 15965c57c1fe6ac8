import { HELD_OUT_PER_CLASS, SAMPLES, type PictureSet } from "./picture-sets";

const SIDE = 64;
const COUNT = 4000;
/** Far from the numbers of the pictures that are trained on. */
const HELD_OUT_FROM = 1_000_000;

type Context = OffscreenCanvasRenderingContext2D;

/** Each draws around the origin, within a radius of 1. */
const SHAPES: [name: string, draw: (context: Context) => void][] = [
  ["disc", (c) => fill(c, () => c.arc(0, 0, 0.9, 0, 7))],
  ["ring", (c) => stroke(c, 0.32, () => c.arc(0, 0, 0.75, 0, 7))],
  ["square", (c) => c.fillRect(-0.75, -0.75, 1.5, 1.5)],
  ["triangle", (c) => fill(c, () => polygon(c, 3, () => 1))],
  ["star", (c) => fill(c, () => polygon(c, 10, (i) => (i % 2 ? 0.42 : 1)))],
  ["cross", (c) => [[-1, -0.3, 2, 0.6], [-0.3, -1, 0.6, 2]].forEach(([x, y, w, h]) => c.fillRect(x!, y!, w!, h!))],
  ["stripes", (c) => [-0.9, -0.35, 0.2, 0.75].forEach((x) => c.fillRect(x, -0.9, 0.28, 1.8))],
  ["checks", (c) => Array.from({ length: 16 }, (_, i) => (i + (i >> 2)) % 2 && c.fillRect((i % 4) * 0.45 - 0.9, (i >> 2) * 0.45 - 0.9, 0.45, 0.45))],
];

/** Shapes of eight kinds in random colours, sizes, places and turns, over noise. The same number always gives the same picture. */
export function syntheticPictures(): PictureSet {
  const held = Array.from({ length: SHAPES.length * HELD_OUT_PER_CLASS }, (_, i) => draw(HELD_OUT_FROM + i));
  return {
    name: "Synthetic shapes",
    length: COUNT,
    get: draw,
    labelled: { pictures: held, labels: held.map((_, i) => i % SHAPES.length), classes: SHAPES.map(([name]) => name) },
    samples: held.slice(0, SAMPLES),
  };
}

function draw(number: number): OffscreenCanvas {
  const random = generator(number);
  const between = (low: number, high: number) => low + (high - low) * random();
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const context = canvas.getContext("2d")!;
  context.fillStyle = `hsl(${between(0, 360)} ${between(10, 60)}% ${between(20, 80)}%)`;
  context.fillRect(0, 0, SIDE, SIDE);
  const hue = between(0, 360);
  const dark = random() < 0.5;
  context.save();
  context.translate(between(20, 44), between(20, 44));
  context.rotate(between(-0.4, 0.4));
  const radius = between(13, 21);
  context.scale(radius, radius);
  context.fillStyle = context.strokeStyle = `hsl(${hue} ${between(50, 100)}% ${dark ? between(10, 35) : between(65, 90)}%)`;
  SHAPES[number % SHAPES.length]![1](context);
  context.restore();
  const picture = context.getImageData(0, 0, SIDE, SIDE);
  const strength = between(10, 40);
  for (let at = 0; at < picture.data.length; at++) if (at % 4 < 3) picture.data[at]! += (random() - 0.5) * strength;
  context.putImageData(picture, 0, 0);
  return canvas;
}

function fill(context: Context, path: () => void): void {
  context.beginPath();
  path();
  context.fill();
}

function stroke(context: Context, width: number, path: () => void): void {
  context.beginPath();
  path();
  context.lineWidth = width;
  context.stroke();
}

function polygon(context: Context, corners: number, radius: (corner: number) => number): void {
  for (let i = 0; i < corners; i++) {
    const angle = (i / corners) * 2 * Math.PI - Math.PI / 2;
    context.lineTo(radius(i) * Math.cos(angle), radius(i) * Math.sin(angle));
  }
  context.closePath();
}

/** Numbers from 0 to 1: a counter through the finaliser of MurmurHash3, as seeds that follow each other must not give pictures that do. */
function generator(seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b9);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32;
  };
}
