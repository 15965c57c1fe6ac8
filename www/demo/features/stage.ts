import { drawOverlay, INFERNO_CSS } from "webjepa/viz";
import { byId, h } from "../shared/dom";
import type { Encoder } from "./encoder";
import type { FeatureMap, SimilarityMaps } from "./maps";
import { PatchGrid } from "./patch-grid";
import { probeCell, type Picture, type State, type Store } from "./state";

const SIDE = 1024;

/** The selected picture, twice: under its feature map and under the similarities to the chosen patch. */
export class Stage {
  private readonly title = byId("stage-title", HTMLElement);
  private readonly credit = byId("stage-credit", HTMLElement);
  private readonly heatNote = byId("heat-note", HTMLElement);
  private readonly mapNote = byId("map-note", HTMLElement);
  private readonly scale = byId("scale", HTMLElement);
  private readonly bar = byId("scale-bar", HTMLElement);
  private readonly low = byId("scale-low", HTMLElement);
  private readonly high = byId("scale-high", HTMLElement);
  private readonly map: PatchGrid;
  private readonly heat: PatchGrid;

  constructor(store: Store) {
    const choose = (row: number, column: number) => {
      const grid = store.state.selected?.embedding;
      if (grid) store.change({ probe: { u: (column + 0.5) / grid.columns, v: (row + 0.5) / grid.rows } });
    };
    this.map = new PatchGrid(byId("map-grid", HTMLElement), choose);
    this.heat = new PatchGrid(byId("heat-grid", HTMLElement), choose);
    this.bar.style.background = INFERNO_CSS;
  }

  render(state: State, maps: ReadonlyMap<Picture, FeatureMap>, similarity: SimilarityMaps | undefined): void {
    const { selected } = state;
    this.title.textContent = selected?.name ?? "No picture";
    this.credit.textContent = selected?.credit ?? "";
    const embedding = selected?.embedding;
    const cell = embedding && probeCell(state, embedding);
    const view = embedding && cell && { ...cell, rows: embedding.rows, columns: embedding.columns };
    this.map.render(view && { ...view, label: `Feature map of ${selected.name}: choose a patch` });
    this.heat.render(view && { ...view, label: `Similarity map of ${selected.name}: choose a patch` });
    const map = selected && maps.get(selected);
    this.mapNote.textContent = embedding && map ? `${embedding.rows} × ${embedding.columns} patches, ${(100 * map.explained).toFixed(0)}% of the variance` : "";
    this.heatNote.textContent = cell ? `to the patch in row ${cell.row + 1}, column ${cell.column + 1}` : "";
    this.scale.hidden = !similarity;
    if (similarity) {
      this.low.textContent = similarity.low.toFixed(3);
      this.high.textContent = similarity.high.toFixed(3);
      this.bar.setAttribute("aria-label", `Cosine similarity from ${this.low.textContent} (dark) to ${this.high.textContent} (light)`);
    }
    const options = { opacity: state.opacity, smooth: state.smooth, square: false, side: SIDE };
    for (const [grid, overlay] of [
      [this.map, map?.overlay],
      [this.heat, selected && similarity?.overlays.get(selected)],
    ] as const) {
      grid.canvas.hidden = !selected;
      if (selected) drawOverlay(grid.canvas, selected.bitmap, overlay, options);
    }
  }
}

/** The controls under the maps. */
export function mountTools(store: Store, encoder: Encoder): void {
  const opacity = byId("opacity", HTMLInputElement);
  const opacityValue = byId("opacity-value", HTMLOutputElement);
  const smooth = byId("smooth", HTMLInputElement);
  const colours = byId("colours", HTMLElement);
  const resolution = byId("resolution", HTMLElement);

  opacity.value = String(store.state.opacity);
  opacity.addEventListener("input", () => store.change({ opacity: opacity.valueAsNumber }));
  smooth.addEventListener("change", () => store.change({ smooth: smooth.checked }));
  for (const radio of colours.querySelectorAll("input")) {
    radio.checked = (radio.value === "joint") === store.state.joint;
    radio.addEventListener("change", () => store.change({ joint: radio.value === "joint" }));
  }

  let offered: unknown;
  store.subscribe(({ opacity: value, model, imageSize }) => {
    opacityValue.textContent = `${Math.round(100 * value)}%`;
    if (offered === model) return;
    offered = model;
    const choices = model ? resolutions(model.jepa.config) : [];
    resolution.replaceChildren(
      ...choices.map((size, i) => {
        const radio = h("input", { type: "radio", name: "resolution", value: size, checked: size === (imageSize ?? choices[0]) });
        radio.addEventListener("change", () => {
          store.change({ imageSize: i === 0 ? undefined : size });
          encoder.refresh();
        });
        return h("label", {}, radio, String(size));
      }),
    );
  });
}

/** The model's own size, one and a half times, and twice that: finer maps from the same weights. */
function resolutions({ imageSize, patchSize }: { imageSize: number | readonly [number, number]; patchSize: number }): number[] {
  const native = typeof imageSize === "number" ? imageSize : imageSize[0];
  return [native, 1.5 * native, 2 * native].filter((size) => size % patchSize === 0);
}
