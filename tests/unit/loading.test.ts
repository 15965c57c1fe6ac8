import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Jepa, type LoadOptions, type ModelSource, type Progress } from "../../www/src/index.js";
import { CONFIG, coded, fake, resetFake, safetensors, hashOf } from "./fake-glue.js";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { startServer, type TestServer } from "./server.js";

vi.mock("../../www/src/glue.js", async () => (await import("./fake-glue.js")).mockGlue());

const SIZES = { first: 3_000_000, "skip.a": 1000, second: 70_000, "skip.gap": 6_000_000, third: 1_500_001 };
const WEIGHTS = hashOf(SIZES);
const PIXEL = { data: new Uint8Array([10, 20, 30]), width: 1, height: 1, channels: 3 };

let server: TestServer;
let folder: string;

beforeAll(async () => {
  server = await startServer();
  folder = await mkdtemp(join(tmpdir(), "webjepa-"));
  await mkdir(join(folder, "model"));
  await writeFile(join(folder, "model", "config.json"), CONFIG);
  await writeFile(join(folder, "model", "model.safetensors"), safetensors(SIZES));
});
afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  resetFake();
  server.files.clear();
  server.faults.clear();
  server.requests.length = 0;
  server.mostOpen = 0;
  server.files.set("m/config.json", CONFIG);
  server.files.set("m/model.safetensors", safetensors(SIZES));
});
afterEach(() => expect([...fake.alive]).toEqual([]));

/** Loads, embeds one picture, disposes; gives the hash of the weights as the model saw them. */
async function weightsOf(source: ModelSource, options?: LoadOptions): Promise<number> {
  await using jepa = await Jepa.load(source, { backend: "cpu", ...options });
  const { data } = await jepa.embed(PIXEL);
  return data[0]!;
}

const failure = (source: ModelSource, options?: LoadOptions) =>
  Jepa.load(source, { backend: "cpu", ...options }).then(
    () => expect.unreachable("the load should have failed"),
    (error) => error,
  );

const shards = { "a-00001-of-00002.safetensors": { first: 100_000, "skip.x": 50 }, "a-00002-of-00002.safetensors": { second: 30_000 } };
const shardIndex = JSON.stringify({
  metadata: {},
  weight_map: { first: "a-00001-of-00002.safetensors", "skip.x": "a-00001-of-00002.safetensors", second: "a-00002-of-00002.safetensors" },
});
const shardHash = hashOf(...Object.values(shards));

