import { Jepa, type LoadOptions, type Progress } from "webjepa";
import { problemOf } from "../shared/problems";
import type { ModelChoice } from "./model-choice";
import type { Embedding, Picture, Store } from "./state";

const PHASES: Record<Progress["phase"], string> = {
  download: "Reading",
  compile: "Compiling",
  upload: "Preparing",
  warmup: "Warming up",
};

/** Loads models and keeps every picture embedded by the current one, one picture at a time. */
export class Encoder {
  private loading: AbortController | undefined;
  private embedding: AbortController | undefined;
  private running = false;

  constructor(private readonly store: Store) {}

  /** The model in use stays until the new one is ready, so a load that fails or is cancelled loses nothing. */
  async load(choice: ModelChoice, options: Pick<LoadOptions, "backend" | "dtype">): Promise<void> {
    const { store } = this;
    this.loading?.abort();
    this.interrupt({ state: "waiting" });
    const loading = (this.loading = new AbortController());
    const cancel = () => loading.abort();
    store.change({ problem: undefined, activity: { text: "Loading the model", cancel } });
    const started = performance.now();
    try {
      const jepa = await Jepa.load(choice.source, {
        ...options,
        warmup: true,
        signal: loading.signal,
        onProgress: (progress) => {
          if (this.loading === loading) store.change({ activity: { text: describe(progress), fraction: progress.overall, cancel } });
        },
      });
      if (this.loading !== loading) return void (await jepa.dispose());
      const old = store.state.model;
      for (const picture of store.state.pictures) delete picture.embedding;
      store.change({ model: { jepa, name: choice.name, loadMs: performance.now() - started }, imageSize: undefined });
      this.markWaiting();
      await old?.jepa.dispose();
    } catch (error) {
      if (!loading.signal.aborted) store.change({ problem: problemOf(error) });
    } finally {
      if (this.loading === loading) {
        this.loading = undefined;
        store.change({ activity: undefined });
        void this.run();
      }
    }
  }

  /** Embeds every picture anew, at the resolution that the state now asks for. */
  refresh(): void {
    this.interrupt({ state: "waiting" });
    this.markWaiting();
    void this.run();
  }

  retry(picture: Picture): void {
    Object.assign(picture, { state: "waiting", problem: undefined });
    void this.run();
  }

  /** Embeds the pictures that wait, the selected one first. A second call while a run is under way changes nothing: that run reaches them. */
  async run(): Promise<void> {
    const { store } = this;
    const { state } = store;
    if (this.running) return;
    this.running = true;
    for (let picture = this.next(); picture && state.model; picture = this.next()) {
      const embedding = (this.embedding = new AbortController());
      const done = state.pictures.filter((other) => other.state === "ready" || other.state === "failed").length;
      picture.state = "embedding";
      store.change({ activity: { text: `Embedding ${picture.name}`, fraction: done / state.pictures.length, cancel: () => this.stop() } });
      try {
        const result = await embed(state.model.jepa, picture.blob, state.imageSize, embedding.signal);
        if (!embedding.signal.aborted) Object.assign(picture, { state: "ready", embedding: result, problem: undefined });
      } catch (error) {
        if (!embedding.signal.aborted) Object.assign(picture, { state: "failed", problem: problemOf(error) });
      }
    }
    this.running = false;
    if (!this.loading) store.change({ activity: undefined });
  }

  private next(): Picture | undefined {
    if (this.loading) return undefined;
    const { selected, pictures } = this.store.state;
    return selected?.state === "waiting" ? selected : pictures.find((picture) => picture.state === "waiting");
  }

  private stop(): void {
    const stopped = { state: "failed", problem: { title: "Stopped", detail: "The embedding was cancelled." } } as const;
    this.interrupt(stopped);
    for (const picture of this.store.state.pictures) if (picture.state === "waiting") Object.assign(picture, stopped);
    this.store.changed();
  }

  /** Aborts the embedding that is under way; who aborts says what becomes of its picture. */
  private interrupt(outcome: Pick<Picture, "state" | "problem">): void {
    this.embedding?.abort();
    for (const picture of this.store.state.pictures) if (picture.state === "embedding") Object.assign(picture, outcome);
  }

  private markWaiting(): void {
    for (const picture of this.store.state.pictures) Object.assign(picture, { state: "waiting", problem: undefined });
    this.store.changed();
  }
}

async function embed(jepa: Jepa, blob: Blob, imageSize: number | undefined, signal: AbortSignal): Promise<Embedding> {
  const started = performance.now();
  const { data, shape, grid } = await jepa.embed(blob, { pool: "none", imageSize, signal });
  const ms = performance.now() - started;
  const [count, dim] = shape as [number, number];
  const mean = new Float32Array(dim);
  data.forEach((value, i) => (mean[i % dim]! += value / count));
  return { tokens: data, mean, dim, rows: grid[1], columns: grid[2], ms };
}

function describe({ phase, file, loaded, total, fromCache }: Progress): string {
  const parts = [PHASES[phase]];
  if (file) parts.push(file);
  if (phase === "download" && total > 0) parts.push(`${megabytes(loaded)} of ${megabytes(total)} MB`);
  if (fromCache) parts.push("(kept from an earlier visit)");
  return parts.join(" ");
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}
