// Draws what the bench "cost" measured: a chart for each size that changed, a line for each device.
import uPlot from "uplot";

const CHARTS = [
  ["tokens", "Tokens (batch 1, 12 blocks)", "tokens of a picture"],
  ["batch", "Batch (196 tokens, 12 blocks)", "pictures in a batch"],
  ["depth", "Depth (196 tokens, batch 1)", "transformer blocks"],
];
const FONT = "12px system-ui, sans-serif";

/** Both axes are logarithmic, so that what grows in proportion is a line of slope 1. */
export async function draw(rows) {
  const adapter = await navigator.gpu.requestAdapter();
  const series = [
    ["cpu", "CPU, one thread", "#0b6e69"],
    ["webgpu", `WebGPU (${adapter.info.architecture})`, "#b4540a"],
  ];
  for (const [by, title, label] of CHARTS) {
    const some = rows.filter((row) => row.by === by && row.time);
    const sizes = [...new Set(some.map(({ size }) => size))].sort((a, b) => a - b);
    const values = ([device]) => sizes.map((size) => some.find((row) => row.device === device && row.size === size)?.time.median ?? null);
    const axis = { font: FONT, labelFont: FONT, labelSize: 20, grid: { stroke: "#e3e6e6", width: 1 } };
    new uPlot(
      {
        width: 360,
        height: 300,
        title,
        cursor: { show: false },
        scales: { x: { time: false, distr: 3, log: 2, range: [sizes[0] / 1.3, sizes.at(-1) * 1.3] }, y: { distr: 3, log: 10 } },
        axes: [
          { ...axis, label, splits: () => sizes, values: (_, splits) => splits.map(String), filter: (_, splits) => splits },
          { ...axis, label: "time of a forward, ms", size: 58, values: (_, splits) => splits.map((value) => (value === null ? "" : value.toLocaleString("en"))) },
        ],
        series: [{ label }, ...series.map(([, label, stroke]) => ({ label, stroke, width: 2, points: { show: true, size: 6, fill: stroke } }))],
        legend: { live: false, markers: { width: 3 } },
      },
      [sizes, ...series.map(values)],
      document.body,
    );
  }
}