describe("sources", () => {
  const files = () => ({ "config.json": CONFIG, "model.safetensors": safetensors(SIZES) });

  it("reads a folder by its address, in as few requests as the gaps allow", async () => {
    expect(await weightsOf(server.url + "m")).toBe(WEIGHTS);
    // The third tensor lies beyond a gap that is longer than a request is worth.
    expect(server.requests.filter(({ path }) => path === "m/model.safetensors").map(({ range }) => range)).toEqual(["bytes=0-", expect.stringMatching(/^bytes=9\d{6}-$/)]);
    expect(Math.max(...fake.chunks)).toBeLessThanOrEqual(1 << 20);
  });

  it.each([
    ["a URL object with a slash", () => new URL("m/", server.url)],
    ["the weights' own address", () => server.url + "m/model.safetensors"],
    ["an address with a query", () => server.url + "m?token=1"],
    ["a path", () => join(folder, "model")],
    ["a path with a slash", () => join(folder, "model/")],
    ["the weights' own path", () => join(folder, "model", "model.safetensors")],
    ["a file URL", () => pathToFileURL(join(folder, "model"))],
    ["text and bytes", files],
    ["Blobs", () => ({ "config.json": new Blob([CONFIG]), "model.safetensors": new Blob([safetensors(SIZES)]) })],
    ["an ArrayBuffer", () => ({ "config.json": CONFIG, "model.safetensors": safetensors(SIZES).buffer })],
    ["URLs by name", () => ({ "config.json": CONFIG, "model.safetensors": new URL("m/model.safetensors", server.url) })],
    ["another name for the weights", () => ({ "config.json": CONFIG, "mine.safetensors": safetensors(SIZES) })],
    ["a list of Files", () => [new File([CONFIG], "config.json"), new File([safetensors(SIZES)], "model.safetensors")]],
    ["names with folders", () => ({ "m/config.json": CONFIG, "m/model.safetensors": safetensors(SIZES), "m/old/config.json": "{}", "m/old/model.safetensors": "" })],
    ["a FileList", () => ({ length: 2, 0: new File([CONFIG], "config.json"), 1: new File([safetensors(SIZES)], "model.safetensors") })],
    ["a directory handle", () => directoryHandle(files())],
  ] as [string, () => ModelSource][])("reads %s", async (_, source) => {
    expect(await weightsOf(source())).toBe(WEIGHTS);
  });

  it("takes the configuration from the options when there is no config.json", async () => {
    server.files.delete("m/config.json");
    expect(await weightsOf(server.url + "m", { config: "vit-tiny" })).toBe(WEIGHTS);
    expect(fake.options[0]).toMatchObject({ preset: "vit-tiny" });
    expect(server.requests.map(({ path }) => path)).not.toContain("m/config.json");
  });

  it("reads the preprocessor's configuration where there is one", async () => {
    server.files.set("m/preprocessor_config.json", '{"do_resize":true}');
    await weightsOf(server.url + "m");
    expect(fake.options[0]!.preprocessor).toBe('{"do_resize":true}');
  });

  it("takes a start page in place of an optional file for its absence", async () => {
    server.files.set("m/preprocessor_config.json", "<!doctype html>");
    server.faults.set("m/preprocessor_config.json", { contentType: "text/html; charset=utf-8" });
    await weightsOf(server.url + "m");
    expect(fake.options[0]!.preprocessor).toBeUndefined();
  });

  it.each([[true], [false]])("reads shards over HTTP, with ranges: %s", async (ranges) => {
    server.files.delete("m/model.safetensors");
    server.files.set("m/model.safetensors.index.json", shardIndex);
    for (const [name, sizes] of Object.entries(shards)) {
      server.files.set(`m/${name}`, safetensors(sizes));
      server.faults.set(`m/${name}`, { noRanges: !ranges });
    }
    expect(await weightsOf(server.url + "m")).toBe(shardHash);
    expect(await weightsOf(server.url + "m/model.safetensors.index.json")).toBe(shardHash);
  });

  it("reads shards from files", async () => {
    const parts = Object.fromEntries(Object.entries(shards).map(([name, sizes]) => [name, safetensors(sizes)]));
    expect(await weightsOf({ "config.json": CONFIG, "model.safetensors.index.json": shardIndex, ...parts })).toBe(shardHash);
  });

  it("does not open many shards at once", async () => {
    const names = Array.from({ length: 12 }, (_, i) => `s${i}.safetensors`);
    server.files.delete("m/model.safetensors");
    server.files.set("m/model.safetensors.index.json", JSON.stringify({ weight_map: Object.fromEntries(names.map((name) => [`t.${name}`, name])) }));
    for (const name of names) server.files.set(`m/${name}`, safetensors({ [`t.${name}`]: 1_500_000 }));
    await weightsOf(server.url + "m");
    expect(server.mostOpen).toBeLessThan(6);
  });
});

