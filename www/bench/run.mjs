// npm run bench [-- NAME…] [--browser | --node] [--quick] [--without CONTESTANT]
//
// NAME selects benches by prefix: "encoder-cpu", "encoder-webgpu/vit-ti", "first-embedding", …; none means all.
// --browser and --node keep to what runs in that host.
// --document writes the tables of a selection into docs/benchmarks.md, too; otherwise only whole benches are written.
// --quick measures ViT-Ti at batch 1, and training at batch 4, with few rounds and leaves docs/benchmarks.md alone.
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildWasm } from "../../scripts/build-wasm.mjs";
import { LAVAPIPE } from "../../scripts/hosts.mjs";
import { main, root, say, seconds, stop } from "../../scripts/lib.mjs";
import { setup } from "../../scripts/setup.mjs";
import { encoding, training } from "./arithmetic.mjs";
import { environment } from "./environment.mjs";
import { drawn, inNode, inPage } from "./hosts.mjs";
import { COST, MODELS, shapes } from "./models.mjs";
import { summary } from "./measure.js";
import { hasPyTorch } from "./native.mjs";
import { table, updateDocument } from "./report.mjs";
import { rollouts } from "./rollouts.mjs";
import { serve } from "./server.mjs";
import { KEPT, trainingTask } from "./training.mjs";

/**
 * What contestants race in; `task` is its name in tasks.js. `settings` are tried for each contestant before a device's first case, on the case `trial`;
 * the quickest that agrees is kept; those of `node` are WebGPU's there, where lavapipe's subgroups are wide enough for onnxruntime-web's kernels and those without take it
 * minutes to compile. `quick` are the cases and limits of --quick, `whole` those of a full run.
 */
const KINDS = {
  encoder: {
    task: "encoder",
    // f32 against f32, as tests/fixtures/README.md §7 has it for real geometries.
    tolerance: { cpu: 5e-5, webgpu: 2e-4 },
    settings: {
      webjepa: { cpu: [{}], webgpu: [{}] },
      onnxruntime: {
        cpu: [{}, { form: "standard" }],
        webgpu: [{ subgroups: false }, { subgroups: false, capture: true }, {}, { capture: true }],
        node: [{}, { capture: true }],
      },
      transformers: {
        cpu: [{}, { form: "standard" }],
        webgpu: [{ subgroups: false }, { form: "standard", subgroups: false }, { form: "standard" }],
        node: [],
      },
      jax: { cpu: [{}], webgpu: [{}] },
      pytorch: { cpu: [{}] },
    },
    trial: { case: ["vit-ti", 1], limits: { warmUpMs: 5000, budgetMs: 5000, minRounds: 2, maxRounds: 9 } },
    quick: { cases: [["vit-ti", 1]], limits: { warmUpMs: 5000, budgetMs: 10_000, minRounds: 2, maxRounds: 9 } },
    whole: { cases: [["vit-ti", 1], ["vit-ti", 8], ["vit-s", 1], ["vit-s", 8]], limits: { warmUpMs: 5000, budgetMs: 20_000, minRounds: 3, maxRounds: 25 } },
  },
  clip: {
    task: "encoder",
    tolerance: { cpu: 5e-5, webgpu: 2e-4 },
    settings: {
      webjepa: { cpu: [{}], webgpu: [{}] },
      // On WebGPU one Conv over time, too, takes three times as long as one for each frame.
      onnxruntime: {
        cpu: [{}, { tubelets: "frames" }, { form: "standard", tubelets: "frames" }],
        webgpu: [
          { subgroups: false, tubelets: "frames" },
          { subgroups: false, tubelets: "frames", capture: true },
          { tubelets: "frames" },
          { tubelets: "frames", capture: true },
        ],
        node: [{ tubelets: "frames" }, { tubelets: "frames", capture: true }],
      },
      jax: { cpu: [{}], webgpu: [{}] },
      pytorch: { cpu: [{}] },
    },
    // At the whole length a single forward takes onnxruntime-web a minute and more on SwiftShader.
    trial: { case: ["clip-ti-2", 1], limits: { warmUpMs: 5000, budgetMs: 5000, minRounds: 2, maxRounds: 9 } },
    quick: { cases: [["clip-ti-2", 1]], limits: { warmUpMs: 5000, budgetMs: 10_000, minRounds: 2, maxRounds: 9 } },
    whole: { cases: [["clip-ti", 1]], limits: { warmUpMs: 5000, budgetMs: 20_000, minRounds: 3, maxRounds: 25 } },
  },
  training: {
    task: "training",
    // Of losses, over all steps.
    tolerance: { cpu: 1e-4, webgpu: 1e-4 },
    settings: {
      webjepa: { cpu: [{}], webgpu: [{}] },
      tfjs: { cpu: [{}], webgpu: [{}, { backend: "webgl" }] },
      jax: { cpu: [{}], webgpu: [{}] },
      burn: { cpu: [{}] },
      pytorch: { cpu: [{}] },
    },
    trial: { case: ["ijepa-64", 4], limits: { steps: 3, budgetMs: 5000, minRounds: 2, maxRounds: 9 } },
    quick: { cases: [["ijepa-64", 4]], limits: { steps: 8, budgetMs: 10_000, minRounds: 2, maxRounds: 9 } },
    whole: { cases: [["ijepa-64", 32]], limits: { steps: 8, budgetMs: 90_000, minRounds: 3, maxRounds: 25 } },
  },
  neighbours: {
    task: "neighbours",
    // Of shares of the vote.
    tolerance: { cpu: 1e-5 },
    settings: { webjepa: { cpu: [{}] }, tfjs: { cpu: [{}] } },
    quick: { cases: [["knn-10k", 100]], limits: { warmUpMs: 2000, budgetMs: 5000, minRounds: 2, maxRounds: 9 } },
    whole: { cases: [["knn-10k", 100]], limits: { warmUpMs: 5000, budgetMs: 20_000, minRounds: 3, maxRounds: 25 } },
  },
};

