// A world model in this thread's wasm instance.

import { macrotask } from "./environment.js";
import type { GlueWorld, GlueWorldInfo } from "./glue.js";
import type { Instance } from "./instance.js";
import type { Check } from "./local-model.js";
import { fillBatch } from "./pictures.js";
import { numbersOf } from "./options.js";
import type { CallOptions, Calls, PlanRequest, RolloutRequest } from "./protocol.js";

/** Pictures that go through the encoder at once: aborts are looked at between them. */
const AT_ONCE = 16;

export class LocalWorld {
  readonly #instance: Instance;
  readonly #world: GlueWorld;
  readonly #check: Check;
  readonly info: GlueWorldInfo;

  constructor(instance: Instance, world: GlueWorld, check: Check) {
    this.#instance = instance;
    this.#world = world;
    this.#check = check;
    this.info = instance.call(() => world.info());
  }

  async encode({ pictures, preprocess }: Omit<Calls["encode"]["request"], "id">, signal: AbortSignal | undefined): Promise<{ data: Float32Array }> {
    const size = numbersOf(this.info.shape);
    const data = new Float32Array(pictures.length * size);
    for (let start = 0; start < pictures.length; start += AT_ONCE) {
      await this.#turn(signal);
      const batch = await fillBatch(this.#instance, pictures.slice(start, start + AT_ONCE), {
        open: () => this.#world.newBatch(preprocess),
        check: () => this.#check(signal),
        signal,
        number: (i) => (pictures.length > 1 ? start + i : undefined),
      });
      data.set(await this.#instance.run(() => this.#world.encode(batch)), start * size);
    }
    this.#check(signal);
    return { data };
  }

  async rollout({ embeddings, past, states, actions, told, count, horizon }: Omit<RolloutRequest, "id">, signal: AbortSignal | undefined): Promise<{ data: Float32Array }> {
    const turn = () => this.#turn(signal);
    return { data: await this.#instance.run(() => this.#world.rollout(embeddings, past, states, actions, told, count, horizon, turn)) };
  }

  async plan({ embeddings, past, states, goal, options }: Omit<PlanRequest, "id">, signal: AbortSignal | undefined, onRound: CallOptions["onRound"]): Promise<Calls["plan"]["result"]> {
    const turn = () => this.#turn(signal);
    await turn();
    return this.#instance.run(() => this.#world.plan(embeddings, past, states, goal, options, turn, onRound && ((samples, costs) => onRound({ samples, costs }))));
  }

  /** An abort or a paint that has been waiting gets its turn. */
  async #turn(signal: AbortSignal | undefined): Promise<void> {
    await macrotask();
    this.#check(signal);
  }

  free(): void {
    this.#world.free();
  }
}
