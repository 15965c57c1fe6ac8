import { opfsStore, Trainer, type TrainerHost, type TrainMetrics } from "webjepa";
import { problemOf } from "../shared/problems";
import { accuracyOf, accuracyOfPixels, mapsOf } from "./examination";
import type { PictureSet } from "./picture-sets";
import { forgetRecord, keepRecord, readRecord, type RunRecord } from "./run-record";
import { trainerOptions, type Settings } from "./settings";
import { emptyHistory, type Accuracies, type History, type Store } from "./state";

/** Steps between two looks at what the model has learnt, and between two saves. */
const EVERY = 25;
/** Milliseconds between two pictures of the masks: they are there to be seen. */
const MASKS_EVERY = 500;
/** After these errors a trainer's weights are gone. */
const FATAL = new Set(["device-lost", "out-of-memory", "internal", "disposed"]);

/** The run of this page: at most one, saved in the browser's private file system as it goes. */
export class Run {
  private readonly file = opfsStore("training-page");
  private trainer: Trainer | undefined;
  private settings: Settings | undefined;
  private making: AbortController | undefined;
  private release: (() => void) | undefined;
  private masksAt = 0;

  constructor(private readonly store: Store) {
    store.change({ saved: readRecord() });
  }

  get current(): Trainer | undefined {
    return this.trainer;
  }

  start(settings: Settings, set: PictureSet): Promise<void> {
    return this.make(settings, set, (host) => Trainer.create({ ...trainerOptions(settings), ...host }));
  }

  /** Goes on with the run that an earlier visit left. */
  resume({ settings, history, accuracies }: RunRecord, set: PictureSet): Promise<void> {
    return this.make(settings, set, (host) => Trainer.resumeFrom(this.file, { backend: settings.backend, ...host }), { history, accuracies });
  }

  /** Goes on from a save that was downloaded. */
  load(save: Blob, settings: Settings, set: PictureSet): Promise<void> {
    return this.make(settings, set, (host) => Trainer.resume(save, { backend: settings.backend, ...host }));
  }

  /** Ends after the step that is under way. */
  pause(): void {
    if (this.store.state.phase === "running") this.store.change({ phase: "pausing" });
  }

  async continue(): Promise<void> {
    if (this.trainer) await this.train(this.trainer);
  }

  /** Gives the trainer up; its last save stays. */
  async reset(): Promise<void> {
    const { trainer } = this;
    this.making?.abort();
    this.trainer = undefined;
    this.release?.();
    this.store.change({ phase: "idle", activity: undefined, info: undefined, last: undefined, masks: undefined, maps: undefined, history: emptyHistory(), accuracies: { step: [], accuracy: [] }, pixels: undefined, saved: readRecord() });
    await trainer?.dispose();
  }

  forget(): void {
    forgetRecord();
    this.store.change({ saved: undefined });
  }

  private async make(settings: Settings, set: PictureSet, create: (host: TrainerHost) => Promise<Trainer>, before?: { history: History; accuracies: Accuracies }): Promise<void> {
    const { store } = this;
    const making = (this.making = new AbortController());
    store.change({ phase: "preparing", activity: "Making the trainer", problem: undefined });
    try {
      this.release = await onlyTab();
      const trainer = await create({
        autosave: { every: EVERY, store: this.file, onError: (error) => store.change({ problem: problemOf(error) }) },
        signal: making.signal,
      });
      if (making.signal.aborted) return void (await trainer.dispose());
      this.trainer = trainer;
      const { info } = trainer;
      this.settings = { ...settings, batchSize: info.batchSize, steps: info.steps };
      store.change({
        set,
        info: { ...info, fallbackReason: trainer.fallbackReason },
        history: before ? until(before.history, info.step) : emptyHistory(),
        accuracies: before ? until(before.accuracies, info.step) : { step: [], accuracy: [] },
        pixels: set.labelled && accuracyOfPixels(set.labelled),
        activity: undefined,
      });
      await this.train(trainer);
    } catch (error) {
      if (making.signal.aborted) return this.release?.();
      await this.reset();
      store.change({ problem: problemOf(error) });
    }
  }

