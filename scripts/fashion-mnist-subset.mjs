// Packs the training page's pictures of clothes: node scripts/fashion-mnist-subset.mjs [FOLDER]
//
// FOLDER holds Fashion-MNIST's four files, as Debian's package dataset-fashion-mnist installs them. The first 2,000 pictures for
// training and the first 500 for testing become one PNG of 50 pictures a row, in www/demo/data.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { PNG } from "pngjs";
import { main, root, say, stop } from "./lib.mjs";

const FOLDER = "/usr/share/datasets/fashion-mnist";
const PARTS = [["train", 2000], ["t10k", 500]];
const CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
const SIDE = 28;
const COLUMNS = 50;

await main(import.meta, ([folder = FOLDER]) => {
  const pictures = [];
  const labels = {};
  for (const [part, count] of PARTS) {
    const samples = idx(join(folder, `${part}-images-idx3-ubyte.gz`), 3);
    for (let i = 0; i < count; i++) pictures.push(samples.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE));
    labels[part] = [...idx(join(folder, `${part}-labels-idx1-ubyte.gz`), 1).subarray(0, count)].join("");
  }
  const grey = { colorType: 0, inputColorType: 0, inputHasAlpha: false };
  const sprite = new PNG({ width: COLUMNS * SIDE, height: Math.ceil(pictures.length / COLUMNS) * SIDE, ...grey });
  sprite.data = Buffer.alloc(sprite.width * sprite.height);
  pictures.forEach((picture, i) => {
    const start = Math.floor(i / COLUMNS) * SIDE * sprite.width + (i % COLUMNS) * SIDE;
    for (let y = 0; y < SIDE; y++) sprite.data.set(picture.subarray(y * SIDE, (y + 1) * SIDE), start + y * sprite.width);
  });
  const png = PNG.sync.write(sprite, { ...grey, deflateLevel: 9 });
  const data = join(root, "www", "demo", "data");
  writeFileSync(join(data, "fashion-mnist.png"), png);
  writeFileSync(join(data, "fashion-mnist.json"), `${JSON.stringify({ side: SIDE, columns: COLUMNS, classes: CLASSES, train: labels.train, test: labels.t10k }, null, 2)}\n`);
  say(`${pictures.length} pictures, ${(png.length / 1e6).toFixed(2)} MB`);
});

/** The bytes after the header of an IDX file, which has a big-endian length for each of its dimensions. */
function idx(path, dimensions) {
  let file;
  try {
    file = gunzipSync(readFileSync(path));
  } catch (error) {
    stop(`cannot read ${path} (${error.message}); on Debian: apt-get install dataset-fashion-mnist`);
  }
  const magic = file.readUInt32BE(0);
  if (magic !== 0x0800 + dimensions) stop(`${path} is no IDX file of bytes in ${dimensions} dimensions`);
  return file.subarray(4 + 4 * dimensions);
}
