import { h } from "../shared/dom";
import type { State, Store } from "./state";

/** The table of measurements: what runs, how, and how fast. */
export function mountReadout(root: HTMLElement, store: Store): void {
  store.subscribe((state) => {
    root.replaceChildren(...rows(state).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  });
}

function rows({ model, pictures, selected }: State): [string, string][] {
  const times = pictures.flatMap(({ embedding }) => (embedding ? [embedding.ms] : []));
  const here = selected?.embedding;
  const table: [string, string][] = [];
  if (model) {
    const { hiddenSize, layers, heads, patchSize } = model.jepa.config;
    table.push(
      ["Model", model.name],
      ["Encoder", `${layers} layers × ${hiddenSize}, ${heads} heads`],
      ["Patch", `${patchSize} px`],
      ["Backend", model.jepa.backend === "webgpu" ? "WebGPU" : "CPU (WebAssembly)"],
      ["Weights", model.jepa.dtype],
      ["Load", milliseconds(model.loadMs)],
    );
  }
  if (here) table.push(["Patches, this picture", `${here.rows} × ${here.columns}`], ["Embed, this picture", milliseconds(here.ms)]);
  if (times.length > 1) table.push([`Embed, median of ${times.length}`, milliseconds(median(times))]);
  return table.length > 0 ? table : [["Model", "none yet"]];
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function milliseconds(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
