import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { h } from "./dom";

const HEIGHT = 150;

export interface ChartOptions {
  title: string;
  about: string;
  /** How a value is written. */
  format: (value: number) => string;
  /** Fixed ends of the axis of values; else they follow the values. */
  range?: [number, number];
  /** Marks single values, where there are few. */
  points?: boolean;
  /** What a second, dashed line is. */
  reference?: string;
}

const charts = new Set<Chart>();

/** A small chart over the steps of training, in the colours of the page's theme. */
export class Chart {
  readonly root: HTMLElement;
  private readonly value = h("span", { class: "mono value" });
  private readonly plot: uPlot;
  private shown: { steps: number[]; values: number[]; reference?: number | number[] | undefined } = { steps: [], values: [] };
  private readonly well = h("div", { class: "chart", role: "img" });

  constructor(private readonly options: ChartOptions) {
    const { title, about, format, range, points = false, reference } = options;
    this.root = h("figure", { class: "chart-figure" }, h("figcaption", {}, title, this.value), this.well, h("p", { class: "label" }, about));
    const axis = (more: uPlot.Axis): uPlot.Axis => ({ stroke: () => colour("--muted"), font: "11px system-ui, sans-serif", grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, ...more });
    this.plot = new uPlot(
      {
        width: 300,
        height: HEIGHT,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: false, range: (_, __, last) => [0, Math.max(10, last ?? 0)] }, y: range ? { range } : {} },
        axes: [axis({ size: 22, gap: 4 }), axis({ size: 48, gap: 4, values: (_, ticks) => ticks.map(format) })],
        series: [
          {},
          { stroke: () => colour("--accent"), width: 1.75, points: { show: points, size: 5, fill: () => colour("--accent") } },
          ...(reference ? [{ stroke: () => colour("--caution"), width: 1.25, dash: [5, 4], points: { show: false } }] : []),
        ],
        hooks: { setCursor: [() => this.say()] },
      },
      undefined,
      this.well,
    );
    new ResizeObserver(() => this.plot.setSize({ width: Math.max(160, this.well.clientWidth), height: HEIGHT })).observe(this.well);
    charts.add(this);
  }

  show(steps: number[], values: number[], reference?: number | number[]): void {
    this.shown = { steps, values, reference };
    const lines = this.options.reference ? [Array.isArray(reference) ? reference : steps.map(() => reference ?? null)] : [];
    this.plot.setData([steps, values, ...lines] as uPlot.AlignedData);
    this.say();
  }

  redraw(): void {
    this.plot.redraw(false, false);
  }

  /** The value under the pointer, else the last. */
  private say(): void {
    const { title, format, reference: line } = this.options;
    const { steps, values, reference } = this.shown;
    // The plot moves its cursor while it is being made.
    const pointed = (this.plot as uPlot | undefined)?.cursor.idx ?? undefined;
    const at = pointed ?? values.length - 1;
    const value = values[at];
    if (value === undefined) {
      this.value.textContent = "";
      this.well.setAttribute("aria-label", `${title}: nothing yet`);
      return;
    }
    this.value.textContent = pointed === undefined ? format(value) : `${format(value)} at step ${steps[at]}`;
    const other = Array.isArray(reference) ? reference[at] : reference;
    const compared = line && other !== undefined ? `; ${line}: ${format(other)}` : "";
    this.well.setAttribute("aria-label", `${title}: ${format(value)} at step ${steps[at]}, in a chart of ${values.length} values${compared}`);
  }
}

function colour(property: string): string {
  // light-dark() is resolved only where it is used as a colour.
  probe.style.color = `var(${property})`;
  return getComputedStyle(probe).color;
}

const probe = h("span", { hidden: true });
document.documentElement.append(probe);

const redraw = () => charts.forEach((chart) => chart.redraw());
new MutationObserver(redraw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
