// The pictures of the guides, as doc-pictures.mjs opens them in a page: each export draws one.

import { cosineSimilarity, Jepa, pca, sampleMasks, Trainer } from "webjepa";
import { drawMasks, drawOverlay, drawScatter, featureMap, heatMap, predictionErrors, TARGET_COLOURS } from "webjepa/viz";

const MODEL = "/www/demo/models/clothing-vit";
const PHOTO = "/tests/fixtures/ijepa_ti16/image.png";
const SIDE = 300;

const bitmapOf = async (address) => createImageBitmap(await (await fetch(address)).blob());

/** A canvas in the page, with words under it. */
function figure(caption) {
  const canvas = document.createElement("canvas");
  const words = Object.assign(document.createElement("figcaption"), { textContent: caption });
  const element = document.createElement("figure");
  element.append(canvas, words);
  document.body.append(element);
  return canvas;
}

export async function features() {
  const jepa = await Jepa.load(MODEL);
  const picture = await bitmapOf(PHOTO);
  const tokens = await jepa.embed(picture, { pool: "none", imageSize: 288 });
  const [, rows, columns] = tokens.grid;
  const width = tokens.shape[1];
  const token = (i) => tokens.data.subarray(i * width, (i + 1) * width);
  const chosen = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const similarities = Array.from({ length: rows * columns }, (_, i) => cosineSimilarity(token(chosen), token(i)));
  drawOverlay(figure("photo"), picture, undefined, { side: SIDE });
  drawOverlay(figure("feature map"), picture, featureMap(pca(tokens)), { side: SIDE, opacity: 0.85, smooth: true });
  drawOverlay(figure("similarity to the patch in the middle"), picture, heatMap(similarities, columns), { side: SIDE, opacity: 0.85 });
}

export async function masks() {
  document.body.style.gridTemplateRows = "auto auto";
  const picture = await bitmapOf(PHOTO);
  for (const strategy of ["ijepa-multiblock", "vjepa-multiblock3d", "tube", "random"]) {
    for (const seed of [0, 1]) {
      const { context, targets } = sampleMasks([1, 14, 14], { strategy, seed });
      drawMasks(figure(`${strategy}, seed ${seed}`), picture, { rows: 14, columns: 14, context: context[0], targets: targets.map(([block]) => block) }, 210);
    }
  }
}

export async function prediction() {
  const jepa = await Jepa.load(MODEL);
  const picture = await bitmapOf(PHOTO);
  const [, rows, columns] = jepa.grid;
  const { context, targets } = sampleMasks(jepa.grid, { strategy: "ijepa-multiblock", seed: 5 });
  const blocks = targets.map(([block]) => block);
  const { error } = await jepa.predict(picture, { context: context[0], targets: blocks });
  const { values, mean } = predictionErrors(error, blocks, rows * columns);
  drawOverlay(figure("photo"), picture, undefined, { side: SIDE });
  drawMasks(figure("masks"), picture, { rows, columns, context: context[0], targets: blocks }, SIDE);
  drawOverlay(figure(`error, mean ${mean.toFixed(3)}`), picture, heatMap(values, columns), { side: SIDE, opacity: 0.85 });
}

/** Pictures of the demo's sheet, `each` of every one of the first classes. */
async function clothes(classes, each) {
  const { side, columns, train } = await (await fetch("/www/demo/data/fashion-mnist.json")).json();
  const sheet = await bitmapOf("/www/demo/data/fashion-mnist.png");
  const seen = new Map();
  const picked = [];
  for (const [i, label] of [...train].map(Number).entries()) {
    const count = seen.get(label) ?? 0;
    if (label >= classes || count === each) continue;
    seen.set(label, count + 1);
    picked.push({ label, picture: await createImageBitmap(sheet, (i % columns) * side, Math.floor(i / columns) * side, side, side) });
  }
  return picked;
}

const embeddingsOf = async (jepa, list) => jepa.embed(list.map(({ picture }) => picture));

export async function scatter() {
  const list = await clothes(6, 10);
  const jepa = await Jepa.load(MODEL);
  const plane = pca(await embeddingsOf(jepa, list), { components: 2 });
  drawScatter(figure(""), plane, { groups: list.map(({ label }) => label), pictures: list.map(({ picture }) => picture), side: 640, size: 36 });
}

const TINY = { imageSize: 28, patchSize: 4, hiddenSize: 48, layers: 2, heads: 3, predictor: { hiddenSize: 24, layers: 2 } };
const RUNS = [
  ["before training", { objective: "lejepa", schedule: { steps: 1, lr: 1e-12, startLr: 1e-12, finalLr: 1e-12 } }],
  ["LeJEPA", { objective: { kind: "lejepa", lambda: 0.16, views: 2 }, schedule: { steps: 150, lr: 2e-3, weightDecay: 0.05, finalWeightDecay: 0.05 } }],
  [
    "no stop-gradient",
    { objective: { kind: "ijepa", stopGradient: false }, masks: { strategy: "random", ratio: [0.5, 0.5] }, schedule: { steps: 150, lr: 3e-3, ema: 0, finalEma: 0 } },
  ],
];

export async function collapse() {
  const list = await clothes(6, 10);
  const groups = list.map(({ label }) => label);
  const pictures = (await clothes(10, 60)).map(({ picture }) => picture);
  const results = [];
  for (const [name, options] of RUNS) {
    const trainer = await Trainer.create({ model: TINY, batchSize: 32, seed: 0, ...options });
    let last;
    for await (last of trainer.run(pictures)) if (last.step % 50 === 0) console.log(name, JSON.stringify(last));
    const { data, shape } = pca(await embeddingsOf(await trainer.model(), list), { components: 2 });
    results.push({ name, last, data, count: shape[0] });
    await trainer.dispose();
  }
  // Two points far outside give all three one scale.
  const span = Math.max(...results.flatMap(({ data }) => [...data].map(Math.abs)));
  for (const { name, last, data, count } of results) {
    const points = { data: Float32Array.of(...data, -span, -span, span, span), shape: [count + 2, 2] };
    const monitors = `std ${last.std.toPrecision(2)}, rank ${last.effectiveRank.toFixed(1)}, cosine ${last.cosine.toFixed(4)}`;
    drawScatter(figure(`${name}: ${monitors}`), points, { groups: [...groups, 6, 6], colours: [...TARGET_COLOURS, "transparent"], side: 430 });
  }
}
