import { captureList, type ClipInput } from "./clips.js";
import { abortable, JepaError, messageOf, throwIfAborted } from "./errors.js";
import type { GlueModelInfo, GlueTrainerInfo, GlueWorldInfo } from "./glue.js";
import { asyncDispose, discardLater, isolated, Resident, type Advice, type Make } from "./host.js";
import { captureAll, discard, type ImageInput, type Numbering } from "./inputs.js";
import { Jepa } from "./jepa.js";
import { BACKENDS, customCache, loadRequest } from "./load-options.js";
import { masksOf, type Masks } from "./masks.js";
import { aBoolean, anObject, anything, checkFields, oneOf, shown, whole } from "./options.js";
import type { Engine, StepRequest, TrainRequest } from "./protocol.js";
import type { SaveStore } from "./saves.js";
import { checkHost, checkStore, trainingOf, type Autosave, type TrainerHost, type TrainerOptions } from "./trainer-options.js";
import { finite, sized, type ActionWindow } from "./trajectories.js";
import type { Backend, Grid, ModelConfig } from "./types.js";
import { joined, WorldModel } from "./world.js";

/**
 * Pictures to train on: an array of them, or what makes the one with a given number when it is needed. For a model of video, clips of
 * its number of frames; for a world model, windows.
 */
export type TrainDataset = ArrayLike<TrainSample> | { readonly length: number; get(index: number): TrainSample | Promise<TrainSample> };

/** What a step takes several of: for a model of video clips, for a world model windows, see {@link windowsOf}. */
export type TrainSample = ImageInput | ClipInput | ActionWindow;

export interface StepOptions {
  /**
   * What is visible and what is predicted in each picture, instead of masks drawn as the option `masks` says: as
   * {@link sampleMasks} and {@link Trainer.lastMasks} give them, a list for each of the step's pictures.
   */
  masks?: Masks | undefined;
  /**
   * False: pictures are Float32Array pixel data, cropped, resized and normalised by the caller to be the model's very input, which
   * objectives of one view of a picture take. Default true.
   */
  preprocess?: boolean | undefined;
  /** Aborts the call; once its pictures have been prepared, the step is taken all the same. */
  signal?: AbortSignal | undefined;
}

export interface RunOptions {
  /** By how many steps to get further; steps that are lost are taken again besides. Default: to the end of the schedule. */
  steps?: number | undefined;
  /** Ends the run between two steps; a step that is under way is still taken. The trainer stays usable. */
  signal?: AbortSignal | undefined;
}

/** So often a run begins a step again that what computes is lost in: what it is lost by, such as want of memory, may be the step itself. */
const MOST_LOSSES = 3;

/** What is known of a step of training. */
export interface TrainMetrics {
  /** Steps that have been taken, this one included. */
  step: number;
  /** What the step made smaller. With a target encoder it is no measure of quality: it can rise while embeddings get better. */
  loss: number;
  /** The parts of the loss by name, where it has several. */
  parts: Record<string, number>;
  /** Learning rate of the step. */
  lr: number;
  /** Weight decay of the step. */
  weightDecay: number;
  /** Momentum of the target encoder in the step; 1 where there is none. */
  ema: number;
  /** Standard deviation of the embeddings' values across pictures, on average: 0 when all embeddings are alike. NaN for one picture, like the next two. */
  std: number;
  /** In how many directions embeddings differ, weighted by how much: 1 when they lie on a line, at most their width. */
  effectiveRank: number;
  /** Cosine similarity of the embeddings of different pictures, on average: 1 when all point the same way. */
  cosine: number;
  /** Length of the gradient, before clipping. */
  gradNorm: number;
  /** How far the target encoder is from the online encoder, as a part of the latter's size. */
  emaDistance: number;
  /** What looks wrong, as a sentence; absent when nothing does. */
  warning?: string;
  /** How long the step took, in milliseconds, pictures included. */
  ms: number;
}

