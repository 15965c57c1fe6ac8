import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Jepa, opfsCache, type CustomCache, type LoadOptions, type ModelSource, type Progress } from "../../www/src/index.js";
import { coverage } from "../../www/src/cache.js";
import { ChannelWorker } from "./channel-worker.js";
import { WorkerEngine } from "../../www/src/client.js";
import { loadRequest } from "../../www/src/load-options.js";
import { FakeFolder } from "./fake-folder.js";
import { CONFIG, fake, hashOf, resetFake, safetensors } from "./fake-glue.js";
import { startServer, type TestServer } from "./server.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

/** Longer than two pieces, and with a gap that is skipped. */
const SIZES = { first: 9_000_000, "skip.gap": 6_000_000, second: 3_000_001 };
const FILE = safetensors(SIZES);
const WEIGHTS = hashOf(SIZES);
const OTHER = { first: 9_000_000, "skip.gap": 6_000_000, second: 3_000_000, third: 1 };
const PIXEL = { data: new Uint8Array([10, 20, 30]), width: 1, height: 1, channels: 3 };
const FULL = new DOMException("full", "QuotaExceededError");

const sri = (file: string | Uint8Array, algorithm = "sha256") => `${algorithm}-${createHash(algorithm).update(file).digest("base64")}`;

let server: TestServer;
beforeAll(async () => void (server = await startServer()));
afterAll(() => server.close());

let cache: Map<string, Uint8Array<ArrayBuffer>>;
beforeEach(() => {
  resetFake();
  cache = new Map();
  server.files.clear();
  server.faults.clear();
  server.requests.length = 0;
  server.files.set("m/config.json", CONFIG);
  server.files.set("m/model.safetensors", FILE);
});
afterEach(() => {
  vi.unstubAllGlobals();
  expect([...fake.alive]).toEqual([]);
});

interface Outcome {
  weights: number;
  failure: string | undefined;
  /** `fromCache` of the last report of each file. */
  fromCache: boolean[];
}

async function load(options: LoadOptions = {}, source: ModelSource = `${server.url}m`): Promise<Outcome> {
  const last = new Map<string, boolean>();
  const onProgress = ({ phase, file, fromCache }: Progress) => phase === "download" && last.set(file, fromCache);
  await using jepa = await Jepa.load(source, { backend: "cpu", cache, onProgress, ...options });
  const { data } = await jepa.embed(PIXEL);
  return { weights: data[0]!, failure: jepa.cacheFailure, fromCache: [...last.values()] };
}

const failure = (promise: Promise<unknown>) => promise.then(() => expect.unreachable("the load should have failed"), (error) => error);
const down = () => vi.stubGlobal("fetch", async () => Promise.reject(new TypeError("there is no network")));
const rangesOf = (path: string) => server.requests.filter((request) => request.path === path).map(({ range }) => range);

/** Everything that pieces in a cache say of a file, against the file itself. */
function expectSound(url: string, file: Uint8Array) {
  for (const [key, bytes] of cache) {
    const [, begin, end] = /#(\d+)-(\d+)$/.exec(key) ?? [];
    if (key.startsWith(`${url}#`)) expect(Buffer.compare(bytes, file.subarray(Number(begin), Number(end))), key).toBe(0);
  }
}