/** `also`: cases of a full run that the kind's other devices would take too long for. */
const RACES = {
  "encoder-webgpu": { kind: "encoder", device: "webgpu", threads: 1 },
  "encoder-cpu": { kind: "encoder", device: "cpu", threads: 1, also: [["vit-b", 1]] },
  "encoder-threads": { kind: "encoder", device: "cpu", threads: 2 },
  "encoder-node-webgpu": { kind: "encoder", device: "webgpu", threads: 1, host: "node" },
  "clip-webgpu": { kind: "clip", device: "webgpu", threads: 1 },
  "clip-cpu": { kind: "clip", device: "cpu", threads: 1 },
  "clip-node-webgpu": { kind: "clip", device: "webgpu", threads: 1, host: "node" },
  "train-webgpu": { kind: "training", device: "webgpu", threads: 1 },
  "train-cpu": { kind: "training", device: "cpu", threads: 1 },
  "train-threads": { kind: "training", device: "cpu", threads: 2 },
  "train-node-webgpu": { kind: "training", device: "webgpu", threads: 1, host: "node" },
  knn: { kind: "neighbours", device: "cpu", threads: 1 },
};
/** webjepa by itself against what the device can do at most; the cases of all races. */
const CEILINGS = {
  "ceilings-cpu": { device: "cpu" },
  "ceilings-webgpu": { device: "webgpu" },
  "ceilings-node-webgpu": { device: "webgpu", host: "node" },
};
/** Of webjepa by itself, where no other side's rounds take time. */
const ALONE = {
  encoder: { warmUpMs: 3000, budgetMs: 5000, minRounds: 2, maxRounds: 25 },
  training: { steps: 2, budgetMs: 10_000, minRounds: 2, maxRounds: 25 },
};
const BENCHES = [...Object.keys(RACES), ...Object.keys(CEILINGS), "cost", "kept", "first-embedding", "gpu-work", "train-gpu-work", "memory", "rollouts"];
/** Benches, besides races, that run in Node. */
const IN_NODE = ["rollouts"];

const MISSING = hasPyTorch() ? [] : ["pytorch"];
/** Contestants that are no page to visit. */
const NATIVE = ["pytorch"];

const sum = (list) => list.reduce((a, b) => a + b, 0);
const bytes = ([, shape]) => 4 * shape.reduce((a, b) => a * b, 1);