/** What is known of a trainer. */
export interface TrainerInfo {
  /** The geometry of the model. */
  config: ModelConfig;
  /** Patches along time, height and width. */
  grid: Grid;
  /** Frames of each clip or window; 1 for pictures. */
  frames: number;
  /** What computes. */
  backend: Backend;
  objective: string;
  /** Steps that have been taken. */
  step: number;
  /** Steps of the schedule. */
  steps: number;
  batchSize: number;
  accumulate: number;
  /** Numbers that are trained. */
  trainable: number;
  /** Numbers that there are. */
  parameters: number;
}

/** A model in the Hugging Face layout, which {@link Jepa.load} and transformers' `from_pretrained` read. */
export interface HuggingFaceFiles extends Record<string, string | Uint8Array<ArrayBuffer>> {
  "config.json": string;
  /** Of V-JEPA 2 it is `video_preprocessor_config.json`. */
  "preprocessor_config.json": string;
  "model.safetensors": Uint8Array<ArrayBuffer>;
}

const TRAINER: Advice = {
  disposed: "The trainer has been disposed of; resume it from a save.",
  lost: "What was trained since the last save is lost: go on from that save with Trainer.resume, or Trainer.resumeFrom a store. With the option autosave a trainer does so by itself.",
};
const SAVED: Advice = { ...TRAINER, lost: "The next call goes on from the last save." };
const MODEL: Advice = {
  disposed: "The model has been disposed of; ask its trainer for another.",
  lost: "The weights of this model were lost with its trainer: once that goes on from its last save, ask it for the model again.",
};

/**
 * Trains a model.
 *
 * Calls of a trainer, and of the models that it gave, are answered one at a time, in the order in which they were made. After a
 * failed call the trainer goes on as if that call had not been made.
 *
 * When what computes is lost (the GPU device, the worker, memory), so are the weights. With `autosave` the trainer is made again from its
 * last save, or as it was begun where there is none yet: {@link Trainer.run} goes on from there and takes the lost steps again; any other
 * call that is in progress rejects with the code of the loss, and the one after it goes on, with `info.step` going back. Models that it
 * gave are lost for good. Without `autosave` every call rejects with that code; see {@link Trainer.resume}.
 *
 * With the same seed, pictures and options the CPU backend gives the same numbers bit for bit, resumed or not.
 *
 * @example
 * const trainer = await Trainer.create({ model: "vit-tiny", objective: "ijepa", batchSize: 32, schedule: { steps: 2000 } });
 * for await (const { step, loss, warning } of trainer.run(files)) console.log(step, loss, warning);
 * const jepa = await trainer.model();
 */
export class Trainer {
  readonly #resident: Resident<GlueTrainerInfo>;
  readonly #autosave: Autosave | undefined;
  /** Makes it as it was begun, while the store of `autosave` has no save of it, but maybe one of another trainer. */
  #begin: Make<GlueTrainerInfo> | undefined;
  readonly #warn: (warning: string, metrics: TrainMetrics) => void;
  #step: number;

  /**
   * Begins a run: with fresh weights, or with those of the checkpoint `from`.
   *
   * @throws {@link JepaError} `bad-input`, `bad-config`, `bad-mask`, `unsupported`, `out-of-memory`, `aborted`, `no-webgpu` (only with
   * `backend: "webgpu"`), and with `from` those of {@link Jepa.load}
   */
  static async create(options: TrainerOptions): Promise<Trainer> {
    const training = trainingOf(options);
    const { model, from, backend = "auto", threads = "auto", cache, integrity, requestInit } = options;
    oneOf("backend", backend, BACKENDS);
    let request: TrainRequest;
    if (from !== undefined) {
      const load = loadRequest(from, { backend, threads, cache, integrity, requestInit });
      load.options = { dtype: "f32", encoder: "auto", predictor: true, training: true, ...(model === undefined ? {} : { preset: model }) };
      request = { kind: "checkpoint", load, options: training };
    } else if (model !== undefined) {
      request = { kind: "fresh", backend, threads, options: { ...training, model } };
    } else {
      throw new JepaError("bad-input", 'Say what to train: the option model, such as "vit-tiny", or from, a checkpoint.');
    }
    return Trainer.#make(request, options);
  }

