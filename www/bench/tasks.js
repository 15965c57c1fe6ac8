// What the runner has done inside a host, a page or a Node process. Requests and results are plain JSON.
import { ceilings } from "./ceilings.js";
import { MODELS } from "./models.mjs";
import { distances, maxAbsDiff, pictures, race, timed, warmUp } from "./measure.js";
import { neighboursTask } from "./neighbours.mjs";
import { trainingTask } from "./training.mjs";

/** Libraries whose arithmetic is another's: that they agree with it proves nothing. */
const ENGINES = { transformers: "onnxruntime" };

async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    return { failed: String(error?.message ?? error) };
  }
}

/** `libraries`: where each library's module is; `origin`: the server's; `say`: takes a line of progress; `longTasks`: durations so far. */
export function tasks({ libraries, origin, say, longTasks = [] }) {
  const open = async (contestant, { model, batch, device, threads = 1, options }) => {
    const { open } = await import(`./contestants/${contestant}.js`);
    return open({ libraries, model: MODELS[model], batch, device, threads, base: `${origin}/models/${model}`, ...options });
  };

  const judge = (result, diff, tolerance) => {
    Object.assign(result, { diff, agrees: diff <= tolerance });
    say(`${result.contestant} (${result.setting}): max |difference| ${diff.toExponential(1)}${result.agrees ? "" : ": DISAGREES, not timed"}`);
  };

  /** Opens every entrant, compares the contestants' outputs with each other, then races the entrants that are right; `start` gives an entrant's `{ setting, run }`. */
  const compete = async (label, entrants, start, tolerance, limits) => {
    const results = [];
    const sides = [];
    for (const { contestant, options } of entrants) {
      const result = await attempt(async () => {
        const side = await start(contestant, options);
        const { values, ms } = await warmUp(() => side.run(), limits.warmUpMs);
        sides.push({ side, index: results.length, outputs: values });
        return { setting: side.setting, warmMs: ms };
      });
      say(`${label}: ${contestant} ${result.failed ? `failed: ${result.failed}` : `(${result.setting}) ${result.warmMs.toFixed(0)} ms`}`);
      results.push({ contestant, options, ...result });
    }

    const engine = ({ contestant }) => ENGINES[contestant] ?? contestant;
    const verdicts = distances(sides.map(({ index, outputs }) => ({ contestant: engine(results[index]), outputs })));
    sides.forEach(({ index }, i) => judge(results[index], verdicts[i], tolerance));
    const racing = sides.filter(({ index }) => results[index].agrees);
    const diffs = racing.map(() => 0);
    const times = await race(racing.map(({ side }) => () => side.run()), limits, (i, output) => {
      diffs[i] = Math.max(diffs[i], maxAbsDiff(output, racing[i].outputs[0]));
    });
    racing.forEach(({ index }, i) => {
      if (times[i].failed) Object.assign(results[index], { failed: times[i].failed, agrees: false });
      else if (diffs[i] <= tolerance) results[index].time = times[i];
      else Object.assign(results[index], { diff: diffs[i], agrees: false });
    });
    return results;
  };

  return {
    async environment() {
      const adapter = await navigator.gpu?.requestAdapter();
      const { vendor, architecture, description } = adapter?.info ?? {};
      return {
        adapter: adapter ? [vendor, architecture, description].filter(Boolean).join(" ") : "none",
        features: adapter ? [...adapter.features].filter((name) => ["shader-f16", "subgroups", "timestamp-query"].includes(name)) : [],
      };
    },

    /** Embeddings of all patches. */
    async encoder({ model, batch, device, threads, entrants, tolerance, limits }) {
      const input = pictures(MODELS[model], batch);
      const start = async (contestant, options) => {
        const { setting, run } = await open(contestant, { model, batch, device, threads, options });
        return { setting, run: () => run(input) };
      };
      return compete(`${model} batch ${batch}`, entrants, start, tolerance, limits);
    },

    /** Shares of the vote of each query's nearest neighbours. */
    async neighbours({ model, batch, device, threads, entrants, tolerance, limits }) {
      const start = async (contestant, options) => {
        const { create } = await import(`./contestants/knn-${contestant}.js`);
        return create({ libraries, task: neighboursTask(model, batch), device, threads, ...options });
      };
      return compete(`${model}, ${batch} queries`, entrants, start, tolerance, limits);
    },

    /** Every entrant's first steps, compared by their losses; then the entrants that are right race, going on from there. */
    async training({ model, batch, device, threads, entrants, tolerance, limits }) {
      const results = [];
      const sides = [];
      for (const { contestant, options } of entrants) {
        const result = await attempt(async () => {
          const { create } = await import(`./contestants/train-${contestant}.js`);
          // Its own task, so that no contestant can lose or change another's inputs.
          const side = await create({ libraries, task: trainingTask(model, batch), device, threads, ...options });
          const losses = [];
          let warm;
          while (losses.length < limits.steps) {
            warm = await timed(() => side.step(losses.length));
            losses.push(warm.value);
          }
          sides.push({ side, index: results.length, losses });
          return { setting: side.setting, warmMs: warm.ms, losses };
        });
        say(`${model} batch ${batch}: ${contestant} ${result.failed ? `failed: ${result.failed}` : `(${result.setting}) ${result.warmMs.toFixed(0)} ms, loss ${result.losses[0].toFixed(4)} to ${result.losses.at(-1).toFixed(4)}`}`);
        results.push({ contestant, options, ...result });
      }

      const compare = (some) => distances(some.map(({ index, losses }) => ({ contestant: results[index].contestant, outputs: [losses] })));
      const verdicts = compare(sides);
      sides.forEach(({ index }, i) => judge(results[index], verdicts[i], tolerance));
      const racing = sides.filter(({ index }) => results[index].agrees);
      const times = await race(racing.map(({ side, losses }) => () => side.step(losses.length)), limits, (i, loss) => racing[i].losses.push(loss));
      const after = compare(racing);
      racing.forEach(({ index }, i) => {
        Object.assign(results[index], { diff: after[i], agrees: after[i] <= tolerance });
        if (times[i].failed) Object.assign(results[index], { failed: times[i].failed, agrees: false });
        else if (results[index].agrees) results[index].time = times[i];
      });
      return results;
    },

    /** webjepa by itself, and the device's ceilings right before and after it, of which the higher ones count. */
    async ceilings({ task, ...request }) {
      const before = await ceilings(request.device, origin);
      const [result] = await this[task]({ ...request, entrants: [{ contestant: "webjepa", options: {} }] });
      const after = await ceilings(request.device, origin);
      const higher = (name) => Math.max(before[name], after[name]);
      return { ...result, ceiling: { multiplyAdds: higher("multiplyAdds"), bytes: higher("bytes") } };
    },

    /** From navigation to the first embedding, and the longest task that this kept the page from answering. */
    async first(request) {
      const side = await open(request.contestant, request);
      const input = pictures(MODELS[request.model], request.batch);
      const loaded = performance.now();
      await side.run(input);
      const embedded = performance.now();
      await side.run(input);
      await new Promise((resolve) => setTimeout(resolve, 100)); // long tasks are reported late
      return { loadedMs: loaded, embeddedMs: embedded, longestTaskMs: Math.max(0, ...longTasks) };
    },

    /** WebGPU calls of one warm forward. */
    async work(request) {
      const { count } = await import("./counters.js");
      const calls = count();
      const side = await open(request.contestant, request);
      const input = pictures(MODELS[request.model], request.batch);
      await side.run(input);
      await side.run(input);
      const before = { ...calls };
      await side.run(input);
      return Object.fromEntries(Object.keys(calls).map((name) => [name, calls[name] - before[name]]));
    },

    /** WebGPU calls of one warm training step, and the most bytes of buffers that were alive at once until its end. */
    async stepWork({ contestant, model, batch, device, options }) {
      const { count, countBuffers } = await import("./counters.js");
      const calls = count();
      const buffers = countBuffers();
      const { create } = await import(`./contestants/train-${contestant}.js`);
      const side = await create({ libraries, task: trainingTask(model, batch), device, ...options });
      await side.step(0);
      await side.step(1);
      const before = { ...calls };
      await side.step(2);
      const one = Object.fromEntries(Object.keys(calls).map((name) => [name, calls[name] - before[name]]));
      return { ...one, peakBytes: buffers.peakBytes };
    },

    /** Size of the wasm memory when it is made and after loading. It never shrinks, so the second is the peak. */
    async memory(request) {
      const memories = new Map();
      for (const name of ["instantiate", "instantiateStreaming"]) {
        const original = WebAssembly[name];
        WebAssembly[name] = async (...args) => {
          const result = await original.apply(WebAssembly, args);
          for (const value of Object.values((result.instance ?? result).exports)) {
            if (value instanceof WebAssembly.Memory) memories.set(value, value.buffer.byteLength);
          }
          return result;
        };
      }
      const side = await open(request.contestant, request);
      const sum = (numbers) => [...numbers].reduce((a, b) => a + b, 0);
      const sizes = { startBytes: sum(memories.values()), peakBytes: sum([...memories.keys()].map((memory) => memory.buffer.byteLength)) };
      await side.close();
      return sizes;
    },
  };
}
