import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Jepa, type ImageInput, type PredictOptions } from "../../www/src/index.js";
import { CONFIG, coded, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

const SIZES = { weight: 100, predictor: 7 };
const SOURCE = { "config.json": CONFIG, "model.safetensors": safetensors(SIZES) };
const HASH = hashOf(SIZES);

const load = () => Jepa.load(SOURCE, { backend: "cpu" });
const flat = (value: number): ImageInput => ({ data: new Uint8Array(3).fill(value), width: 1, height: 1, channels: 3 });
const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the call should have failed"), (error) => error);
const masks = { context: [0], targets: [[1], [2]] };

beforeEach(resetFake);
afterEach(() => expect([...fake.alive]).toEqual([]));

describe("predict", () => {
  it("gives prediction, target and error of each token of each block", async () => {
    await using jepa = await load();
    const { predicted, target, error } = await jepa.predict(flat(7), { context: Uint32Array.of(0), targets: [Uint32Array.of(1, 3), [2, 0]] });
    expect(predicted).toEqual({ data: new Float32Array(16).fill(HASH), shape: [2, 2, 4] });
    expect(target).toEqual({ data: Float32Array.from([8, 10, 9, 7].flatMap((value) => [value, value, value, value])), shape: [2, 2, 4] });
    expect(error).toEqual(Float32Array.of(HASH - 8, HASH - 10, HASH - 9, HASH - 7));
  });

  it("takes masks and picture as they are when it is called", async () => {
    await using jepa = await load();
    let open!: () => void;
    fake.faults.embed = () => new Promise((resolve) => (open = resolve));
    const first = jepa.embed(flat(1));
    const [block, data] = [Uint32Array.of(1), new Uint8Array([5, 5, 5])];
    const second = jepa.predict({ data, width: 1, height: 1, channels: 3 }, { context: [0], targets: [block] });
    await vi.waitFor(() => expect(fake.batches).toEqual([1]));
    block.fill(3);
    data.fill(99);
    open();
    await first;
    expect((await second).target.data[0]).toBe(6);
  });

  it("takes a prepared picture", async () => {
    await using jepa = await load();
    const data = new Float32Array(32 * 32 * 3).fill(-2);
    expect((await jepa.predict({ data, width: 32, height: 32, channels: 3 }, { ...masks, preprocess: false })).target.data[0]).toBe(-1);
    expect(await failure(jepa.predict(flat(1), { ...masks, preprocess: false }))).toMatchObject({ code: "bad-input" });
  });

  it.each([
    ["no context", { context: [], targets: [[1]] }, /context has no token/],
    ["no block", { context: [0], targets: [] }, /at least one block/],
    ["an empty block", { context: [0], targets: [[1], []] }, /targets\[1\] has no token/],
    ["blocks of different lengths", { context: [0], targets: [[1], [2, 3]] }, /1, 2 tokens/],
    ["an index outside of the grid", { context: [0], targets: [[1], [4]] }, /targets\[1\] names token 4; .* 0 to 3/],
    ["a negative index", { context: [-1], targets: [[1]] }, /token -1/],
    ["an index that is no whole number", { context: [0.5], targets: [[1]] }, /token 0\.5/],
    ["an index that is no number", { context: ["0"], targets: [[1]] }, /token "0"/],
    ["a hole", { context: [0, , 1], targets: [[1]] }, /token undefined/],
    ["the same token twice", { context: [0, 0], targets: [[1]] }, /twice/],
    ["a flat list of targets", { context: [0], targets: [1, 2] }, /targets\[0\] is a Uint32Array/],
    ["targets that are no array", { context: [0], targets: Uint32Array.of(1) }, /array of blocks/],
    ["no masks", {}, /array of blocks/],
  ])("refuses %s, and then still works", async (_, options, message) => {
    await using jepa = await load();
    expect(await failure(jepa.predict(flat(1), options as PredictOptions))).toMatchObject({ name: "JepaError", code: "bad-mask", message: expect.stringMatching(message) });
    expect((await jepa.predict(flat(3), masks)).target.data[0]).toBe(4);
  });

  it("refuses what is no picture, and then still works", async () => {
    await using jepa = await load();
    expect(await failure(jepa.predict([flat(1)] as unknown as ImageInput, masks))).toMatchObject({ code: "bad-input" });
    expect((await jepa.predict(flat(3), masks)).target.data[0]).toBe(4);
  });

  it("needs a predictor", async () => {
    await using bare = await Jepa.load({ "config.json": CONFIG, "model.safetensors": safetensors({ weight: 100 }) }, { backend: "cpu" });
    expect(await failure(bare.predict(flat(1), masks))).toMatchObject({ code: "unsupported", message: expect.stringContaining("no predictor") });
    await using without = await Jepa.load(SOURCE, { backend: "cpu", predictor: false });
    expect(await failure(without.predict(flat(1), masks))).toMatchObject({ code: "unsupported", message: expect.stringContaining("predictor: false") });
    expect(fake.options.map(({ predictor }) => predictor)).toEqual([true, false]);
    expect(await failure(Jepa.load(SOURCE, { predictor: true as never }))).toMatchObject({ code: "bad-input", message: expect.stringContaining('"auto", false') });
  });

  it("can be aborted, and leaves the model usable", async () => {
    await using jepa = await load();
    const reason = new Error("enough");
    expect(await failure(jepa.predict(flat(1), { ...masks, signal: AbortSignal.abort(reason) }))).toMatchObject({ code: "aborted", cause: reason });
    const controller = new AbortController();
    let open!: () => void;
    fake.faults.predict = () => {
      controller.abort(reason);
      return new Promise((resolve) => (open = resolve));
    };
    expect(await failure(jepa.predict(flat(1), { ...masks, signal: controller.signal }))).toMatchObject({ code: "aborted", cause: reason });
    fake.faults = {};
    open();
    expect((await jepa.predict(flat(3), masks)).target.data[0]).toBe(4);
  });

  it("answers in its turn among other calls, and not after disposal", async () => {
    const jepa = await load();
    const order: string[] = [];
    await Promise.all([
      jepa.embed(flat(1)).then(() => order.push("embed")),
      jepa.predict(flat(1), masks).then(() => order.push("predict")),
      jepa.embed(flat(1)).then(() => order.push("embed")),
    ]);
    expect(order).toEqual(["embed", "predict", "embed"]);
    await jepa.dispose();
    expect(await failure(jepa.predict(flat(1), masks))).toMatchObject({ code: "disposed" });
  });

  it("loads the model again after a crash", async () => {
    await using jepa = await load();
    fake.faults.predict = async () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(await failure(jepa.predict(flat(1), masks))).toMatchObject({ code: "internal", message: expect.stringContaining("The next call loads the model again") });
    fake.faults.predict = async () => {
      throw coded("bad-mask", "no");
    };
    expect(await failure(jepa.predict(flat(1), masks))).toMatchObject({ code: "bad-mask", message: "no" });
    fake.faults = {};
    expect((await jepa.predict(flat(3), masks)).target.data[0]).toBe(4);
  });
});