describe("a cache of the caller's", () => {
  it("has everything that a second load needs, with the server down", async () => {
    expect(await load()).toEqual({ weights: WEIGHTS, failure: undefined, fromCache: [false] });
    expectSound(`${server.url}m/model.safetensors`, FILE);
    down();
    expect(await load()).toEqual({ weights: WEIGHTS, failure: undefined, fromCache: [true] });
  });

  it("asks the server nothing for what is kept", async () => {
    await load();
    server.requests.length = 0;
    await load();
    expect(server.requests).toEqual([]);
  });

  it("keeps only the ranges that were read, and says which", async () => {
    await load();
    const record = JSON.parse(new TextDecoder().decode(cache.get(`${server.url}m/model.safetensors`)));
    expect(record.size).toBe(FILE.length);
    const kept = coverage(record.pieces);
    expect(kept).toBeGreaterThan(12_000_001);
    expect(kept).toBeLessThan(FILE.length - 4_000_000);
    expect(kept).toBe([...cache].filter(([key]) => key.includes("safetensors#")).reduce((sum, [, { length }]) => sum + length, 0));
  });

  it("fills the gap that a load with a hash needs, and asks for nothing else", async () => {
    await load();
    server.requests.length = 0;
    expect(await load({ integrity: { "model.safetensors": sri(FILE) } })).toMatchObject({ weights: WEIGHTS, fromCache: [false] });
    const header = FILE.length - 18_000_001;
    expect(rangesOf("m/model.safetensors")).toEqual([expect.stringMatching(/^bytes=9\d{6}-$/)]);
    expect(Number(rangesOf("m/model.safetensors")[0]!.slice(6, -1))).toBeGreaterThanOrEqual(header + 9_000_000);
    down();
    expect(await load({ integrity: { "model.safetensors": sri(FILE) } })).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
    expectSound(`${server.url}m/model.safetensors`, FILE);
  });

  it.each([
    ["without ranges", { noRanges: true }],
    ["without ranges and lengths", { noRanges: true, chunked: true }],
    ["whose connections break", { cutAfter: 2_500_000 }],
  ])("works with a server %s", async (_, fault) => {
    server.faults.set("m/model.safetensors", fault);
    expect(await load()).toMatchObject({ weights: WEIGHTS });
    expectSound(`${server.url}m/model.safetensors`, FILE);
    down();
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
  });

  it.each([1, 7, 8, 20, 200, 1_000_000, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 9_000_100])("takes a download up that broke off after %i bytes", async (cut) => {
    // Without the server's help: every attempt of the first load ends at the same byte.
    server.faults.set("m/model.safetensors", { noRanges: true, cutAfter: cut });
    const giveUp = { signal: AbortSignal.timeout(1500) };
    expect(await failure(load(giveUp))).toMatchObject({ code: "aborted" });
    await vi.waitFor(() => expect(coverage(JSON.parse(new TextDecoder().decode(cache.get(`${server.url}m/model.safetensors`))).pieces)).toBe(cut));
    server.faults.clear();
    server.requests.length = 0;
    expect(await load()).toMatchObject({ weights: WEIGHTS, failure: undefined });
    expect(rangesOf("m/model.safetensors")[0]).toBe(`bytes=${cut}-`);
    expectSound(`${server.url}m/model.safetensors`, FILE);
    down();
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
  });

  it("starts again when the file has changed since a download broke off", async () => {
    server.faults.set("m/model.safetensors", { noRanges: true, cutAfter: 5_000_000, etag: () => '"1"' });
    await failure(load({ signal: AbortSignal.timeout(1500) }));
    await vi.waitFor(() => expect(cache.size).toBeGreaterThan(3));
    server.files.set("m/model.safetensors", safetensors(OTHER));
    server.faults.set("m/model.safetensors", { etag: () => '"2"' });
    expect(await load()).toMatchObject({ weights: hashOf(OTHER) });
    down();
    expect(await load()).toMatchObject({ weights: hashOf(OTHER), fromCache: [true] });
  });

  it("is shared by loads at once", async () => {
    const loads = await Promise.all(Array.from({ length: 4 }, () => load()));
    for (const { weights } of loads) expect(weights).toBe(WEIGHTS);
    expectSound(`${server.url}m/model.safetensors`, FILE);
    down();
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
  });

  it("gets a file again when a piece is gone or damaged", async () => {
    await load();
    const [piece, other] = [...cache.keys()].filter((key) => key.includes("safetensors#"));
    cache.delete(piece!);
    cache.set(other!, new Uint8Array(3));
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [false] });
    down();
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
  });

  it("forgets files that are no good, and asks for others", async () => {
    server.files.set("m/model.safetensors", new Uint8Array(100).fill(255));
    expect(await failure(load())).toMatchObject({ code: "bad-checkpoint" });
    expect([...cache.keys()]).toEqual([]);
    server.files.set("m/model.safetensors", FILE);
    await load();
    cache.set(`${server.url}m/config.json`, new TextEncoder().encode(JSON.stringify({ url: `${server.url}m/config.json`, absent: true, pieces: [] })));
    const head = [...cache.keys()].find((key) => key.includes("safetensors#0-"))!;
    cache.get(head)!.fill(255, 0, 8);
    cache.delete(`${server.url}m/config.json`);
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [false] });
  });

  it.each(["get", "set", "delete"] as const)("is done without when %s fails, and the model says why", async (method) => {
    const broken: CustomCache = { get: (key) => cache.get(key), set: (key, value) => cache.set(key, value), delete: (key) => cache.delete(key) };
    broken[method] = () => Promise.reject(new Error("the disk is gone"));
    const outcome = await load({ cache: broken });
    expect(outcome.weights).toBe(WEIGHTS);
    expect(outcome.failure).toEqual(method === "delete" ? undefined : expect.stringContaining("the disk is gone"));
  });

  it("may fill up at any moment", async () => {
    for (let moment = 0; moment < 7; moment++) {
      cache.clear();
      let left = moment;
      const small: CustomCache = {
        get: (key) => cache.get(key),
        set(key, value) {
          if (left-- <= 0) throw FULL;
          cache.set(key, value);
        },
        delete: (key) => cache.delete(key),
      };
      const { weights, failure } = await load({ cache: small });
      expect(weights).toBe(WEIGHTS);
      expect(failure).toMatch(/no space left/);
      // What did fit is of use, and right.
      expect(await load()).toMatchObject({ weights: WEIGHTS, failure: undefined });
    }
  });

  it("is asked across the border of a worker", async () => {
    ChannelWorker.started = [];
    vi.stubGlobal("Worker", ChannelWorker);
    const request = loadRequest(`${server.url}m`, { backend: "cpu", cache });
    for (const kept of [false, true]) {
      const engine = new WorkerEngine();
      const seen: boolean[] = [];
      const { cacheFailure } = await engine.call("load", request, { cache, onProgress: ({ phase, fromCache }) => phase === "download" && seen.push(fromCache) });
      expect(cacheFailure).toBeUndefined();
      expect(seen.at(-1)).toBe(kept);
      engine.close();
      expectSound(`${server.url}m/model.safetensors`, FILE);
    }
    const engine = new WorkerEngine();
    const { cacheFailure } = await engine.call("load", request, { cache: { get: () => undefined, set: () => Promise.reject(FULL), delete() {} } });
    expect(cacheFailure).toMatch(/no space left/);
    engine.close();
    await new Promise((resolve) => setTimeout(resolve, 20));
    fake.alive.clear();
  });
});

