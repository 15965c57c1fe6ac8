// The pictures of the guides, as doc-pictures.mjs opens them in a page: each export draws one.

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { collectEpisodes, cosineSimilarity, Jepa, pca, runEpisode, sampleMasks, Trainer, twoRooms, uniformPolicy } from "webjepa";
import { drawMasks, drawOverlay, drawScatter, featureMap, heatMap, predictionErrors, TARGET_COLOURS } from "webjepa/viz";

import { REPEAT, SIDE as SEEN, trained } from "../www/demo/plan/agents.ts";
import { drawMap, drawRoom, imageOf } from "../www/demo/plan/drawing.ts";
import { EXTENT, picturesAt, squareDistance } from "../www/demo/plan/latent.ts";
import { bundleOf, DECISIONS, mapped, searchOf, walk } from "../www/demo/plan/search.ts";

const MODEL = "/www/demo/models/clothing-vit";
const PHOTO = "/tests/fixtures/ijepa_ti16/image.png";
const SIDE = 300;

const bitmapOf = async (address) => createImageBitmap(await (await fetch(address)).blob());

/** A canvas in the page, or what is given, with words under it. */
function figure(caption, drawn = document.createElement("canvas")) {
  const words = Object.assign(document.createElement("figcaption"), { textContent: caption });
  const element = document.createElement("figure");
  element.append(drawn, words);
  document.body.append(element);
  return drawn;
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

/** The page Plan draws on canvases of twice the size at which they are shown. */
const DRAWN = 448;
const TASK = { start: [45, 60], goal: [175, 140] };

function square(caption, side = DRAWN / 2) {
  const canvas = Object.assign(figure(caption), { width: DRAWN, height: DRAWN });
  Object.assign(canvas.style, { width: `${side}px`, height: `${side}px`, border: "1px solid #cfd6d9" });
  return canvas;
}

/** Pictures in rows of so many, instead of columns. */
function inRows(count) {
  Object.assign(document.body.style, { gridAutoFlow: "row", gridTemplateColumns: `repeat(${count}, auto)` });
}

/** The room, and the goal, which the model is shown in a picture of its own. */
function drawWay(canvas, shown) {
  drawRoom(canvas, shown);
  const context = canvas.getContext("2d");
  context.fillStyle = "#14642b";
  context.beginPath();
  context.arc(...shown.goal.map((value) => (value * DRAWN) / EXTENT), 8, 0, 2 * Math.PI);
  context.fill();
}

/** What a model sees, pixel by pixel. */
function seen(caption, picture, side) {
  const canvas = Object.assign(figure(caption), { width: picture.width, height: picture.height });
  Object.assign(canvas.style, { width: `${side}px`, height: `${side}px`, imageRendering: "pixelated" });
  canvas.getContext("2d").putImageData(imageOf(picture), 0, 0);
}

/** Random actions, as the model has learnt from, though not these. */
async function explored(steps, seed) {
  const [record] = await collectEpisodes(twoRooms({ size: SEEN, repeat: REPEAT, steps: steps * REPEAT }), uniformPolicy([-1, -1], [1, 1], { longest: 3 }), { steps, seed });
  return record;
}

export async function rooms() {
  const { frames } = await explored(20, 4);
  for (const at of [0, 4, 8, 12, 16, 20]) seen(at === 0 ? "at first" : `after ${at} actions`, frames[at], 168);
}

/** The embedding of what is seen with the dot at a place. */
const embeddingAt = async ({ world }, place) => (await world.encode(picturesAt([place])[0])).data;

export async function imagined() {
  document.body.style.gridTemplateRows = "auto auto";
  const agent = await mapped(await trained());
  const { start, goal } = TASK;
  const [from, aim] = [await embeddingAt(agent, start), await embeddingAt(agent, goal)];
  const rounds = [];
  await agent.world.plan(from, aim, { ...searchOf(agent), onIteration: (round) => rounds.push(round) });
  for (const number of [0, 1, 3, 9]) {
    const bundle = await bundleOf(agent, from, rounds[number]);
    drawWay(square(`round ${number + 1}: lowest cost ${Math.min(...rounds[number].costs).toFixed(0)}`), { at: start, goal, walked: [], bundle });
    drawMap(square("the same in the latent map"), agent.map, agent.map.project(aim), bundle);
  }
}

export async function plan() {
  inRows(3);
  const agent = await mapped(await trained());
  let round;
  let decisions = 0;
  const { walked, environment } = walk(twoRooms({ size: SEEN }), TASK, {
    async decision() {
      const at = walked.at(-1);
      const bundle = await bundleOf(agent, await embeddingAt(agent, at), round);
      drawWay(square(`decision ${++decisions}`), { at, goal: TASK.goal, walked, bundle });
    },
    async step() {},
  });
  const { terminated } = await runEpisode(agent.world, environment, await embeddingAt(agent, TASK.goal), {
    steps: DECISIONS,
    scale: agent.scale,
    plan: { ...searchOf(agent), onIteration: (latest) => (round = latest) },
  });
  if (!terminated) throw new Error(`the goal was not reached in ${decisions} decisions`);
  drawWay(square("at the goal"), { at: walked.at(-1), goal: TASK.goal, walked });
}

/** How far each frame is from what was predicted of it. */
async function surprises({ world, scale }, frames, actions) {
  const { data } = await world.encode(frames);
  const width = data.length / frames.length;
  const embedding = (i) => data.subarray(i * width, (i + 1) * width);
  return Promise.all(actions.map(async (action, i) => squareDistance(embedding(i + 1), (await world.rollout(embedding(i), [scale.scaled(action)])).data)));
}

export async function surprise() {
  const agent = await trained();
  const [actions, moment] = [24, 12];
  const record = await explored(actions, 4);
  const [x, y] = record.states[moment];
  const room = twoRooms({ size: SEEN, repeat: REPEAT, steps: actions * REPEAT });
  // After its twelfth action the dot is in the other room, and goes on from there.
  const frames = [...record.frames.slice(0, moment), room.place([EXTENT - x, y], TASK.goal).observation, ...record.actions.slice(moment).map((action) => room.step(action).observation)];
  inRows(3);
  seen("before action 12", frames[moment - 1], 200);
  seen("after it, as it happened", record.frames[moment], 200);
  seen("after it, in the other room", frames[moment], 200);
  const lines = [await surprises(agent, record.frames, record.actions), await surprises(agent, frames, record.actions)];
  console.log(lines.map((line) => line.map((value) => value.toPrecision(2)).join(" ")).join("\n"));
  const series = [{}, { label: "as it happened", stroke: "#0b57d0", width: 3 }, { label: "in the other room", stroke: "#c75b00", width: 1.75, dash: [6, 4] }];
  const axis = { font: "12px system-ui, sans-serif", grid: { stroke: "#e3e8ea", width: 1 } };
  const axes = [{ ...axis, incrs: [4], label: "action", labelFont: axis.font }, { ...axis, label: "surprise, logarithmic", labelFont: axis.font }];
  const chart = figure("", document.createElement("div"));
  chart.parentElement.style.gridColumn = "1 / -1";
  new uPlot({ width: 624, height: 300, legend: { live: false }, scales: { x: { time: false }, y: { distr: 3 } }, axes, series }, [record.actions.map((_, i) => i + 1), ...lines], chart);
}