class Runner {
  constructor({ server, names, quick, without }) {
    Object.assign(this, { server, names, quick, without, chosen: new Map() });
  }

  contestants(kind, device, host = "browser") {
    const { settings } = KINDS[kind];
    return Object.keys(settings).filter((contestant) => this.options(kind, device, host, contestant).length > 0 && ![...this.without, ...MISSING].includes(contestant));
  }

  options(kind, device, host, contestant) {
    const settings = KINDS[kind].settings[contestant];
    return (host === "node" && settings.node) || (settings[device] ?? []);
  }

  wants(name) {
    return this.names.length === 0 || this.names.some((wanted) => name.startsWith(wanted) || wanted.startsWith(`${name}/`));
  }

  start({ kind, host, ...request }) {
    const whole = { ...request, tolerance: KINDS[kind].tolerance[request.device] };
    const { task } = KINDS[kind];
    if (host === "node") return inNode(this.server, task, whole);
    // A page without shared memory is the only way to have jax-js run on one thread.
    return inPage(this.server, task, whole, request.device === "webgpu" || request.threads > 1);
  }

  /** Each contestant's best setting on this device, as entrants. */
  async entrants({ kind, device, threads, host = "browser" }) {
    const key = `${kind}, ${host}, ${device}, ${threads} thread(s)`;
    if (!this.chosen.has(key)) {
      const { trial } = KINDS[kind];
      const contestants = this.contestants(kind, device, host);
      const options = (contestant) => this.options(kind, device, host, contestant);
      let entrants = contestants.flatMap((contestant) => options(contestant).map((options) => ({ contestant, options })));
      if (this.quick) entrants = contestants.map((contestant) => ({ contestant, options: options(contestant)[0] }));
      else if (entrants.length > contestants.length) {
        say(`${key}: choosing settings`);
        const [model, batch] = trial.case;
        const results = await this.start({ kind, model, batch, device, threads, host, entrants, limits: trial.limits });
        const median = (result) => result.time?.median ?? Infinity;
        entrants = contestants.map((contestant) => {
          const [{ options }] = results.filter((result) => result.contestant === contestant).sort((a, b) => median(a) - median(b));
          return { contestant, options };
        });
      }
      this.chosen.set(key, entrants);
    }
    return this.chosen.get(key);
  }

  async race(name) {
    const { also = [], ...setup } = RACES[name];
    const { cases, limits } = KINDS[setup.kind][this.quick ? "quick" : "whole"];
    const rows = [];
    for (const [model, batch] of [...cases, ...(this.quick ? [] : also)].filter(([model, batch]) => this.wants(`${name}/${model}/b${batch}`))) {
      const entrants = await this.entrants(setup);
      // A host that dies takes its case with it, not the whole run.
      const results = await this.start({ model, batch, ...setup, entrants, limits }).catch(({ message }) => {
        say(`${name}/${model}/b${batch} failed: ${message}`);
        return entrants.map((entrant) => ({ ...entrant, failed: message }));
      });
      rows.push({ model, batch, results });
    }
    return rows;
  }

  async ceilings(name) {
    const { device, host } = CEILINGS[name];
    const rows = [];
    for (const { task, tolerance, [this.quick ? "quick" : "whole"]: { cases } } of Object.values(KINDS).filter(({ task }) => ALONE[task])) {
      for (const [model, batch] of cases.filter(([model, batch]) => this.wants(`${name}/${model}/b${batch}`))) {
        const request = { task, model, batch, device, threads: 1, tolerance: tolerance[device], limits: ALONE[task] };
        const needed = task === "training" ? training(trainingTask(model, batch)) : encoding(MODELS[model], batch);
        try {
          rows.push({ model, batch, ...needed, ...(await (host === "node" ? inNode(this.server, "ceilings", request) : inPage(this.server, "ceilings", request))) });
        } catch ({ message }) {
          say(`${name}/${model}/b${batch} failed: ${message}`);
        }
      }
    }
    return rows;
  }

