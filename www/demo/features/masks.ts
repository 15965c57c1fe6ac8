import { sampleMasks, type Jepa, type MaskOptions } from "webjepa";
import { drawMasks, drawOverlay, heatMap, INFERNO_CSS, predictionErrors, type DrawnMasks } from "webjepa/viz";
import { byId, h } from "../shared/dom";
import { problemOf } from "../shared/problems";
import type { Picture, Store } from "./state";

const SIDE = 768;
/** Milliseconds without a change before the model predicts: each step of a number field would otherwise be a run of it. */
const PAUSE = 150;

type Strategy = MaskOptions["strategy"];
type Values = Record<string, number[]>;

interface Parameter {
  name: string;
  title: string;
  /** One number, or from and to. */
  value: number[];
  min: number;
  max: number;
  step: number;
}

const share = { min: 0.01, max: 1, step: 0.01 };
const aspect = { name: "aspectRatio", title: "Height ÷ width", value: [0.75, 1.5], min: 0.1, max: 10, step: 0.05 };

/** The published parameters of each sampler, as the fields that the panel offers. */
const PARAMETERS: Record<Strategy, Parameter[]> = {
  "ijepa-multiblock": [
    { name: "numPredMasks", title: "Targets", value: [4], min: 1, max: 8, step: 1 },
    { name: "predMaskScale", title: "Target area", value: [0.15, 0.2], ...share },
    aspect,
    { name: "encMaskScale", title: "Context area", value: [0.85, 1], ...share },
  ],
  "vjepa-multiblock3d": [
    { name: "numBlocks", title: "Blocks", value: [8], min: 1, max: 16, step: 1 },
    { name: "spatialScale", title: "Block area", value: [0.15, 0.15], ...share },
    aspect,
  ],
  tube: [{ name: "ratio", title: "Hidden part", value: [0.9], ...share }],
  random: [{ name: "ratio", title: "Hidden part", value: [0.4, 0.6], ...share }],
};

/** Masks on the selected picture, and how far the model's predictor is off under them. */
export function mountMasks(store: Store): void {
  const form = byId("masks-form", HTMLFormElement);
  const fields = byId("masks-parameters", HTMLElement);
  const seed = byId("masks-seed", HTMLInputElement);
  const canvas = byId("masks-picture", HTMLCanvasElement);
  const note = byId("masks-note", HTMLElement);
  const view = new ErrorView();
  let drawn: { picture: Picture; jepa: Jepa } | undefined;

  const strategy = () => String(new FormData(form).get("strategy")) as Strategy;
  const offer = () => fields.replaceChildren(...PARAMETERS[strategy()].map(fieldOf));
  const values = (): Values => Object.fromEntries(PARAMETERS[strategy()].map(({ name }) => [name, [...form.querySelectorAll<HTMLInputElement>(`[data-parameter="${name}"]`)].map((input) => input.valueAsNumber)]));

  const draw = () => {
    const { selected: picture, model } = store.state;
    byId("masks", HTMLElement).hidden = !picture || !model;
    if (!picture || !model) return view.clear();
    const { jepa } = model;
    const [, rows, columns] = jepa.grid;
    let masks: DrawnMasks;
    try {
      const { context, targets } = sampleMasks([1, rows, columns], maskOptions(strategy(), values(), seed.valueAsNumber));
      masks = { rows, columns, context: context[0]!, targets: targets.map((block) => block[0]!) };
    } catch (error) {
      note.textContent = problemOf(error).detail;
      form.dataset.state = "failed";
      return view.clear();
    }
    delete form.dataset.state;
    note.textContent = summary(masks);
    canvas.setAttribute("aria-label", `${picture.name} with its masks. ${note.textContent}`);
    drawMasks(canvas, picture.bitmap, masks, SIDE);
    view.predict(jepa, picture, masks);
  };

  offer();
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target instanceof HTMLSelectElement) offer();
    draw();
  });
  byId("masks-again", HTMLButtonElement).addEventListener("click", () => {
    seed.valueAsNumber = (seed.valueAsNumber || 0) + 1;
    draw();
  });
  store.subscribe(({ selected, model }) => {
    if (drawn?.picture === selected && drawn?.jepa === model?.jepa) return;
    drawn = selected && model && { picture: selected, jepa: model.jepa };
    draw();
  });
}