  private async train(trainer: Trainer): Promise<void> {
    const { store } = this;
    const { set } = store.state;
    if (!set) return;
    store.change({ phase: "running", problem: undefined });
    try {
      if (!store.state.maps) await this.examine(trainer, set);
      if (this.wanted(trainer)) {
        for await (const metrics of trainer.run(set)) {
          await this.note(trainer, metrics);
          if (metrics.step % EVERY === 0 || metrics.step === trainer.info.steps) {
            this.record(set);
            await this.examine(trainer, set);
          }
          if (!this.wanted(trainer)) break;
        }
      }
      if (this.trainer !== trainer) return;
      const { step, steps } = trainer.info;
      if (step < steps) await this.save(trainer, set);
      store.change({ phase: step < steps ? "paused" : "done", activity: undefined });
    } catch (error) {
      // A trainer that was given up rejects what is under way.
      if (this.trainer !== trainer) return;
      const problem = problemOf(error);
      if (problem.code && FATAL.has(problem.code)) await this.reset();
      else store.change({ phase: "paused", activity: undefined });
      store.change({ problem });
    }
  }

  private wanted(trainer: Trainer): boolean {
    return this.trainer === trainer && this.store.state.phase === "running";
  }

  private async note(trainer: Trainer, metrics: TrainMetrics): Promise<void> {
    const { state } = this.store;
    const { step, loss, std, effectiveRank, gradNorm, ms } = metrics;
    // After a loss of the GPU, steps since the last save come again.
    if (step <= (state.history.step.at(-1) ?? 0)) this.store.change({ history: until(state.history, step - 1), accuracies: until(state.accuracies, step - 1) });
    const { history } = this.store.state;
    history.step.push(step);
    history.loss.push(loss);
    history.std.push(std);
    history.rank.push(effectiveRank);
    history.gradient.push(gradNorm);
    history.ms.push(ms);
    this.store.change({ last: metrics });
    if (performance.now() - this.masksAt < MASKS_EVERY) return;
    this.masksAt = performance.now();
    const { context, targets } = await trainer.lastMasks();
    const [, rows, columns] = trainer.grid;
    if (context[0]) this.store.change({ masks: { rows, columns, context: context[0], targets: targets.map(([block]) => block!) } });
  }

  /** What the model as it is now makes of pictures that it is not trained on. */
  private async examine(trainer: Trainer, { labelled, samples }: PictureSet): Promise<void> {
    const { store } = this;
    store.change({ activity: "Looking at what the model has learnt" });
    const { step } = trainer.info;
    const model = await trainer.model();
    try {
      store.change({ maps: await mapsOf(model, samples) });
      const { accuracies } = store.state;
      if (labelled && accuracies.step.at(-1) !== step) {
        accuracies.accuracy.push(await accuracyOf(model, labelled));
        accuracies.step.push(step);
      }
    } finally {
      await model.dispose();
      store.change({ activity: undefined });
    }
  }

  private async save(trainer: Trainer, set: PictureSet): Promise<void> {
    this.store.change({ activity: "Saving" });
    await this.file.write(await trainer.save());
    this.record(set);
  }

  /** Says what the save is that has just been made. */
  private record({ name }: PictureSet): void {
    const { trainer, settings } = this;
    const { history, accuracies } = this.store.state;
    if (trainer && settings) keepRecord({ date: Date.now(), step: trainer.info.step, settings, pictures: name, history, accuracies });
  }
}

/** The rows of the steps that a save has; a page that was closed may have seen more. */
function until<T extends { step: number[] }>(columns: T, step: number): T {
  const rows = columns.step.filter((each) => each <= step).length;
  return Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, (column as number[]).slice(0, rows)])) as T;
}

/** Two tabs must not write to one store. Resolves to what lets the other tabs train again. */
async function onlyTab(): Promise<() => void> {
  return new Promise((resolve, reject) => {
    void navigator.locks.request("webjepa-training", { ifAvailable: true }, (lock) => {
      if (!lock) return reject(new Error("Another tab of this browser is training; pause and reset the run there, or close it."));
      return new Promise<void>((release) => resolve(release));
    });
  });
}
