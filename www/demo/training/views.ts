import { drawMasks } from "webjepa/viz";
import { byId, h } from "../shared/dom";
import { Chart } from "../shared/charts";
import { neighboursOf, type FeatureMap } from "./examination";
import type { Drawable } from "./picture-sets";
import type { State, Store } from "./state";

const SIDE = 384;
const THUMBNAIL = 192;

const short = (value: number) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(1) : String(Number(value.toPrecision(3))));
const percent = (value: number) => `${Math.round(100 * value)}%`;

/** Charts, masks, feature maps and the table of numbers. */
export function mountViews(store: Store): void {
  const charts = {
    loss: new Chart({ title: "Loss", about: "What training makes smaller. I-JEPA’s may rise while embeddings get better: its targets move, too.", format: short }),
    accuracy: new Chart({ title: "k-NN accuracy", about: "", format: percent, range: [0, 1], points: true, reference: "of pixels" }),
    std: new Chart({ title: "Spread (std)", about: "How much embeddings of different pictures differ. At 0 they have collapsed.", format: short }),
    rank: new Chart({ title: "Effective rank", about: "In how many directions they differ. At 1 they lie on a line.", format: short }),
    gradient: new Chart({ title: "Gradient norm", about: "The length of the step’s gradient. Bursts mean that the learning rate is too high.", format: short }),
    time: new Chart({ title: "Time of a step", about: "In milliseconds, the preparing of pictures included.", format: (value) => value.toFixed(0) }),
  };
  byId("charts", HTMLElement).append(...Object.values(charts).map(({ root }) => root));
  const aboutAccuracy = charts.accuracy.root.querySelector("p")!;
  let maps: FeatureMap[] | undefined;

  store.subscribe((state) => {
    const { history, accuracies, pixels } = state;
    charts.loss.show(history.step, history.loss);
    charts.std.show(history.step, history.std);
    charts.rank.show(history.step, history.rank);
    charts.gradient.show(history.step, history.gradient);
    charts.time.show(history.step, history.ms);
    charts.accuracy.show(accuracies.step, accuracies.accuracy, pixels);
    aboutAccuracy.textContent = aboutOf(state);
    warn(state);
    showMasks(state);
    if (state.maps !== maps) showMaps((maps = state.maps));
    byId("readout", HTMLElement).replaceChildren(...rows(state).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  });
}

function aboutOf({ set, pixels }: State): string {
  if (!set) return "How often the nearest neighbours of a held-out picture tell its class.";
  if (!set.labelled) return "Needs classes: choose a folder with a sub-folder for each, of ten pictures or more.";
  const { pictures, labels, classes } = set.labelled;
  return `How often the ${neighboursOf(labels)} nearest of ${pictures.length} held-out pictures tell a picture’s class. By chance ${percent(1 / classes.length)}${pixels === undefined ? "" : `; with pixels alone ${percent(pixels)} (dashed)`}.`;
}

function warn({ last }: State): void {
  const element = byId("warning", HTMLElement);
  element.hidden = !last?.warning;
  const text = last?.warning ?? "";
  // The numbers in it change with every step: told once, until it is over.
  if (!text || !element.textContent) element.textContent = text;
}

function showMasks({ masks, set, info }: State): void {
  const canvas = byId("masks-picture", HTMLCanvasElement);
  const note = byId("masks-note", HTMLElement);
  const picture = set?.samples[0];
  canvas.hidden = !masks || !picture;
  if (!masks || !picture) {
    note.textContent = info && info.objective !== "ijepa" ? "LeJEPA has no masks: it compares whole views of a picture." : "The masks of the last step, once there is one.";
    return;
  }
  drawMasks(canvas, picture, masks, SIDE);
  note.textContent = `Seen: ${masks.context.length} of ${masks.rows * masks.columns} patches (green). To predict: ${masks.targets.length} blocks of ${masks.targets[0]?.length ?? 0}.`;
  canvas.setAttribute("aria-label", `A sample picture with the masks of the last step. ${note.textContent}`);
}

function showMaps(maps: FeatureMap[] | undefined): void {
  const list = byId("maps", HTMLElement);
  byId("maps-note", HTMLElement).hidden = Boolean(maps);
  list.replaceChildren(
    ...(maps ?? []).map(({ picture, overlay }, i) => {
      const map = new OffscreenCanvas(overlay.width, overlay.height);
      map.getContext("2d")?.putImageData(overlay, 0, 0);
      return h("li", { role: "img", "aria-label": `Held-out picture ${i + 1} and its feature map` }, thumbnail(picture), thumbnail(map));
    }),
  );
}

function thumbnail(picture: Drawable): HTMLCanvasElement {
  const canvas = h("canvas", { width: THUMBNAIL, height: THUMBNAIL });
  const context = canvas.getContext("2d")!;
  context.imageSmoothingEnabled = picture.width > THUMBNAIL;
  context.drawImage(picture, 0, 0, THUMBNAIL, THUMBNAIL);
  return canvas;
}

function rows({ info, last, set }: State): [string, string][] {
  if (!info) return [["Run", "none yet"]];
  const { hiddenSize, layers } = info.config;
  const table: [string, string][] = [
    ["Pictures", set ? `${set.length.toLocaleString("en")} of ${set.name}` : ""],
    ["Encoder", `${layers} layers × ${hiddenSize}`],
    ["Trained numbers", info.trainable.toLocaleString("en")],
    ["Backend", info.backend === "webgpu" ? "WebGPU" : "CPU (WebAssembly)"],
  ];
  if (!last) return table;
  table.push(["Step", `${last.step} of ${info.steps}`], ["Left, about", duration(((info.steps - last.step) * last.ms) / 1000)], ["Learning rate", last.lr.toExponential(2)]);
  if (info.objective === "ijepa") table.push(["Target’s momentum", last.ema.toFixed(4)]);
  for (const [name, value] of Object.entries(last.parts)) table.push([`Loss: ${name}`, short(value)]);
  table.push(["Mean cosine", last.cosine.toFixed(4)]);
  return table;
}

function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
