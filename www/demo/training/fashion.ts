import labels from "../data/fashion-mnist.json";
import sprite from "../data/fashion-mnist.png";
import { balanced, HELD_OUT_PER_CLASS, SAMPLES, type PictureSet } from "./picture-sets";

/** A part of Fashion-MNIST: training pictures to train on, test pictures held out. */
export async function fashionPictures(): Promise<PictureSet> {
  const { side, columns, classes } = labels;
  const sheet = await createImageBitmap(await (await fetch(sprite)).blob());
  const cut = (number: number) => {
    const canvas = new OffscreenCanvas(side, side);
    canvas.getContext("2d")!.drawImage(sheet, -(number % columns) * side, -Math.floor(number / columns) * side);
    return canvas;
  };
  const [train, test] = [labels.train, labels.test].map((digits) => [...digits].map(Number)) as [number[], number[]];
  const held = balanced(test, classes.length, HELD_OUT_PER_CLASS);
  const pictures = held.map((i) => cut(train.length + i));
  return {
    name: "Fashion-MNIST",
    length: train.length,
    get: cut,
    labelled: { pictures, labels: held.map((i) => test[i]!), classes },
    samples: pictures.slice(0, SAMPLES),
  };
}
