// Results as Markdown.
import { readFile, writeFile } from "node:fs/promises";
import { HORIZON, SAMPLES } from "./rollouts.mjs";

const NAMES = { webjepa: "webjepa", onnxruntime: "onnxruntime-web", transformers: "transformers.js", jax: "jax-js", tfjs: "TensorFlow.js", burn: "burn-flex", pytorch: "PyTorch, native" };
const MODELS = { "vit-ti": "ViT-Ti/16", "vit-s": "ViT-S/16", "vit-b": "ViT-B/16", "clip-ti": "ViT-Ti/16, 16 frames", "clip-ti-2": "ViT-Ti/16, 2 frames", "ijepa-64": "I-JEPA, 64 × 64", "knn-10k": "10,000 embeddings of 192" };

const ms = (value) => (value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
const spread = ({ median, min, max }) => `${ms(median)} (${ms(min)} – ${ms(max)})`;
const mega = (count) => `${(count / 1e6).toFixed(2)} MB`;
const markdown = (head, rows) => [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const side = ({ failed, agrees, diff, time }) => (failed ? "failed" : !agrees ? `wrong by ${diff.toExponential(0)}` : spread(time));

function ratio(ours, theirs) {
  if (!ours?.time || !theirs?.time) return "–";
  const value = ours.time.median / theirs.time.median;
  return value <= 1 ? `${value.toFixed(2)} ×` : `**${value.toFixed(2)} ×, slower**`;
}

function races(rows) {
  const contestants = rows[0].results.map(({ contestant }) => contestant);
  const rivals = contestants.filter((contestant) => contestant !== "webjepa");
  return markdown(
    ["model", "batch", ...contestants.map((name) => NAMES[name]), ...(rivals.length < contestants.length ? rivals.map((name) => `webjepa ÷ ${NAMES[name]}`) : []), "rounds", "max \\|difference\\|"],
    rows.map(({ model, batch, results }) => {
      const of = (name) => results.find(({ contestant }) => contestant === name);
      return [
        MODELS[model],
        batch,
        ...results.map(side),
        ...(of("webjepa") ? rivals.map((name) => ratio(of("webjepa"), of(name))) : []),
        Math.max(0, ...results.map(({ time }) => time?.rounds ?? 0)),
        Math.max(0, ...results.filter(({ agrees }) => agrees).map(({ diff }) => diff)).toExponential(0),
      ];
    }),
  );
}

/** Every side's loss before the first step and before the last. */
function losses(rows) {
  const curve = ({ failed, losses }) => (failed ? "failed" : `${losses[0].toFixed(6)} → ${losses.at(-1).toFixed(6)}`);
  return markdown(
    ["model", "batch", ...rows[0].results.map(({ contestant }) => `loss, ${NAMES[contestant]}`), "steps"],
    rows.map(({ model, batch, results }) => [MODELS[model], batch, ...results.map(curve), Math.max(0, ...results.map(({ losses }) => losses?.length ?? 0))]),
  );
}

const training = (rows) => `${races(rows)}\n\n${losses(rows)}`;

/** The least time that the ceilings leave for a case, in ms: whichever is slower, its arithmetic or its bytes. */
const floor = ({ multiplyAdds, bytes, ceiling }) => 1e3 * Math.max(multiplyAdds / ceiling.multiplyAdds, bytes / ceiling.bytes);

const ceilings = (rows) =>
  markdown(
    ["model", "batch", "multiply-adds", "bytes", "multiply-adds a second at most", "bytes a second at most", "least time", "webjepa", "least ÷ fastest", "rounds"],
    rows.map((row) => [
      MODELS[row.model],
      row.batch,
      `${(row.multiplyAdds / 1e9).toFixed(2)} G`,
      mega(row.bytes),
      `${(row.ceiling.multiplyAdds / 1e9).toFixed(1)} G`,
      `${(row.ceiling.bytes / 1e9).toFixed(1)} GB`,
      ms(floor(row)),
      row.time ? spread(row.time) : "failed",
      row.time ? `${((100 * floor(row)) / row.time.min).toFixed(0)} %` : "–",
      row.time?.rounds ?? 0,
    ]),
  );

const TABLES = {
  "ceilings-cpu": ceilings,
  "ceilings-webgpu": ceilings,
  "ceilings-node-webgpu": ceilings,
  rollouts: (rows) =>
    markdown(
      [`${SAMPLES} × ${HORIZON}`, "time", "rollouts a second", "rounds", "max \\|difference\\|"],
      rows.map(({ side, time, apart }) => [side, spread(time), Math.round((1e3 * SAMPLES) / time.median).toLocaleString("en"), time.rounds, apart?.toExponential(0) ?? "–"]),
    ),
  "encoder-webgpu": races,
  "encoder-cpu": races,
  "encoder-threads": races,
  "encoder-node-webgpu": races,
  "clip-webgpu": races,
  "clip-cpu": races,
  "clip-node-webgpu": races,
  "train-webgpu": training,
  "train-cpu": training,
  "train-threads": training,
  "train-node-webgpu": training,
  knn: races,
  cost: (rows) =>
    `![Three charts of the time of a forward, on the CPU and on WebGPU: by tokens, by batch, and by depth](images/cost.png)\n\n${markdown(
      ["ViT-Ti/16, by", "", "multiply-adds", "CPU, one thread", "WebGPU"],
      rows
        .filter((row, i) => rows.findIndex(({ by, size }) => by === row.by && size === row.size) === i)
        .map(({ by, size, multiplyAdds }) => {
          const on = (device) => rows.find((row) => row.device === device && row.by === by && row.size === size);
          return [by, size, `${(multiplyAdds / 1e9).toFixed(2)} G`, ...["cpu", "webgpu"].map((device) => (on(device)?.time ? spread(on(device).time) : "–"))];
        }),
    )}`,
  kept: (rows) => {
    const all = Math.max(...rows.map(({ kept }) => kept));
    const share = (part, whole) => `${((100 * part) / whole).toFixed(0)} %`;
    const devices = [...new Set(rows.map(({ device }) => device))];
    const of = (device, kept) => rows.find((row) => row.device === device && row.kept === kept);
    const cells = (device, kept) => [of(device, kept), of(device, all)].every((row) => row?.time) ? [spread(of(device, kept).time), share(of(device, kept).time.median, of(device, all).time.median)] : ["failed", "–"];
    return markdown(
      ["patches kept", "multiply-adds", "", ...devices.flatMap((device) => [device, ""])],
      rows
        .filter(({ device }) => device === devices[0])
        .map(({ kept, multiplyAdds }) => [kept, `${(multiplyAdds / 1e9).toFixed(2)} G`, share(multiplyAdds, of(devices[0], all).multiplyAdds), ...devices.flatMap((device) => cells(device, kept))]),
    );
  },
  "first-embedding": (rows) =>
    markdown(
      ["device", "", "code, gzipped", "weights", "loaded after", "first embedding after", "longest main-thread task"],
      rows.map(({ device, contestant, codeBytes, weightBytes, loaded, embedded, longestTask }) => [
        device,
        NAMES[contestant],
        mega(codeBytes),
        mega(weightBytes),
        spread(loaded),
        spread(embedded),
        longestTask.max ? spread(longestTask) : "under 50 ms",
      ]),
    ),
  "gpu-work": (rows) =>
    markdown(
      ["model", "", "dispatches", "submits", "bytes uploaded", "pipelines made"],
      rows.map(({ model, contestant, dispatches, submits, bytesWritten, pipelines }) => [MODELS[model], NAMES[contestant], dispatches, submits, bytesWritten, pipelines]),
    ),
  "train-gpu-work": (rows) =>
    markdown(
      ["model", "batch", "", "dispatches", "submits", "bytes uploaded", "pipelines made", "buffers at most"],
      rows.map(({ model, batch, contestant, dispatches, submits, bytesWritten, pipelines, peakBytes }) => [
        MODELS[model], batch, NAMES[contestant], dispatches, submits, bytesWritten, pipelines, mega(peakBytes),
      ]),
    ),
  memory: (rows) =>
    markdown(
      ["model", "device", "wasm memory at start", "peak while loading", "weights that live in it", "these + largest tensor"],
      rows.map(({ model, device, startBytes, peakBytes, weightBytes, largestTensorBytes }) => {
        const living = device === "cpu" ? weightBytes : 0;
        return [MODELS[model], device, ...[startBytes, peakBytes, living, living + largestTensorBytes].map(mega)];
      }),
    ),
};

export const table = (name, rows) => (rows.length ? TABLES[name](rows) : "nothing measured");

/** The settings that won, as one line. */
const settings = (rows) => rows[0]?.results?.filter(({ setting }) => setting).map(({ contestant, setting }) => `${NAMES[contestant]}: ${setting}`).join("; ");

/** Replaces what is between `<!-- bench NAME -->` and `<!-- /bench -->`. */
export async function updateDocument(path, name, rows, environment) {
  const text = await readFile(path, "utf8");
  const [begin, end] = [`<!-- bench ${name} -->`, "<!-- /bench -->"];
  const from = text.indexOf(begin);
  const to = text.indexOf(end, from);
  if (from < 0 || to < 0) throw new Error(`${path} has no place for ${name}`);
  const notes = [...environment, settings(rows) && `Settings: ${settings(rows)}`].filter(Boolean).map((line) => `- ${line}`);
  await writeFile(path, [text.slice(0, from + begin.length), "", table(name, rows), "", ...notes, text.slice(to)].join("\n"));
}