  /** webjepa's encoder at sizes of which one changes at a time. */
  async cost() {
    const cases = [
      ...COST.tokens.map(([name, { tokens }]) => ({ by: "tokens", size: tokens, model: name, batch: 1 })),
      ...COST.batch.map((batch) => ({ by: "batch", size: batch, model: "vit-ti", batch })),
      ...COST.depth.map(([name, { layers }]) => ({ by: "depth", size: layers, model: name, batch: 1 })),
    ];
    const rows = [];
    for (const device of ["cpu", "webgpu"]) {
      for (const { by, size, model, batch } of this.quick ? cases.filter(({ model }) => model === "vit-ti") : cases) {
        if (!this.wants(`cost/${device}/${by}`)) continue;
        const request = { kind: "encoder", model, batch, device, threads: 1, entrants: [{ contestant: "webjepa", options: {} }], limits: ALONE.encoder };
        const [result] = await this.start(request);
        rows.push({ device, by, size, multiplyAdds: encoding(MODELS[model], batch).multiplyAdds, ...result });
      }
    }
    return rows;
  }

  /** webjepa's training step by the number of patches that the masks leave. */
  async kept() {
    const rows = [];
    const batch = this.quick ? 4 : 16;
    for (const device of ["cpu", "webgpu"]) {
      for (const kept of KEPT) {
        if (!this.wants(`kept/${device}`)) continue;
        const model = `kept-${kept}`;
        const request = { kind: "training", model, batch, device, threads: 1, entrants: [{ contestant: "webjepa", options: {} }], limits: ALONE.training };
        const [result] = await this.start(request);
        rows.push({ device, kept, batch, multiplyAdds: training(trainingTask(model, batch)).multiplyAdds, ...result });
      }
    }
    return rows;
  }

  /** A new browser each time, so nothing is cached; the first visit of all only warms the server. */
  async firstEmbedding() {
    const rows = [];
    for (const device of ["webgpu", "cpu"]) {
      for (const contestant of this.contestants("encoder", device).filter((contestant) => !NATIVE.includes(contestant))) {
        if (!this.wants(`first-embedding/${device}/${contestant}`)) continue;
        const { options } = (await this.entrants({ kind: "encoder", device, threads: 1 })).find((entrant) => entrant.contestant === contestant);
        const visits = [];
        for (let visit = 0; visit < (this.quick ? 2 : 6); visit++) {
          visits.push(await inPage(this.server, "first", { contestant, options, device, model: "vit-ti", batch: 1 }, device === "webgpu"));
        }
        visits.shift();
        const { code, weights } = this.server.traffic;
        const of = (field) => summary(visits.map((visit) => visit[field]));
        rows.push({ device, contestant, codeBytes: code, weightBytes: weights, loaded: of("loadedMs"), embedded: of("embeddedMs"), longestTask: of("longestTaskMs") });
        say(`first embedding, ${device}, ${contestant}: ${rows.at(-1).embedded.median.toFixed(0)} ms`);
      }
    }
    return rows;
  }

  async gpuWork() {
    const rows = [];
    const cases = this.quick ? [["vit-ti", 1]] : [["vit-ti", 1], ["vit-s", 1]];
    for (const [model, batch] of cases) {
      for (const { contestant, options } of await this.entrants({ kind: "encoder", device: "webgpu", threads: 1 })) {
        if (!this.wants(`gpu-work/${model}/${contestant}`)) continue;
        // The counters see this thread's calls only.
        const calls = await inPage(this.server, "work", { contestant, device: "webgpu", model, batch, options: { ...options, worker: false } });
        rows.push({ model, batch, contestant, ...calls });
        say(`WebGPU calls of a forward, ${model}, ${contestant}: ${JSON.stringify(calls)}`);
      }
    }
    return rows;
  }

  /** Of TensorFlow.js with its WebGPU backend, which is the one that can be counted. */
  async trainingWork() {
    const rows = [];
    for (const [model, batch] of KINDS.training.quick.cases) {
      for (const contestant of this.contestants("training", "webgpu")) {
        if (!this.wants(`train-gpu-work/${model}/${contestant}`)) continue;
        const options = contestant === "webjepa" ? { worker: false } : {};
        const calls = await inPage(this.server, "stepWork", { contestant, device: "webgpu", model, batch, options });
        rows.push({ model, batch, contestant, ...calls });
        say(`WebGPU calls of a training step, ${model}, ${contestant}: ${JSON.stringify(calls)}`);
      }
    }
    return rows;
  }

