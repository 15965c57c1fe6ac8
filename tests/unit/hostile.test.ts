// Files that claim to be huge, with the real CPU module: nothing is made room for before it is there. npm run build:wasm cpu

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { crc32 } from "node:zlib";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import type { Jepa } from "../../www/src/index.js";
import { freshLibrary } from "./real-module.js";

/** How much memory a refusal may cost: the module's own, which never gets smaller, and that of buffers in JavaScript. */
const WASM = 2 << 20;
const BUFFERS = 16 << 20;

const corpus = (name: string) => Buffer.from(readFileSync(fileURLToPath(new URL(`../../fuzz/corpus/${name}`, import.meta.url))));
const CONFIG = { imageSize: 2, patchSize: 1, channels: 1, hiddenSize: 4, layers: 1, heads: 1, mlpRatio: 0.25, predictor: null };
const cpu = { backend: "cpu" } as const;

let library: Awaited<ReturnType<typeof freshLibrary>>;
let jepa: Jepa;
beforeAll(async () => {
  library = await freshLibrary();
  jepa = await library.Jepa.load({ "model.safetensors": corpus("checkpoint/original") }, { config: CONFIG, ...cpu });
});
afterAll(async () => {
  await jepa?.dispose();
  vi.restoreAllMocks();
});

function safetensors(header: object, length?: bigint): Uint8Array<ArrayBuffer> {
  const json = Buffer.from(JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length ?? BigInt(json.length));
  return new Uint8Array(Buffer.concat([prefix, json, Buffer.alloc(64)]));
}

/** The header of a file, changed, before the rest of it. */
function changed(file: Buffer, change: (json: string) => string): Uint8Array<ArrayBuffer> {
  const end = 8 + Number(file.readBigUInt64LE(0));
  const json = Buffer.from(change(file.subarray(8, end).toString()));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  return new Uint8Array(Buffer.concat([prefix, json, file.subarray(end)]));
}

/** A PyTorch archive with another number where `at` finds it. */
function archive(at: (file: Buffer) => number, value: number): Uint8Array<ArrayBuffer> {
  const file = corpus("pytorch/original");
  file.writeUInt32LE(value, at(file));
  return new Uint8Array(file);
}
const endOf = (file: Buffer) => file.lastIndexOf("PK\x05\x06");
const firstOf = (file: Buffer) => file.indexOf("PK\x01\x02");

/** The start of a PNG of this size, and a few bytes of pixels. */
function png(width: number, height: number): Blob {
  const chunk = (name: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(name), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const size = Buffer.alloc(13);
  size.writeUInt32BE(width, 0);
  size.writeUInt32BE(height, 4);
  size.set([8, 6, 0, 0, 0], 8);
  return new Blob([Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), chunk("IHDR", size), chunk("IDAT", Buffer.from("789c030000000001", "hex")), chunk("IEND", Buffer.alloc(0))])]);
}

/** A JPEG with another size in its frame header. */
function jpeg(height: number, width: number): Blob {
  const file = corpus("picture/jpeg");
  const frame = file.indexOf(Buffer.from([0xff, 0xc0]));
  file.writeUInt16BE(height, frame + 5);
  file.writeUInt16BE(width, frame + 7);
  return new Blob([file]);
}

const load = (file: Uint8Array<ArrayBuffer>, config: object = CONFIG) => library.Jepa.load({ [file[0] === 0x50 ? "model.pt" : "model.safetensors"]: file }, { config: config as never, ...cpu });
const huge = { dtype: "F32", shape: [1 << 20, 1 << 20], data_offsets: [0, 2 ** 42] };

