import "../shared/parts.css";
import "./plan.css";
import { runEpisode, twoRooms, type Place } from "webjepa";
import { Chart } from "../shared/charts";
import { byId } from "../shared/dom";
import { mountLayout } from "../shared/layout";
import { mountProblem, problemOf, type Problem } from "../shared/problems";
import { Store } from "../shared/store";
import { learn, SIDE, trained, untrained, type Learner } from "../shared/agents";
import { EXTENT, picturesAt } from "../shared/room";
import { drawMap, drawRoom } from "./drawing";
import type { View } from "./latent";
import { bundleOf, DECISIONS, mapped, ROUNDS, searchOf, walk, watched, type Mapped } from "./search";

/** Of an arrow key, in units of the room. */
const NUDGE = 4;

type Name = "trained" | "live" | "untrained";

interface State {
  name: Name;
  /** Of the run that goes on beside everything else. */
  training?: { text: string; progress: number } | undefined;
  busy: boolean;
  ready: boolean;
  text: string;
  progress?: number | undefined;
  problem?: Problem | undefined;
}

const store = new Store<State>({ name: "trained", busy: true, ready: false, text: "Loading the model" });
const room = twoRooms({ size: SIDE });
const canvases = { room: byId("room-canvas", HTMLCanvasElement), latent: byId("latent", HTMLCanvasElement) };
const handles = { start: byId("start-handle", HTMLButtonElement), goal: byId("goal-handle", HTMLButtonElement) };
const inputs = { episodes: byId("episodes", HTMLInputElement), steps: byId("steps", HTMLInputElement) };
const axes = [...document.querySelectorAll<HTMLInputElement>("#axes input")];
/** Milliseconds for which a round is looked at. */
const speed = byId("speed", HTMLInputElement);
const models = [...document.querySelectorAll<HTMLInputElement>("#models input")];
const charts = {
  loss: new Chart({ title: "Loss", about: "Prediction, similarity in time, and SIGReg against collapse.", format: (value) => value.toFixed(2) }),
  std: new Chart({ title: "Standard deviation of embeddings", about: "0 would be a collapse: every picture the same.", format: (value) => value.toFixed(2) }),
};
const agents = new Map<Name, Promise<Mapped>>();
/** What is being trained, or has been. */
let learner: Learner | undefined;
const task: { start: Place; goal: Place } = { start: [45, 60], goal: [175, 140] };
let seed = 0;
let stopping = new AbortController();
let stoppingTraining = new AbortController();
/** What is done with an agent, one thing at a time, so that none is disposed of in its midst. */
let last: Promise<void> = Promise.resolve();

mountLayout("../");
mountProblem(byId("problem", HTMLElement), store);
byId("charts", HTMLElement).append(charts.loss.root, charts.std.root);
store.subscribe(({ busy, ready, text, progress, training }) => {
  byId("status-text", HTMLElement).textContent = text;
  byId("lamp", HTMLElement).dataset.state = busy ? "busy" : ready ? "ready" : "none";
  for (const id of ["go", "another"]) byId(id, HTMLButtonElement).disabled = busy || !ready;
  byId("stop", HTMLButtonElement).disabled = !busy || !ready;
  for (const element of [...models, ...Object.values(handles)]) element.disabled = busy || (element.value === "live" && !learner);
  byId("live-name", HTMLElement).textContent = training ? "Training now" : "Trained here";
  byId("train", HTMLButtonElement).textContent = training ? "Stop training" : "Collect, train, plan";
  for (const input of Object.values(inputs)) input.disabled = training !== undefined;
  byId("training-text", HTMLElement).textContent = training?.text ?? "";
  showProgress("progress", progress);
  showProgress("training-progress", training?.progress);
});

function showProgress(id: string, progress: number | undefined): void {
  const bar = byId(id, HTMLProgressElement);
  bar.hidden = progress === undefined;
  if (progress !== undefined) bar.value = progress;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : ms));

function agentOf(name: Name): Promise<Mapped> {
  const known = agents.get(name);
  if (known) return known;
  const loading = (name === "untrained" ? untrained() : name === "live" ? learner!.agent() : trained()).then(mapped);
  agents.set(name, loading);
  // Tried again when it is asked for again.
  loading.catch(() => agents.delete(name));
  return loading;
}

