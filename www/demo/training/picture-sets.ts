import type { ImageInput } from "webjepa";

/** A picture that can be drawn, embedded and trained on alike. */
export type Drawable = ImageBitmap | OffscreenCanvas;

export interface Labelled {
  pictures: Drawable[];
  labels: number[];
  classes: string[];
}

/** Pictures to train on. */
export interface PictureSet {
  name: string;
  length: number;
  get(index: number): ImageInput | Promise<ImageInput>;
  /** Pictures that are not trained on, for the k-NN accuracy; absent where classes are unknown. */
  labelled?: Labelled | undefined;
  /** A few fixed pictures to draw masks and feature maps on. */
  samples: Drawable[];
}

/** Pictures of each class that are held out, at most, and how many of those are drawn. */
export const HELD_OUT_PER_CLASS = 12;
export const SAMPLES = 6;

/** The first few of each class, class by class in turn. */
export function balanced(labels: readonly number[], classes: number, each: number): number[] {
  const ofClass = Array.from({ length: classes }, (_, label) => [...labels.keys()].filter((i) => labels[i] === label).slice(0, each));
  return Array.from({ length: each }, (_, turn) => ofClass.flatMap((numbers) => numbers[turn] ?? [])).flat();
}