  /**
   * Goes on where {@link Trainer.save} was called, with the options that the save holds.
   *
   * @param save - what `save` gave
   * @throws {@link JepaError} `bad-checkpoint` when it is no save or damaged, and those of {@link Trainer.create}
   */
  static async resume(save: Uint8Array | ArrayBuffer | Blob, options: TrainerHost = {}): Promise<Trainer> {
    checkHost(options);
    const { backend = "auto", threads = "auto" } = options;
    oneOf("backend", backend, BACKENDS);
    if (!(save instanceof Blob || save instanceof Uint8Array || save instanceof ArrayBuffer)) {
      throw new JepaError("bad-input", `A trainer is resumed from the bytes of a save, as a Uint8Array, an ArrayBuffer or a Blob, not from ${shown(save)}.`);
    }
    return Trainer.#make({ kind: "save", backend, threads, file: blobOf(save) }, options);
  }

  /**
   * Goes on from the save in a store.
   *
   * @throws {@link JepaError} `bad-input` when there is none, and those of {@link Trainer.resume}
   */
  static async resumeFrom(store: SaveStore, options: TrainerHost = {}): Promise<Trainer> {
    checkHost(options);
    checkStore(store);
    return Trainer.resume(await saveIn(store), options);
  }

  static async #make(request: TrainRequest, options: TrainerHost & Pick<TrainerOptions, "cache">): Promise<Trainer> {
    const { worker = true, backend = "auto", threads = "auto", autosave, signal, onProgress, onLost, onRecovered } = options;
    const cache = customCache(options.cache);
    const make: Make<GlueTrainerInfo> = (engine, each) => engine.call("train", request, { ...each, cache });
    const again: Make<GlueTrainerInfo> = async (engine, each) => {
      const loaded = await (trainer.#begin?.(engine, each) ?? engine.call("train", { kind: "save", backend, threads, file: await saveIn(autosave!.store) }, each));
      trainer.#step = loaded.info.step;
      return loaded;
    };
    const settings = { worker, advice: autosave ? SAVED : TRAINER, again: autosave && again, signal, onProgress, onLost, onRecovered };
    const trainer = new Trainer(await Resident.settle(make, settings), options);
    if (autosave) trainer.#begin = make;
    return trainer;
  }

  private constructor(resident: Resident<GlueTrainerInfo>, { autosave, onWarning }: TrainerHost) {
    this.#resident = resident;
    this.#autosave = autosave && { ...autosave };
    this.#warn = isolated(onWarning);
    this.#step = resident.info.step;
  }