describe("servers", () => {
  const weights = "m/model.safetensors";

  it.each([
    ["no ranges", { noRanges: true }],
    ["no ranges and no length", { noRanges: true, chunked: true }],
    ["no length", { chunked: true }],
    ["no length and a hidden Content-Range", { chunked: true, hideContentRange: true }],
    ["a hidden Content-Range", { hideContentRange: true }],
    ["connections that break now and then", { cutAfter: 1_000_000, cuts: 6 }],
    ["connections that break, and no ranges", { noRanges: true, cutAfter: 5_000_000, cuts: 2 }],
    ["connections that always break, but get on", { cutAfter: 900_000 }],
  ])("can be one with %s", async (_, fault) => {
    server.faults.set(weights, fault);
    expect(await weightsOf(server.url + "m")).toBe(WEIGHTS);
  });

  it("can be one whose connections break at any byte", async () => {
    const { length } = server.files.get(weights)!;
    for (const [i, draw] of pseudoRandom("cuts", 12, 0.5).entries()) {
      // Half of them within the header.
      const cut = 1 + Math.floor((draw + 0.5) * (i % 2 ? length - 1 : 300));
      server.faults.set(weights, { cutAfter: cut, cuts: 2 });
      expect(await weightsOf(server.url + "m"), `after ${cut} bytes`).toBe(WEIGHTS);
    }
  });

  it("gives up on a connection that always breaks at the same place, saying where", async () => {
    server.faults.set(weights, { noRanges: true, cutAfter: 2_000_000 });
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringMatching(/broke off after 2000000 of \d+ bytes/) });
  });

  it("notices that a file changes between two connections", async () => {
    let version = 0;
    server.faults.set(weights, { cutAfter: 1_000_000, etag: () => `"${version++}"` });
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringContaining("changed") });
  });

  it("names the address and the status when the weights are missing", async () => {
    server.files.delete(weights);
    const error = await failure(server.url + "m");
    expect(error).toMatchObject({ name: "JepaError", code: "network" });
    expect(error.message).toContain("404");
    expect(error.message).toContain(server.url + "m");
  });

  it.each([[403], [500], [503]])("names the status %i", async (status) => {
    server.faults.set(weights, { status });
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringContaining(`${status}`) });
  });

  it("names the missing configuration", async () => {
    server.files.delete("m/config.json");
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringMatching(/config\.json.*404/) });
  });

  it("reports a web page in place of the weights", async () => {
    server.faults.set(weights, { contentType: "text/html" });
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringContaining("web page") });
  });

  it("reports a server that is not there", async () => {
    expect(await failure("http://127.0.0.1:9/m")).toMatchObject({ code: "network" });
  });

  it("reports a body that is shorter than its length", async () => {
    server.faults.set(weights, { lieBy: 500, cuts: 0 });
    server.files.set(weights, safetensors({ only: 200_000 }).subarray(0, -500));
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringMatching(/ends before byte|broke off/) });
  });

  it("reports a length that is shorter than the file", async () => {
    server.faults.set(weights, { lieBy: -500 });
    expect(await failure(server.url + "m")).toMatchObject({ code: "bad-checkpoint" });
  });

  it.each([
    ["empty", new Uint8Array(0)],
    ["shorter than a safetensors file", new Uint8Array(5)],
    ["truncated", safetensors(SIZES).subarray(0, 4_000_000)],
  ])("reports a file that is %s", async (_, file) => {
    server.files.set(weights, file);
    expect(await failure(server.url + "m")).toMatchObject({ code: "bad-checkpoint" });
    expect(await failure({ "config.json": CONFIG, "model.safetensors": file })).toMatchObject({ code: "bad-checkpoint" });
  });
});

