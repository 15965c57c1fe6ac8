// Rollouts a second of the world model of the demo, 300 sequences of 5 actions, in Node; PyTorch, where python3 has it, beside it.
//
// Both backends in one process, in turns, on one model and the same actions; WebGPU on lavapipe, so only for the comparison. What a planner
// does besides is left out, and reading 300 × 5 embeddings back is in the time.

import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { answering, inProcess } from "./process.mjs";
import { maxAbsDiff } from "./measure.js";
import { hasPyTorch } from "./native.mjs";

export const [SAMPLES, HORIZON] = [300, 5];

/** The same shapes in PyTorch on as many threads, random weights; nothing where there is no PyTorch. */
function torch(rounds) {
  if (!hasPyTorch()) return [];
  const script = fileURLToPath(new URL("rollouts.py", import.meta.url));
  const times = JSON.parse(execFileSync("python3", [script, SAMPLES, HORIZON, rounds].map(String), { encoding: "utf8" }));
  return [{ side: "PyTorch, CPU, one thread", times }];
}

async function measure({ rounds }) {
  await import("./dawn.mjs");
  const { WorldModel } = await import("../../pkg/dist/index.js");
  const folder = fileURLToPath(new URL("../demo/models/two-rooms", import.meta.url));
  const picture = (seed) => ({ data: Uint8Array.from({ length: 56 * 56 * 3 }, (_, i) => Math.imul(i + seed, 2654435761) >>> 24), width: 56, height: 56, channels: 3 });
  const numbers = (count, seed) => Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.7 + seed));
  const sides = [];
  for (const backend of ["cpu", "webgpu"]) {
    const world = await WorldModel.load(folder, { backend, worker: false });
    if (world.backend !== backend) throw new Error(`there is no ${backend} here`);
    sides.push({ backend, world, from: (await world.encode(picture(1))).data, times: [] });
  }
  const actions = Array.from({ length: SAMPLES }, (_, i) => Array.from({ length: HORIZON }, (_, step) => numbers(sides[0].world.actionSize, i * HORIZON + step)));
  // The first round warms up.
  for (let round = 0; round <= rounds; round++) {
    for (const side of sides) {
      const start = performance.now();
      side.last = (await side.world.rollout(side.from, actions)).data;
      if (round > 0) side.times.push(performance.now() - start);
    }
  }
  const apart = maxAbsDiff(sides[0].last, sides[1].last);
  const rows = sides.map(({ backend, times }) => ({ side: `webjepa, ${backend}`, times, apart }));
  return [...rows, ...torch(rounds)];
}

// Test runners are child processes, too, and import this.
if (process.send && process.argv[1] === fileURLToPath(import.meta.url)) answering(measure);

/** The sides, by rising times, in ms, and how far the embeddings of the last round are apart. */
export const rollouts = (rounds) => inProcess(import.meta.url, { rounds });