  /** What is known of this trainer, as of the last step. */
  get info(): TrainerInfo {
    return { ...this.#resident.info, step: this.#step };
  }

  /** What computes. */
  get backend(): Backend {
    return this.#resident.info.backend;
  }

  /** Threads that compute: more than 1 only on the CPU, in a worker of a cross-origin isolated page; see {@link LoadOptions.threads}. */
  get threads(): number {
    return this.#resident.threads;
  }

  /** Why `backend: "auto"` chose the CPU, as a sentence; undefined when it did not. */
  get fallbackReason(): string | undefined {
    return this.#resident.fallbackReason;
  }

  /** Why files of the checkpoint were not kept in the cache, or not read from it, as a sentence; undefined when nothing went wrong. */
  get cacheFailure(): string | undefined {
    return this.#resident.cacheFailure;
  }

  /** The geometry of the model. */
  get config(): ModelConfig {
    return this.#resident.info.config;
  }

  /** Patches along time, height and width. */
  get grid(): Grid {
    return [...this.#resident.info.grid];
  }

  /**
   * Takes one step.
   *
   * @param images - `batchSize · accumulate` pictures, clips of the model's number of frames, or windows; taken as they are when this is called
   * @throws {@link JepaError} `bad-mask`; `bad-input`, also when the loss or a gradient is no number any more: its tensor is named, and the trainer
   * is as it was before the step, so that it can be saved; `network`, `aborted`, `disposed`, `device-lost`, `out-of-memory`, `internal`
   */
  step(images: readonly ImageInput[] | readonly ClipInput[] | readonly ActionWindow[], options: StepOptions = {}): Promise<TrainMetrics> {
    const { signal, preprocess = true } = options;
    const capturing = async () => {
      checkFields("", options, { masks: anything, preprocess: aBoolean, signal: anObject });
      throwIfAborted(signal);
      const wanted = this.#picturesOfStep;
      if (!Array.isArray(images)) throw new JepaError("bad-input", `A step takes an array of ${wanted} pictures, not ${shown(images)}.`);
      if (images.length !== wanted) throw new JepaError("bad-input", `A step takes ${this.#picturesInWords}, not ${images.length}.`);
      const masks = options.masks && masksOf(options.masks);
      return { ...(await this.#captured(images, (i) => i, !preprocess)), masks, preprocess };
    };
    return this.#resident.callWith(capturing(), (engine, request: StepRequest) => this.#take(engine, request, signal), signal);
  }

  /**
   * Takes steps on a data set, one each time that the caller asks for the next metrics; leaving the loop ends the run.
   *
   * Which pictures a step takes follows from the seed and the number of steps taken, each epoch in another order. So a run that was
   * aborted, or resumed from a save, goes on with the pictures that come next. A step's pictures are all different, so that the data
   * set holds at least `batchSize · accumulate`; what does not fill a step is left out of its epoch.
   *
   * With `autosave` a run survives the loss of what computes: the steps since the last save are taken, and given, again. It rejects with
   * the code of the loss when that happens three times without a step beyond those that were taken before.
   *
   * @throws {@link JepaError} those of {@link Trainer.step}, and `bad-input` when the data set is too small or does not give a picture
   */
  async *run(dataset: TrainDataset, options: RunOptions = {}): AsyncGenerator<TrainMetrics, void, undefined> {
    checkFields("", options, { steps: whole(0), signal: anObject });
    const { signal } = options;
    const { steps, step } = this.info;
    const end = options.steps === undefined ? steps : step + options.steps;
    let furthest = step;
    let losses = 0;
    while (this.#step < end) {
      let metrics: TrainMetrics | undefined;
      try {
        metrics = await this.#stepOn(dataset, signal);
      } catch (error) {
        const ended = error instanceof JepaError && (error.code === "aborted" || error.code === "disposed");
        if (!this.#autosave || !this.#resident.isLost || ended || ++losses === MOST_LOSSES) throw error;
        continue;
      }
      if (!metrics) continue;
      if (metrics.step > furthest) [furthest, losses] = [metrics.step, 0];
      yield metrics;
    }
  }

  /** Undefined where the trainer is at another step by the time that the pictures are there: the next step takes others. */
  async #stepOn(dataset: TrainDataset, signal: AbortSignal | undefined): Promise<TrainMetrics | undefined> {
    throwIfAborted(signal);
    const length = this.#lengthOf(dataset);
    let step: number;
    const numbers = await this.#resident.call((engine, id) => {
      step = this.#step;
      return engine.call("indices", { id, length }, { signal });
    }, signal);
    const capturing = this.#captureNumbered(dataset, numbers);
    try {
      // Not inside of the queue: calls of other models go on while pictures are brought.
      await abortable(capturing, signal);
    } catch (error) {
      discardLater(capturing);
      throw error;
    }
    const task = async (engine: Engine, request: StepRequest) => {
      if (this.#step === step) return this.#take(engine, request, signal);
      request.pictures.forEach(discard);
      return undefined;
    };
    return this.#resident.callWith(capturing, task, signal);
  }

  #lengthOf(dataset: TrainDataset): number {
    const length: unknown = typeof dataset === "object" && dataset !== null ? dataset.length : undefined;
    if (!Number.isSafeInteger(length) || (length as number) < 0) throw new JepaError("bad-input", "A data set is an array of pictures, or { length, get(index) }.");
    if ((length as number) < this.#picturesOfStep) {
      const found = length === 0 ? "no picture" : length === 1 ? "1 picture" : `${length} pictures`;
      throw new JepaError("bad-input", `The data set has ${found}, and each step takes ${this.#picturesInWords}, all different: add pictures, or use a smaller batchSize.`);
    }
    return length as number;
  }

  /** Pictures, the frames of clips, or those of windows and their actions. */
  async #captured(images: readonly TrainSample[], number: Numbering, prepared: boolean): Promise<Pick<StepRequest, "pictures" | "frames" | "actions" | "states">> {
    const { frames } = this.#resident.info;
    const sizes = this.#told;
    if (sizes) return this.#windows(images as readonly ActionWindow[], sizes, number, prepared);
    if (frames === 1) return { pictures: await captureAll(images as readonly ImageInput[], number, prepared), frames };
    const captured = await captureList(images as readonly ClipInput[], number, prepared);
    if (captured.frames === frames) return captured;
    captured.pictures.forEach(discard);
    throw new JepaError("bad-input", `A clip of ${captured.frames} frames was given, and the model takes ${frames}.`);
  }

  /** What a world model is told of windows, in numbers of an action and of a state. */
  get #told(): { actionSize: number; stateSize: number } | undefined {
    const { objective, config } = this.#resident.info;
    if (config.lewm) return { actionSize: config.lewm.actionSize, stateSize: 0 };
    return objective === "vjepa2-ac" ? (config.predictor!.actions as { actionSize: number; stateSize: number }) : undefined;
  }