it.each<[string, () => Promise<unknown>, string]>([
  ["a header of a terabyte", () => load(safetensors({}, 1n << 40n)), "bad-checkpoint"],
  ["a header of 90 megabytes that are not there", () => load(safetensors({}, 90_000_000n)), "bad-checkpoint"],
  ["a tensor of terabytes", () => load(safetensors({ "patch_embed.proj.weight": huge })), "bad-checkpoint"],
  ["tensors whose sizes overflow", () => load(safetensors({ a: { dtype: "F32", shape: [2 ** 32, 2 ** 32], data_offsets: [0, 64] } })), "bad-checkpoint"],
  ["an archive with a directory of gigabytes", () => load(archive((file) => endOf(file) + 12, 0xfffffff0)), "bad-checkpoint"],
  ["an archive whose pickle has gigabytes", () => load(archive((file) => firstOf(file) + 24, 0xfffffff0)), "unsupported"],
  ["an archive whose pickle is stored as gigabytes", () => load(archive((file) => firstOf(file) + 20, 0xfffffff0)), "unsupported"],
  ["a configuration of 50 gigabytes", () => load(new Uint8Array(corpus("checkpoint/original")), { ...CONFIG, hiddenSize: 4096, heads: 8, layers: 64, mlpRatio: 4 }), "bad-config"],
  ["a configuration of 4 gigabytes", () => load(new Uint8Array(corpus("checkpoint/original")), { ...CONFIG, hiddenSize: 2048, heads: 8, layers: 20, mlpRatio: 4 }), "shape-mismatch|missing-tensor"],
  ["a PNG with more pixels than anybody has", () => jepa.embed(png(60_000, 60_000)), "bad-input"],
  ["a PNG with as many pixels as are allowed, which are not there", () => jepa.embed(png(13_000, 13_000)), "bad-input"],
  ["a JPEG with more pixels than anybody has", () => jepa.embed(jpeg(65_535, 65_535)), "bad-input"],
  ["a save of a model of gigabytes", () => library.Trainer.resume(changed(corpus("save/ijepa"), (json) => json.replace(/\\"hiddenSize\\":4,/, '\\"hiddenSize\\":32768,')), cpu), "bad-c|shape-mismatch"],
  ["a save with a tensor of terabytes", () => library.Trainer.resume(changed(corpus("save/ijepa"), (json) => json.replace(/"shape":\[[^\]]*\]/, '"shape":[1099511627776]')), cpu), "bad-checkpoint"],
  ["a save of more steps than can be counted", () => library.Trainer.resume(changed(corpus("save/ijepa"), (json) => json.replace(/\\"step\\":\d+/, '\\"step\\":9007199254740993')), cpu), "bad-checkpoint"],
  ["a probe with a tensor of terabytes", () => library.AttentiveProbe.load(changed(corpus("probe/fitted"), (json) => json.replace(/"shape":\[[^\]]*\]/, '"shape":[1048576,1048576]')), cpu), "bad-checkpoint"],
])("%s is refused, and costs no memory", async (_, read, code) => {
  const memory = library.memories.at(-1)!;
  const before = { wasm: memory.buffer.byteLength, buffers: process.memoryUsage().arrayBuffers };
  const error = await read().then(() => expect.unreachable("it should have been refused"), (error) => error);
  expect(error).toMatchObject({ name: "JepaError", code: expect.stringMatching(new RegExp(`^(${code})`)) });
  expect(library.memories.at(-1)).toBe(memory);
  expect(memory.buffer.byteLength - before.wasm).toBeLessThan(WASM);
  expect(process.memoryUsage().arrayBuffers - before.buffers).toBeLessThan(BUFFERS);
});

it.each(["checkpoint/original", "pytorch/original", "save/lora", "probe/fitted"])("a file that is cut off is refused, whatever the byte: %s", { timeout: 120_000 }, async (name) => {
  const file = new Uint8Array(corpus(name));
  const memory = library.memories.at(-1);
  const read = (bytes: Uint8Array<ArrayBuffer>): Promise<{ dispose(): Promise<void> }> => {
    if (name.startsWith("save")) return library.Trainer.resume(bytes, cpu);
    if (name.startsWith("probe")) return library.AttentiveProbe.load(bytes, cpu);
    return library.Jepa.load({ [name.startsWith("pytorch") ? "model.pt" : "model.safetensors"]: bytes }, { config: CONFIG, ...cpu });
  };
  await (await read(file)).dispose();
  // The last two bytes of an archive are the length of a comment, which nobody reads.
  const end = file.length - (name.startsWith("pytorch") ? 2 : 0);
  for (let length = 0; length < end; length++) {
    const outcome = await read(file.slice(0, length)).then(() => "read", ({ code }) => code);
    expect(outcome, `${length} bytes`).toBe("bad-checkpoint");
  }
  expect(library.memories.at(-1)).toBe(memory);
});