/** Forgets what was trained up to a moment that has passed. */
async function renew(): Promise<void> {
  const before = agents.get("live");
  agents.delete("live");
  await before?.then(({ world }) => world.dispose(), () => {});
}

/** The agent that is chosen; of one that is in training, as it is now. */
async function chosen(): Promise<Mapped> {
  if (store.state.name === "live" && store.state.training) await renew();
  return agentOf(store.state.name);
}

/** Waits for its turn, and says what went wrong. */
function inTurn(task: () => Promise<void>): Promise<void> {
  return (last = last.then(task).catch((error) => store.change({ problem: problemOf(error) })));
}

/** Does something that can be stopped, and says what went wrong. */
function busy(what: string, body: (signal: AbortSignal) => Promise<string>): Promise<void> {
  stopping = new AbortController();
  const { signal } = stopping;
  store.change({ busy: true, text: what, problem: undefined });
  return inTurn(async () => {
    try {
      const text = await body(signal);
      store.change({ text, ready: true });
    } catch (error) {
      store.change(signal.aborted ? { text: "Stopped" } : { text: "Failed", problem: problemOf(error) });
    } finally {
      store.change({ busy: false, progress: undefined });
    }
  });
}

const redraw = () => inTurn(async () => drawTask(await agentOf(store.state.name)));

function placeHandles(): void {
  for (const name of ["start", "goal"] as const) {
    const [x, y] = task[name];
    handles[name].style.left = `${(100 * x) / EXTENT}%`;
    handles[name].style.top = `${(100 * y) / EXTENT}%`;
    handles[name].setAttribute("aria-label", `${name === "start" ? "Start" : "Goal"} at ${Math.round(x)}, ${Math.round(y)} of ${EXTENT}: move by arrow keys`);
  }
}

async function encoded(agent: Mapped, place: Place): Promise<Float32Array> {
  return (await agent.world.encode(picturesAt([place])[0]!)).data;
}

async function drawTask(agent: Mapped): Promise<void> {
  placeHandles();
  drawRoom(canvases.room, { at: task.start, goal: task.goal, walked: [] });
  drawMap(canvases.latent, agent.map, await encoded(agent, task.goal));
}

/** Puts the start or the goal somewhere; where neither can be, it stays and the environment says why. */
function move(which: "start" | "goal", to: Place): void {
  const wanted = { ...task, [which]: to };
  try {
    room.place(wanted.start, wanted.goal);
  } catch (error) {
    store.change({ problem: { ...problemOf(error), title: `The ${which} cannot be there` } });
    return;
  }
  Object.assign(task, wanted);
  store.change({ problem: undefined });
  void redraw();
}

async function go(agent: Mapped, signal: AbortSignal): Promise<string> {
  const { start, goal } = task;
  const aim = await encoded(agent, goal);
  let decision = 1;
  let round = 0;
  let view: View = agent.map.whole;
  const { walked, environment } = walk(room, { start, goal }, {
    decision() {
      round = 0;
      store.change({ text: `Decision ${decision}: carrying it out`, progress: decision++ / DECISIONS });
    },
    async step() {
      drawRoom(canvases.room, { at: walked.at(-1)!, goal, walked });
      await pause(20);
    },
  });
  // Drawn before the search goes on, as long as it takes to look at.
  const model = watched(agent, async (tried) => {
    signal.throwIfAborted();
    store.change({ text: `Decision ${decision}: round ${++round} of ${ROUNDS}` });
    // Axes that stay the same through all rounds of a search show how its candidates draw together.
    if (round === 1) view = axes.find(({ checked }) => checked)!.value === "predictions" ? agent.map.along(tried.predictions) : agent.map.whole;
    const bundle = bundleOf(agent, tried, view);
    drawRoom(canvases.room, { at: walked.at(-1)!, goal, walked, bundle });
    drawMap(canvases.latent, agent.map, aim, { view, bundle });
    await pause(speed.valueAsNumber);
  });
  const { terminated, plans } = await runEpisode(model, environment, aim, { steps: DECISIONS, scale: agent.scale, plan: searchOf(agent), signal });
  return terminated ? `Reached the goal in ${plans.length} decisions` : `Did not reach the goal in ${plans.length} decisions`;
}

