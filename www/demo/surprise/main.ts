import "../shared/parts.css";
import "./surprise.css";
import { Chart } from "../shared/charts";
import { byId, h } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountProblem, problemOf, type Problem } from "../shared/problems";
import { trained, untrained, type Agent } from "../shared/agents";
import { imageOf, picturesAt } from "../shared/room";
import { Store } from "../shared/store";
import { episodes, type Pair } from "./episode";
import { KINDS, measure, type Measured } from "./measure";

const PAIRS = 100;

interface State {
  busy: boolean;
  ready: boolean;
  text: string;
  problem?: Problem | undefined;
}

const store = new Store<State>({ busy: true, ready: false, text: "Loading the model" });
const models = [...document.querySelectorAll<HTMLInputElement>("#models input")];
const kinds = byId("kind", HTMLSelectElement);
const chart = new Chart({
  title: "Surprise",
  about: "Square distance of what is seen from what was predicted, after each action. Solid: where something impossible happens; dashed: where nothing does.",
  format: (value) => (value < 10 ? value.toFixed(2) : value.toFixed(0)),
  points: true,
  reference: "of what is possible",
});
const agents = new Map<string, Promise<Agent>>();
let seed = 0;
let stopping = new AbortController();
let last: Promise<void> = Promise.resolve();

mountLayout("../");
mountProblem(byId("problem", HTMLElement), store);
byId("chart", HTMLElement).append(chart.root);
kinds.append(...KINDS.map(({ name }, i) => h("option", { value: String(i) }, name)));
store.subscribe(({ busy, ready, text }) => {
  byId("status-text", HTMLElement).textContent = text;
  byId("lamp", HTMLElement).dataset.state = busy ? "busy" : ready ? "ready" : "none";
  for (const id of ["another", "measure"]) byId(id, HTMLButtonElement).disabled = busy || !ready;
  byId("stop", HTMLButtonElement).disabled = !busy || !ready;
  for (const element of [...models, kinds]) element.disabled = busy;
});

function agentOf(name: string): Promise<Agent> {
  const loading = agents.get(name) ?? (name === "untrained" ? untrained() : trained());
  agents.set(name, loading);
  // Tried again when it is asked for again.
  loading.catch(() => agents.delete(name));
  return loading;
}

/** Does something that can be stopped with the model that is chosen, and says what went wrong. */
function busy(what: string, body: (agent: Agent, signal: AbortSignal) => Promise<string>): Promise<void> {
  stopping = new AbortController();
  const { signal } = stopping;
  store.change({ busy: true, text: what, problem: undefined });
  return (last = last.then(async () => {
    try {
      const text = await body(await agentOf(models.find(({ checked }) => checked)!.value), signal);
      store.change({ text, ready: true });
    } catch (error) {
      store.change(signal.aborted ? { text: "Stopped" } : { text: "Failed", problem: problemOf(error) });
    } finally {
      store.change({ busy: false });
    }
  }));
}

function film({ possible, impossible, at }: Pair): void {
  const strip = (title: string, { places, surprise }: Pair["possible"], odd: boolean) =>
    h(
      "section",
      { class: "film" },
      h("h2", {}, title),
      h(
        "ol",
        { tabindex: 0, "aria-label": title },
        ...picturesAt(places).map((picture, i) => {
          const said = i === 0 ? "start" : surprise[i - 1]!.toFixed(2);
          const canvas = h("canvas", { width: picture.width, height: picture.height, role: "img", "aria-label": i === 0 ? "The start" : `After action ${i}: surprise ${said}` });
          canvas.getContext("2d")!.putImageData(imageOf(picture), 0, 0);
          return h("li", { class: odd && i === at + 1 && "odd" }, canvas, h("p", { class: "label mono" }, said));
        }),
      ),
    );
  byId("films", HTMLElement).replaceChildren(strip("Impossible", impossible, true), strip("Possible", possible, false));
  chart.show(impossible.surprise.map((_, i) => i + 1), impossible.surprise, possible.surprise);
}

async function show(agent: Agent, signal: AbortSignal): Promise<string> {
  const kind = KINDS[Number(kinds.value)]!;
  const pair = await episodes(agent, kind, seed, signal);
  film(pair);
  const [odd, even] = [pair.impossible, pair.possible].map(({ surprise }) => surprise[pair.at]!.toFixed(2));
  return `${kind.name}, episode ${seed + 1}: surprise ${odd}, of what is possible ${even}`;
}

const median = (values: readonly number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

function row({ name, auc, pairs }: Measured): void {
  const cells = [auc.toFixed(3), median(pairs.map(({ possible }) => possible)).toFixed(2), median(pairs.map(({ impossible }) => impossible)).toFixed(2)];
  byId("rows", HTMLElement).append(h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((cell) => h("td", {}, cell))));
  byId("table", HTMLElement).hidden = false;
}

for (const input of [...models, kinds]) input.addEventListener("change", () => void busy("Looking", show));
byId("another", HTMLButtonElement).addEventListener("click", () => {
  seed++;
  void busy("Looking", show);
});
byId("stop", HTMLButtonElement).addEventListener("click", () => stopping.abort());
byId("measure", HTMLButtonElement).addEventListener("click", () =>
  busy("Measuring surprise", async (agent, signal) => {
    byId("rows", HTMLElement).replaceChildren();
    await measure(agent, PAIRS, signal, row);
    return `Surprise measured on ${PAIRS} pairs of each kind`;
  }),
);

await busy("Loading the model", show);