describe("the cache in the origin private file system", () => {
  let folder: FakeFolder;
  beforeEach(() => {
    folder = new FakeFolder();
    vi.stubGlobal("navigator", { storage: { getDirectory: async () => folder.handle, estimate: async () => ({ usage: folder.used, quota: 1e9 }) } });
  });

  it("keeps a model, and shows and deletes it", async () => {
    server.files.set("n/config.json", CONFIG);
    server.files.set("n/model.safetensors", safetensors({ weight: 100 }));
    await load({ cache: "opfs" });
    await load({ cache: "opfs" }, `${server.url}n`);
    const entries = await opfsCache().entries();
    expect(entries.map(({ url }) => url.slice(server.url.length))).toEqual(["m/config.json", "m/model.safetensors", "n/config.json", "n/model.safetensors"]);
    expect(entries[0]).toMatchObject({ size: CONFIG.length, bytes: CONFIG.length });
    const { bytes, usage, quota } = await opfsCache().estimate();
    expect(bytes).toBe(entries.reduce((sum, entry) => sum + entry.bytes, 0));
    expect(usage).toBeGreaterThanOrEqual(bytes);
    expect(quota).toBe(1e9);
    await opfsCache().delete(`${server.url}m`);
    expect((await opfsCache().entries()).map(({ url }) => url.slice(server.url.length))).toEqual(["n/config.json", "n/model.safetensors"]);
    await opfsCache().delete(`${server.url}n/model.safetensors`);
    expect(await opfsCache().entries()).toHaveLength(1);
    await opfsCache().delete();
    expect(await opfsCache().entries()).toEqual([]);
    expect(folder.used).toBe(0);
  });

  it("needs no server afterwards", async () => {
    await load({ cache: "opfs" });
    down();
    expect(await load({ cache: "opfs" })).toEqual({ weights: WEIGHTS, failure: undefined, fromCache: [true] });
  });

  it("does without when the disk is full", async () => {
    folder.capacity = 9_000_000;
    const { weights, failure } = await load({ cache: "opfs" });
    expect(weights).toBe(WEIGHTS);
    expect(failure).toMatch(/no space left/);
    folder.capacity = Infinity;
    expect(await load({ cache: "opfs" })).toMatchObject({ weights: WEIGHTS, failure: undefined });
  });

  it("is sound whenever the power goes", async () => {
    for (let moment = 0; moment < 24; moment += 3) {
      folder = new FakeFolder();
      folder.operations = moment;
      expect(await load({ cache: "opfs" })).toMatchObject({ weights: WEIGHTS });
      folder.operations = Infinity;
      expect(await load({ cache: "opfs" }), `moment ${moment}`).toMatchObject({ weights: WEIGHTS, failure: undefined });
    }
  });

  it("says where there is none, and the load goes on", async () => {
    vi.unstubAllGlobals();
    const outcome = await load({ cache: "opfs" });
    expect(outcome).toMatchObject({ weights: WEIGHTS, failure: expect.stringContaining("private file system") });
    expect(await failure(opfsCache().entries())).toMatchObject({ name: "JepaError", code: "unsupported" });
  });
});