/** The distances of the last prediction, and of the one that is under way. */
class ErrorView {
  private readonly canvas = byId("error-picture", HTMLCanvasElement);
  private readonly note = byId("error-note", HTMLElement);
  private readonly scale = byId("error-scale", HTMLElement);
  private readonly figure = byId("error-figure", HTMLElement);
  private readonly absent = byId("no-predictor", HTMLElement);
  private running: AbortController | undefined;

  constructor() {
    byId("error-bar", HTMLElement).style.background = INFERNO_CSS;
  }

  clear(): void {
    this.running?.abort();
    this.figure.hidden = true;
    this.absent.hidden = true;
  }

  async predict(jepa: Jepa, picture: Picture, masks: DrawnMasks): Promise<void> {
    this.running?.abort();
    const { signal } = (this.running = new AbortController());
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
    if (signal.aborted) return;
    try {
      const { error } = await jepa.predict(picture.blob, { context: masks.context, targets: masks.targets, signal });
      this.show(picture, masks, error);
    } catch (error) {
      if (signal.aborted) return;
      const problem = problemOf(error);
      this.figure.hidden = true;
      this.absent.hidden = false;
      this.absent.textContent =
        problem.code === "unsupported" ? "This model has no predictor, so it cannot guess what is hidden: checkpoints in the Hugging Face layout hold the encoder alone. Models trained on the page Train have one, if their objective is I-JEPA." : problem.detail;
    }
  }

  private show(picture: Picture, { rows, columns, targets }: DrawnMasks, error: Float32Array): void {
    const { values, mean } = predictionErrors(error, targets, rows * columns);
    const predicted = values.filter((value) => !Number.isNaN(value));
    const [low, high] = [Math.min(...predicted), Math.max(...predicted)];

    this.figure.hidden = false;
    this.absent.hidden = true;
    drawOverlay(this.canvas, picture.bitmap, heatMap(values, columns), { opacity: 0.85, side: SIDE });
    this.note.textContent = `mean ${mean.toFixed(4)}`;
    this.canvas.setAttribute("aria-label", `Prediction error on ${picture.name}: mean ${mean.toFixed(4)}, from ${low.toFixed(4)} to ${high.toFixed(4)}`);
    byId("error-low", HTMLElement).textContent = low.toFixed(3);
    byId("error-high", HTMLElement).textContent = high.toFixed(3);
    this.scale.hidden = false;
  }
}

function maskOptions(strategy: Strategy, values: Values, seed: number): MaskOptions {
  const parameters = Object.fromEntries(PARAMETERS[strategy].map(({ name, value }) => [name, value.length === 1 ? values[name]![0]! : values[name]!]));
  return { strategy, seed, ...parameters } as MaskOptions;
}

function fieldOf({ name, title, value, ...bounds }: Parameter): HTMLElement {
  const inputs = value.map((number, i) => h("input", { type: "number", value: number, ...bounds, "data-parameter": name, "aria-label": value.length === 1 ? title : `${title}, ${i === 0 ? "from" : "to"}` }));
  return h("div", { class: "tool" }, h("span", { class: "label", "aria-hidden": "true" }, title), h("span", { class: "numbers" }, ...inputs));
}

function summary({ rows, columns, context, targets }: DrawnMasks): string {
  const lengths = [...new Set(targets.map(({ length }) => length))].join(" or ");
  const blocks = targets.length === 1 ? `${lengths} patches to predict` : `${targets.length} targets of ${lengths} patches`;
  return `The context is ${context.length} of ${rows * columns} patches; ${blocks}.`;
}