/** A whole number of a field, within its limits. */
function numberOf(input: HTMLInputElement, what: string): number {
  const value = input.valueAsNumber;
  if (!Number.isInteger(value) || value < Number(input.min) || value > Number(input.max)) throw new Error(`${what} are a whole number from ${input.min} to ${input.max}.`);
  return value;
}

/** Trains beside everything else, and plans with the result. */
async function learnAndGo(): Promise<void> {
  stoppingTraining = new AbortController();
  const { signal } = stoppingTraining;
  const [numbers, losses, stds]: [number[], number[], number[]] = [[], [], []];
  try {
    const [episodes, steps] = [numberOf(inputs.episodes, "Episodes"), numberOf(inputs.steps, "Steps")];
    store.change({ training: { text: "Exploring", progress: 0 }, problem: undefined });
    await learn({
      episodes,
      steps,
      signal,
      onCollected: (done) => store.change({ training: { text: `Exploring: episode ${done} of ${episodes}`, progress: done / episodes } }),
      onReady: (fresh) => {
        const before = learner;
        learner = fresh;
        void inTurn(async () => {
          await renew();
          await before?.dispose();
        });
      },
      onStep: ({ step, loss, std, ms, warning }) => {
        numbers.push(step);
        losses.push(loss);
        stds.push(std);
        charts.loss.show(numbers, losses);
        charts.std.show(numbers, stds);
        store.change({ training: { text: `Training: step ${step} of ${steps}, ${ms.toFixed(0)} ms a step${warning ? `. ${warning}` : ""}`, progress: step / steps } });
      },
    });
  } catch (error) {
    if (!signal.aborted) store.change({ problem: problemOf(error) });
    return;
  } finally {
    store.change({ training: undefined });
  }
  await last;
  await busy("Planning with what was trained", async (stopped) => {
    await renew();
    choose("live");
    const live = await agentOf("live");
    await drawTask(live);
    return go(live, stopped);
  });
}

function choose(name: Name): void {
  store.change({ name });
  for (const input of models) input.checked = input.value === name;
}

for (const which of ["start", "goal"] as const) {
  const handle = handles[which];
  handle.addEventListener("keydown", ({ key }) => {
    const [dx, dy] = { ArrowLeft: [-NUDGE, 0], ArrowRight: [NUDGE, 0], ArrowUp: [0, -NUDGE], ArrowDown: [0, NUDGE] }[key] ?? [];
    if (dx === undefined || dy === undefined) return;
    move(which, [task[which][0] + dx, task[which][1] + dy]);
  });
  handle.addEventListener("pointerdown", ({ pointerId }) => handle.setPointerCapture(pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const { left, top, width, height } = byId("room", HTMLElement).getBoundingClientRect();
    move(which, [((event.clientX - left) / width) * EXTENT, ((event.clientY - top) / height) * EXTENT]);
  });
}
byId("room", HTMLElement).addEventListener("keydown", (event) => event.key.startsWith("Arrow") && event.preventDefault());
for (const input of models) {
  input.addEventListener("change", () => {
    choose(input.value as Name);
    void busy("Loading the model", async () => {
      await drawTask(await chosen());
      return `Ready to plan with the model that is ${{ trained: "trained", live: store.state.training ? "training now" : "trained here", untrained: "untrained" }[store.state.name]}`;
    });
  });
}
byId("go", HTMLButtonElement).addEventListener("click", () => busy("Planning", async (signal) => go(await chosen(), signal)));
byId("another", HTMLButtonElement).addEventListener("click", () => {
  const { state } = room.reset({ seed: seed++ });
  Object.assign(task, { start: [...state], goal: room.goal });
  void redraw();
});
byId("stop", HTMLButtonElement).addEventListener("click", () => stopping.abort());
byId("train", HTMLButtonElement).addEventListener("click", () => (store.state.training ? stoppingTraining.abort() : void learnAndGo()));
placeHandles();
await busy("Loading the model", async () => {
  const agent = await agentOf("trained");
  await drawTask(agent);
  return `Ready to plan on ${agent.world.backend === "webgpu" ? "WebGPU" : "the CPU"}`;
});