describe("integrity", () => {
  const name = "model.safetensors";
  const files = { "config.json": CONFIG, [name]: FILE };

  it.each(["sha256", "sha384", "sha512"])("accepts a file with its %s, from a server, from memory and from a disk", async (algorithm) => {
    const integrity = { [name]: sri(FILE, algorithm), "config.json": sri(CONFIG, algorithm) };
    const folder = await mkdtemp(join(tmpdir(), "webjepa-"));
    for (const [file, content] of Object.entries(files)) await writeFile(join(folder, file), content);
    for (const source of [`${server.url}m`, files, folder]) {
      expect(await load({ integrity, cache: "none" }, source)).toMatchObject({ weights: WEIGHTS });
      const wrong = await failure(load({ integrity: { [name]: sri("other", algorithm) }, cache: "none" }, source));
      expect(wrong).toMatchObject({ name: "JepaError", code: "integrity" });
      for (const words of [name, sri(FILE, algorithm), sri("other", algorithm)]) expect(wrong.message).toContain(words);
    }
    await rm(folder, { recursive: true });
  });

  it("counts the strongest of several hashes, any of them", async () => {
    const of = (...hashes: string[]) => load({ integrity: { [name]: hashes.join("  ") }, cache: "none" });
    expect(await of(sri("x"), sri(FILE))).toMatchObject({ weights: WEIGHTS });
    expect(await of(sri("x"), sri(FILE, "sha384"))).toMatchObject({ weights: WEIGHTS });
    expect(await failure(of(sri(FILE), sri("x", "sha512")))).toMatchObject({ code: "integrity" });
  });

  it("notices a single bit, also in bytes that no tensor has", async () => {
    for (const at of [9, 5_000_000, 12_000_000, FILE.length - 1]) {
      const damaged = FILE.slice();
      damaged[at]! ^= 1;
      server.files.set(`m/${name}`, damaged);
      expect(await failure(load({ integrity: { [name]: sri(FILE) }, cache: "none" })), `byte ${at}`).toMatchObject({ code: "integrity" });
    }
    server.files.set(`m/${name}`, FILE.subarray(0, -1));
    expect(await failure(load({ integrity: { [name]: sri(FILE) }, cache: "none" }))).toMatchObject({ code: "integrity" });
  });

  it("checks the small files", async () => {
    expect(await failure(load({ integrity: { "config.json": sri("{}") } }))).toMatchObject({ code: "integrity", message: expect.stringContaining("config.json") });
  });

  it("checks every shard and the index", async () => {
    const shards = { "a.safetensors": safetensors({ first: 1000 }), "b.safetensors": safetensors({ "skip.b": 500, second: 2000 }), "c.safetensors": safetensors({ "skip.c": 9 }) };
    const index = JSON.stringify({ weight_map: { first: "a.safetensors", second: "b.safetensors", "skip.c": "c.safetensors" } });
    const source = { "config.json": CONFIG, "model.safetensors.index.json": index, ...shards };
    const integrity: Record<string, string> = Object.fromEntries(Object.entries(source).map(([file, content]) => [file, sri(content)]));
    const { weights } = await load({}, source);
    expect(await load({ integrity }, source)).toMatchObject({ weights });
    for (const file of Object.keys(source)) expect(await failure(load({ integrity: { ...integrity, [file]: sri("x") } }, source))).toMatchObject({ code: "integrity", message: expect.stringContaining(file) });
  });

  it("checks PyTorch archives, which are read from their end", async () => {
    const archive = new Uint8Array(9_000_000).map((_, i) => i % 253);
    archive.set([0x50, 0x4b]);
    const source = { "config.json": CONFIG, "model.pt": archive };
    const { weights } = await load({}, source);
    expect(await load({ integrity: { "model.pt": sri(archive) } }, source)).toMatchObject({ weights });
    expect(await failure(load({ integrity: { "model.pt": sri("x") } }, source))).toMatchObject({ code: "integrity" });
  });

  it("drops a kept file that is another one, and takes what the server has", async () => {
    await load();
    const other = safetensors(OTHER);
    server.files.set(`m/${name}`, other);
    expect(await load()).toMatchObject({ weights: WEIGHTS, fromCache: [true] });
    expect(await load({ integrity: { [name]: sri(other) } })).toMatchObject({ weights: hashOf(OTHER), fromCache: [false] });
    expect(await load({ integrity: { [name]: sri(other) } })).toMatchObject({ weights: hashOf(OTHER), fromCache: [true] });
    expect(await failure(load({ integrity: { [name]: sri("x") } }))).toMatchObject({ code: "integrity" });
    expect([...cache.keys()]).toEqual([]);
  });

  it("says what is wrong with a kept file also where there is no other", async () => {
    await load({ integrity: { [name]: sri(FILE) } });
    const piece = [...cache.keys()].find((key) => key.includes("safetensors#"))!;
    cache.get(piece)![5_000_000]! ^= 1;
    down();
    expect(await failure(load({ integrity: { [name]: sri(FILE) } }))).toMatchObject({ code: "integrity" });
  });

  it.each([
    ["no object", "sha256-"],
    ["null", null],
    ["no text", { [name]: 7 }],
    ["an empty text", { [name]: " " }],
    ["an unknown kind of hash", { [name]: sri(FILE).replace("sha256", "md5") }],
    ["a digest that is too short", { [name]: sri(FILE).slice(0, -4) }],
    ["a digest in hexadecimal", { [name]: `sha256-${createHash("sha256").update(FILE).digest("hex")}` }],
    ["a good and a malformed hash", { [name]: `${sri(FILE)} sha256-x` }],
    ["a file that there is not", { "modle.safetensors": sri(FILE) }],
    ["a file that is not read", { "README.md": sri(FILE), [name]: sri(FILE) }],
  ])("refuses %s", async (_, integrity) => {
    expect(await failure(load({ integrity: integrity as unknown as Record<string, string> }))).toMatchObject({ name: "JepaError", code: "bad-input" });
  });
});