  async #windows(
    windows: readonly ActionWindow[],
    { actionSize, stateSize }: { actionSize: number; stateSize: number },
    number: Numbering,
    prepared: boolean,
  ): Promise<Required<Pick<StepRequest, "pictures" | "frames" | "actions" | "states">>> {
    const { frames } = this.#resident.info;
    const states: Float32Array[] = [];
    const blocks = windows.flatMap((window, i) => {
      const name = `Window ${number(i) ?? i}`;
      if (typeof window !== "object" || window === null || !("actions" in window) || !Array.isArray(window.frames) || !Array.isArray(window.actions)) {
        throw new JepaError("bad-input", `${name} is no window: give { frames, actions }, as windowsOf makes them.`);
      }
      if (window.frames.length !== frames || window.actions.length !== frames - 1) {
        throw new JepaError("bad-input", `${name} has ${window.frames.length} frames and ${window.actions.length} action blocks; the model takes ${frames} and ${frames - 1}.`);
      }
      // LeWorldModel is told none, but environments may give some.
      const told = stateSize > 0 ? (window.states ?? []) : [];
      if (stateSize > 0 && told.length !== frames) throw new JepaError("bad-input", `${name} has ${told.length} states; the model takes ${frames}, one in each frame.`);
      states.push(...told.map((state, n) => finite(sized(state, stateSize, `State ${n} of ${name.toLowerCase()}`), `State ${n} of ${name.toLowerCase()}`)));
      return window.actions.map((block, n) => sized(block, actionSize, `Action block ${n} of ${name.toLowerCase()}`));
    });
    const captured = await captureList(windows.map((window) => window.frames), number, prepared);
    return { ...captured, actions: joined(blocks), states: joined(states) };
  }

  /** The pictures, clips or windows of these numbers, and the numbers. */
  async #captureNumbered(dataset: TrainDataset, numbers: Uint32Array): Promise<Omit<StepRequest, "id">> {
    const images = await Promise.all(
      Array.from(numbers, async (number): Promise<TrainSample> => {
        try {
          return "get" in dataset ? await dataset.get(number) : dataset[number]!;
        } catch (error) {
          throw error instanceof JepaError ? error : new JepaError("bad-input", `Picture ${number} of the data set could not be had: ${messageOf(error)}`, { cause: error });
        }
      }),
    );
    return { ...(await this.#captured(images, (i) => numbers[i], false)), numbers, preprocess: true };
  }

  get #picturesOfStep(): number {
    const { batchSize, accumulate } = this.#resident.info;
    return batchSize * accumulate;
  }

  get #picturesInWords(): string {
    const { batchSize, accumulate } = this.#resident.info;
    return accumulate === 1 ? `batchSize = ${batchSize} pictures` : `batchSize · accumulate = ${batchSize} · ${accumulate} = ${batchSize * accumulate} pictures`;
  }

  async #take(engine: Engine, request: StepRequest, signal: AbortSignal | undefined): Promise<TrainMetrics> {
    const metrics: TrainMetrics = await engine.call("step", request, { signal });
    this.#step = metrics.step;
    if (metrics.warning !== undefined) this.#warn(metrics.warning, metrics);
    await this.#keep(engine, request.id);
    return metrics;
  }

  /** Saves, when it is time to. */
  async #keep(engine: Engine, id: number): Promise<void> {
    const { steps } = this.#resident.info;
    if (!this.#autosave || (this.#step % this.#autosave.every !== 0 && this.#step !== steps)) return;
    const { store, onError } = this.#autosave;
    const { file } = await engine.call("save", { id }, {});
    try {
      await store.write(file);
      this.#begin = undefined;
    } catch (error) {
      const failure = storeError("written", error);
      if (!onError) throw failure;
      isolated(onError)(failure);
    }
  }

  /** The masks of the last step: token indices in raster order, as {@link sampleMasks} gives them; empty where the objective has none. */
  lastMasks(): Promise<Masks> {
    return this.#resident.call((engine, id) => engine.call("masks", { id }, {}));
  }

  /**
   * Everything that the run needs to go on, as one safetensors file: weights, the state of the optimizer and of the random numbers,
   * the number of steps and the options.
   */
  async save(): Promise<Uint8Array<ArrayBuffer>> {
    const { file } = await this.#resident.call((engine, id) => engine.call("save", { id }, {}));
    return file;
  }

  /**
   * The trained model as files.
   *
   * @param layout - `"hf"`: the encoder in the Hugging Face layout. `"original"`: encoder, predictor and target encoder by the names of
   * the original project, which {@link Jepa.load} reads with its predictor
   */
  export(layout: "hf"): Promise<HuggingFaceFiles>;
  export(layout: "original"): Promise<Record<string, string | Uint8Array<ArrayBuffer>>>;
  async export(layout: "hf" | "original"): Promise<Record<string, string | Uint8Array<ArrayBuffer>>> {
    oneOf("layout", layout, ["hf", "original"]);
    const files = await this.#resident.call((engine, id) => engine.call("export", { id, layout }, {}));
    const text = new TextDecoder();
    return Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, name.endsWith(".json") ? text.decode(bytes) : bytes]));
  }

  /**
   * A model on the present weights: of the target encoder, or of the encoder that is trained where there is no other. Later steps do
   * not change it. It lives beside the trainer, in the same worker, and stays when the trainer is disposed of.
   */
  async model(): Promise<Jepa> {
    return Jepa.of(await this.#resident.sibling<GlueModelInfo>((engine, id) => engine.call("copy", { id }, {}), MODEL));
  }

  /**
   * The same as a world model, with everything that it has beside its encoder; of the objective `"lewm"`.
   *
   * @throws {@link JepaError} `unsupported` for other objectives
   */
  async world(): Promise<WorldModel> {
    return WorldModel.of(await this.#resident.sibling<GlueWorldInfo>((engine, id) => engine.call("worldCopy", { id }, {}), MODEL));
  }

  /** Gives back the trainer's memory and, where no model of it is left, its worker and GPU device. Calls in progress reject with `disposed`. May be called twice. */
  dispose(): Promise<void> {
    return this.#resident.dispose();
  }

  /** The same as {@link Trainer.dispose}, for `await using`. */
  [asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

const blobOf = (save: Uint8Array | ArrayBuffer | Blob): Blob => (save instanceof Blob ? save : new Blob([save as BlobPart]));

async function saveIn(store: SaveStore): Promise<Blob> {
  const save = await store.read().catch((error) => Promise.reject(storeError("read", error)));
  if (save === undefined) throw new JepaError("bad-input", "There is no save in this store: begin with Trainer.create.");
  return blobOf(save);
}

function storeError(what: "read" | "written", error: unknown): JepaError {
  return error instanceof JepaError ? error : new JepaError("bad-input", `The save could not be ${what} by its store: ${messageOf(error)}`, { cause: error });
}
