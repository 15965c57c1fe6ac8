// A trainer in this thread's wasm instance.

import { frameNumbering } from "./clips.js";
import { macrotask } from "./environment.js";
import type { GlueModel, GlueTrainer, GlueTrainerInfo, GlueWorld } from "./glue.js";
import type { Instance } from "./instance.js";
import type { Check } from "./local-model.js";
import type { Masks } from "./masks.js";
import { fillBatch } from "./pictures.js";
import type { StepRequest, TimedStep } from "./protocol.js";

export class LocalTrainer {
  readonly #instance: Instance;
  readonly #trainer: GlueTrainer;
  readonly #check: Check;
  readonly info: GlueTrainerInfo;

  constructor(instance: Instance, trainer: GlueTrainer, check: Check) {
    this.#instance = instance;
    this.#trainer = trainer;
    this.#check = check;
    this.info = instance.call(() => trainer.info());
  }

  indices(length: number): Uint32Array {
    return this.#instance.call(() => this.#trainer.nextIndices(length));
  }

  async step({ pictures, frames, masks, actions, states, preprocess, numbers }: Omit<StepRequest, "id">, signal: AbortSignal | undefined): Promise<TimedStep> {
    // An abort or a paint that has been waiting gets its turn between steps.
    await macrotask();
    const start = performance.now();
    const batch = await fillBatch(this.#instance, pictures, {
      open: () => this.#trainer.newBatch(preprocess),
      check: () => this.#check(signal),
      signal,
      number: frameNumbering((i) => numbers?.[i] ?? i, frames),
    });
    const { warning, ...step } = await this.#instance.run(() => this.#trainer.step(batch, masks, actions, states));
    return { ...step, ...(warning ? { warning } : {}), ms: performance.now() - start };
  }

  masks(): Masks {
    return this.#instance.call(() => this.#trainer.lastMasks());
  }

  async save(): Promise<{ file: Uint8Array<ArrayBuffer> }> {
    return { file: await this.#instance.run(() => this.#trainer.save()) };
  }

  export(layout: "hf" | "original"): Promise<Record<string, Uint8Array<ArrayBuffer>>> {
    return this.#instance.run(() => this.#trainer.export(layout));
  }

  copy(): Promise<GlueModel> {
    return this.#instance.run(() => this.#trainer.model());
  }

  worldCopy(): Promise<GlueWorld> {
    return this.#instance.run(() => this.#trainer.world());
  }

  free(): void {
    this.#trainer.free();
  }
}