describe("requests with headers of the caller's", () => {
  const headers = { Authorization: "Bearer abc" };
  beforeEach(() => {
    for (const name of ["config.json", "model.safetensors"]) server.faults.set(`m/${name}`, { needs: "authorization: Bearer abc" });
  });
  afterEach(() => void vi.unstubAllGlobals());

  const sent = () => server.requests.map(({ headers }) => headers.authorization);

  it("open what else answers 401", async () => {
    expect(await failure(server.url + "m")).toMatchObject({ code: "network", message: expect.stringContaining("401") });
    server.requests.length = 0;
    expect(await weightsOf(server.url + "m", { requestInit: { headers } })).toBe(WEIGHTS);
    // Both ranges of the weights among them.
    expect(sent()).toEqual(Array(4).fill(headers.Authorization));
  });

  it.each([
    ["a Headers object", new Headers(headers)],
    ["pairs", Object.entries(headers) as [string, string][]],
  ])("take them as %s", async (_, given) => {
    expect(await weightsOf(server.url + "m", { requestInit: { headers: given } })).toBe(WEIGHTS);
  });

  it("have them again after a connection broke, for shards and for files by their addresses", async () => {
    Object.assign(server.faults.get("m/model.safetensors")!, { cutAfter: 1_000_000, cuts: 1 });
    const source = { "config.json": new URL("m/config.json", server.url), "model.safetensors": new URL("m/model.safetensors", server.url) };
    expect(await weightsOf(source, { requestInit: { headers } })).toBe(WEIGHTS);
    expect(server.requests.filter(({ path }) => path === "m/model.safetensors").length).toBeGreaterThan(2);
    server.files.delete("m/model.safetensors");
    server.faults.clear();
    server.files.set("m/model.safetensors.index.json", shardIndex);
    for (const [name, sizes] of Object.entries(shards)) server.files.set(`m/${name}`, safetensors(sizes));
    expect(await weightsOf(server.url + "m", { requestInit: { headers } })).toBe(shardHash);
    expect(new Set(sent())).toEqual(new Set([headers.Authorization]));
  });

  it("have them where only a part is kept", async () => {
    const cache = new Map<string, Uint8Array<ArrayBuffer>>();
    Object.assign(server.faults.get("m/model.safetensors")!, { cutAfter: 1_000_000, cuts: 5 });
    expect(await weightsOf(server.url + "m", { requestInit: { headers }, cache })).toBe(WEIGHTS);
    for (const key of cache.keys()) if (/safetensors#/.test(key)) cache.delete(key);
    expect(await weightsOf(server.url + "m", { requestInit: { headers }, cache })).toBe(WEIGHTS);
    expect(new Set(sent())).toEqual(new Set([headers.Authorization]));
  });

  it("have the caller's credentials, and the browser's choice without", async () => {
    const real = globalThis.fetch;
    const inits: RequestInit[] = [];
    vi.stubGlobal("fetch", (url: string, init: RequestInit) => (inits.push(init), real(url, init)));
    await weightsOf(server.url + "m", { requestInit: { headers, credentials: "include" } });
    expect(new Set(inits.map(({ credentials }) => credentials))).toEqual(new Set(["include"]));
    inits.length = 0;
    await weightsOf(server.url + "m", { requestInit: { headers } });
    expect(inits.every((init) => !("credentials" in init))).toBe(true);
  });
});

describe("bad sources", () => {
  it.each([
    ["nothing", undefined],
    ["null", null],
    ["a number", 7],
    ["an empty string", ""],
    ["no files", {}],
    ["a file that is none", { "config.json": 3 }],
    ["a malformed address", "http://[::"],
    ["a path that does not exist", "/no/such/folder"],
  ])("refuses %s", async (_, source) => {
    expect(await failure(source as ModelSource)).toMatchObject({ name: "JepaError", code: "bad-input" });
  });

  it.each([
    ["no weights", { "config.json": CONFIG, "notes.txt": "" }, "bad-checkpoint", "notes.txt"],
    ["several weights", { "config.json": CONFIG, "a.safetensors": "", "b.safetensors": "" }, "bad-checkpoint", "a.safetensors, b.safetensors"],
    ["empty pickled weights", { "config.json": CONFIG, "pytorch_model.bin": "" }, "bad-checkpoint", "pytorch_model.bin"],
    ["no configuration", { "model.safetensors": safetensors(SIZES) }, "bad-config", "config.json"],
    ["an index that is no JSON", { "config.json": CONFIG, "model.safetensors.index.json": "{" }, "bad-checkpoint", "index"],
    ["an index without names", { "config.json": CONFIG, "model.safetensors.index.json": "{}" }, "bad-checkpoint", "weight_map"],
    ["an index that leaves its folder", { "config.json": CONFIG, "model.safetensors.index.json": '{"weight_map":{"a":"../x.safetensors"}}' }, "bad-checkpoint", "../x"],
    ["an index of a shard that is missing", { "config.json": CONFIG, "model.safetensors.index.json": shardIndex }, "bad-checkpoint", "a-00001"],
    ["a configuration of endless length", { "config.json": "x".repeat(2 << 20), "model.safetensors": safetensors(SIZES) }, "bad-config", "longer"],
  ])("says what is wrong with %s", async (_, source, code, words) => {
    expect(await failure(source as ModelSource)).toMatchObject({ code, message: expect.stringContaining(words) });
  });

  it.each([
    ["backend", { backend: "gpu" }, "bad-input"],
    ["dtype", { dtype: "f64" }, "bad-input"],
    ["cache", { cache: "disk" }, "bad-input"],
    ["cache of one's own", { cache: { get() {} } }, "bad-input"],
    ["requestInit", { requestInit: { method: "POST" } }, "bad-input"],
    ["name of a header", { requestInit: { headers: { "a b": "c" } } }, "bad-input"],
    ["header Range", { requestInit: { headers: { range: "bytes=0-" } } }, "bad-input"],
    ["credentials", { requestInit: { credentials: "yes" } }, "bad-input"],
  ])("refuses an impossible %s", async (_, options, code) => {
    expect(await failure(server.url + "m", options as unknown as LoadOptions)).toMatchObject({ code });
  });
});

describe("progress", () => {
  it.each([[true], [false]])("never falls and ends at 1, with warm-up: %s", async (warmup) => {
    const seen: Progress[] = [];
    await weightsOf(server.url + "m", { warmup, onProgress: (progress) => seen.push(progress) });
    const overall = seen.map((progress) => progress.overall);
    expect(overall).toEqual([...overall].sort((a, b) => a - b));
    expect(overall.at(-1)).toBe(1);
    expect(new Set(seen.map(({ phase }) => phase))).toEqual(new Set(["compile", "download", "upload", ...(warmup ? ["warmup"] : [])]));
    const last = seen.filter(({ phase }) => phase === "download").at(-1)!;
    expect(last).toMatchObject({ file: "model.safetensors", loaded: 4_570_001, total: 4_570_001, fromCache: false });
  });
});

describe("aborting a load", () => {
  const reason = new Error("enough");

  async function aborted(prepare: (abort: () => void) => LoadOptions): Promise<void> {
    const controller = new AbortController();
    const options = prepare(() => controller.abort(reason));
    const start = performance.now();
    expect(await failure(server.url + "m", { ...options, signal: controller.signal })).toMatchObject({ name: "JepaError", code: "aborted", cause: reason });
    expect(performance.now() - start).toBeLessThan(2000);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }

  it("before it begins", async () => {
    await aborted((abort) => (abort(), {}));
    expect(server.requests).toEqual([]);
  });

  it("while the module starts", () =>
    aborted((abort) => {
      fake.faults.initDevice = async () => abort();
      return {};
    }));

  it("while a server keeps it waiting", () =>
    aborted((abort) => {
      server.faults.set("m/model.safetensors", { stallAfter: 2_000_000 });
      setTimeout(abort, 200);
      return {};
    }));

  it("while it downloads", () => aborted((abort) => ({ onProgress: ({ phase }) => phase === "download" && abort() })));

  it("while it waits to try again", () =>
    aborted((abort) => {
      server.faults.set("m/model.safetensors", { noRanges: true, cutAfter: 1_000_000 });
      setTimeout(abort, 700);
      return {};
    }));

  it("while weights go to the device", () =>
    aborted((abort) => {
      fake.faults.finish = async () => abort();
      return {};
    }));

  it("while it warms up", () =>
    aborted((abort) => {
      fake.faults.embed = async () => abort();
      return { warmup: true };
    }));

  it("closes its connections", async () => {
    server.faults.set("m/model.safetensors", { stallAfter: 2_000_000 });
    await aborted((abort) => (setTimeout(abort, 200), {}));
    await vi.waitFor(() => expect(server.open).toBe(0));
  });
});

describe("failures of the module while loading", () => {
  it("passes orderly errors on with their codes, and gives back the loader", async () => {
    fake.faults.write = () => {
      throw coded("shape-mismatch", "wrong shape");
    };
    expect(await failure(server.url + "m")).toMatchObject({ code: "shape-mismatch", message: "wrong shape" });
    await vi.waitFor(() => expect(server.open).toBe(0));
  });

  it("replaces the instance after a crash, so that the next load works", async () => {
    fake.faults.write = () => {
      throw new WebAssembly.RuntimeError("unreachable");
    };
    expect(await failure(server.url + "m")).toMatchObject({ code: "internal" });
    expect(fake.resets).toBeGreaterThan(0);
    fake.faults = {};
    expect(await weightsOf(server.url + "m")).toBe(WEIGHTS);
  });
});

function directoryHandle(files: Record<string, BlobPart>): FileSystemDirectoryHandle {
  const entries = Object.entries(files).map(([name, content]) => [name, { kind: "file", getFile: async () => new File([content], name) }]);
  return { kind: "directory", name: "chosen", getFileHandle() {}, entries: async function* () { yield* entries; yield ["sub", { kind: "directory" }]; } } as unknown as FileSystemDirectoryHandle;
}