  async memory() {
    const tensors = shapes(MODELS["vit-b"]).map(bytes);
    const rows = [];
    for (const device of ["cpu", "webgpu"]) {
      if (!this.wants(`memory/${device}`) || this.without.includes("webjepa")) continue;
      const sizes = await inPage(this.server, "memory", { contestant: "webjepa", device, model: "vit-b", batch: 1, options: { worker: false } });
      rows.push({ device, model: "vit-b", ...sizes, weightBytes: sum(tensors), largestTensorBytes: Math.max(...tensors) });
      say(`wasm memory after loading ViT-B, ${device}: ${(sizes.peakBytes / 1e6).toFixed(1)} MB`);
    }
    return rows;
  }

  async rollouts() {
    const sides = await rollouts(this.quick ? 3 : 15);
    return sides.map(({ side, times, apart }) => ({ side, apart, time: summary(times) }));
  }

  measure(name) {
    if (RACES[name]) return this.race(name);
    if (CEILINGS[name]) return this.ceilings(name);
    return { cost: () => this.cost(), kept: () => this.kept(), "first-embedding": () => this.firstEmbedding(), "gpu-work": () => this.gpuWork(), "train-gpu-work": () => this.trainingWork(), memory: () => this.memory(), rollouts: () => this.rollouts() }[name]();
  }
}

await main(import.meta, async (args) => {
  const { values, positionals: names } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      browser: { type: "boolean", default: false },
      node: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      document: { type: "boolean", default: false },
      without: { type: "string", multiple: true, default: [] },
    },
  });
  const unknown = names.find((name) => !BENCHES.some((bench) => bench.startsWith(name) || name.startsWith(`${bench}/`)));
  if (unknown) stop(`there is no bench "${unknown}"; there are ${BENCHES.join(", ")}`);
  const { without } = values;
  if (!without.includes("webjepa") && !existsSync(join(root, "pkg/dist/index.js"))) stop("pkg/ is not built: npm run build");

  const start = performance.now();
  const server = await serve();
  const runner = new Runner({ server, names, quick: values.quick, without });
  const hostOf = (bench) => (IN_NODE.includes(bench) ? "node" : (({ ...RACES, ...CEILINGS })[bench]?.host ?? "browser"));
  const hosts = ["browser", "node"].filter((host) => values[host] || values.browser === values.node);
  const benches = BENCHES.filter((bench) => runner.wants(bench) && hosts.includes(hostOf(bench)));
  if (benches.some((name) => RACES[name] && runner.contestants(RACES[name].kind, RACES[name].device).includes("burn"))) buildWasm("bench-burn", setup());
  const report = { quick: values.quick, environments: {}, benches: {} };
  try {
    for (const name of benches) {
      const host = hostOf(name);
      if (host === "node" && !LAVAPIPE) {
        say(`${name}: left out, as lavapipe is not installed`);
        continue;
      }
      if (!report.environments[host]) {
        report.environments[host] = await environment(host, await (host === "node" ? inNode(server, "environment") : inPage(server, "environment")));
        console.log(report.environments[host].join("\n"));
      }
      const rows = (report.benches[name] = await runner.measure(name));
      report.settings = Object.fromEntries(runner.chosen);
      console.log(`\n${table(name, rows)}\n`);
      await mkdir(join(root, ".bench"), { recursive: true });
      await writeFile(join(root, ".bench/latest.json"), JSON.stringify(report, null, 2));
      const whole = values.document || names.length === 0 || names.some((wanted) => name.startsWith(wanted));
      if (whole && (!values.quick || values.document) && without.length === 0) {
        await updateDocument(join(root, "docs/benchmarks.md"), name, rows, report.environments[host]);
        if (name === "cost") await writeFile(join(root, "docs/images/cost.png"), await drawn(server, rows));
      }
    }
  } finally {
    await server.close();
  }
  say(`bench: ${seconds(start)}; .bench/latest.json has the numbers`);
  const lost = Object.values(report.benches).flat().flatMap((row) => row.results ?? []).filter(({ contestant, time }) => contestant === "webjepa" && !time);
  if (lost.length) stop("webjepa failed, or agreed with no rival, in some case: see above");
});
