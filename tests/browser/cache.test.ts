// Models that are kept in the origin private file system of a real browser.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FIXTURES, useLab, type TestPage } from "./harness.js";

const lab = useLab();
let test: TestPage;
beforeEach(async () => {
  lab.server.faults.clear();
  lab.server.requests.length = 0;
  test = await lab.openPage();
  await test.page.evaluate(() => webjepa.opfsCache().delete());
});
afterEach(() => test.close());

const TINY = "/fixtures/ijepa_tiny_hf";
const WEIGHTS = "fixtures/ijepa_tiny_hf/model.safetensors";
const FILE = readFileSync(join(FIXTURES, "ijepa_tiny_hf/model.safetensors"));
const SRI = `sha256-${createHash("sha256").update(FILE).digest("base64")}`;

interface Outcome {
  embedding: number[];
  failure: string | undefined;
  /** Of the last report of the download. */
  fromCache: boolean | undefined;
}

/** Loads and embeds in the page; a failure is its code and message. */
const load = (on: TestPage, options: { cache?: "opfs" | "none"; worker?: boolean; integrity?: Record<string, string> } = {}): Promise<Outcome | string> =>
  on.page.evaluate(
    async ({ source, options }) => {
      let fromCache: boolean | undefined;
      const onProgress = (progress: { phase: string; fromCache: boolean }) => void (progress.phase === "download" && (fromCache = progress.fromCache));
      try {
        const jepa = await webjepa.Jepa.load(source, { backend: "cpu", cache: "opfs", onProgress, ...options });
        const { data } = await jepa.embed({ data: new Uint8Array([1, 2, 3]), width: 1, height: 1, channels: 3 });
        await jepa.dispose();
        return { embedding: [...data], failure: jepa.cacheFailure, fromCache };
      } catch (error) {
        const { code, message } = error as { code: string; message: string };
        return `${code}: ${message}`;
      }
    },
    { source: TINY, options },
  );

const weightRequests = () => lab.server.requests.filter(({ path }) => path === WEIGHTS).map(({ range }) => range);

describe("a model in the private file system", () => {
  it.each([[true], [false]])("is loaded again without a server, in a worker: %s", async (worker) => {
    const expected = (await load(test, { cache: "none" })) as Outcome;
    expect(await load(test, { worker })).toEqual({ ...expected, fromCache: false });
    for (const path of ["config.json", "preprocessor_config.json", "model.safetensors"]) lab.server.faults.set(`fixtures/ijepa_tiny_hf/${path}`, { status: 500 });
    lab.server.requests.length = 0;
    expect(await load(test, { worker })).toEqual({ ...expected, fromCache: true });
    expect(lab.server.requests.filter(({ path }) => path.startsWith("fixtures"))).toEqual([]);
  });

  it.each([[true], [false]])("is loaded again with the network off, in a worker: %s", async (worker) => {
    // The library itself comes from the browser's own cache then.
    lab.server.headers["cache-control"] = "max-age=600";
    await test.page.reload();
    await test.page.waitForFunction(() => "webjepa" in globalThis);
    const expected = (await load(test, { worker })) as Outcome;
    await test.page.context().setOffline(true);
    lab.server.requests.length = 0;
    expect(await load(test, { worker })).toEqual({ ...expected, fromCache: true });
    expect(lab.server.requests).toEqual([]);
    await test.page.context().setOffline(false);
    delete lab.server.headers["cache-control"];
  });

  it.each([5, 40_000, FILE.length - 1])("is taken up where its download was cut, at byte %i", async (cut) => {
    test.expectErrors(/ERR_CONTENT_LENGTH_MISMATCH|ERR_INCOMPLETE|503/);
    const expected = (await load(test, { cache: "none" })) as Outcome;
    lab.server.faults.set(WEIGHTS, { noRanges: true, cutAfter: cut });
    expect(await load(test)).toMatch(/^network: .*broke off/);
    lab.server.faults.clear();
    lab.server.requests.length = 0;
    expect(await load(test)).toMatchObject({ embedding: expected.embedding, failure: undefined });
    expect(weightRequests()).toEqual([`bytes=${cut}-`]);
    const kept = await test.page.evaluate(async () => (await webjepa.opfsCache().entries()).find(({ url }) => url.endsWith(".safetensors")));
    expect(kept).toMatchObject({ bytes: FILE.length, size: FILE.length });
    expect(await load(test, { integrity: { "model.safetensors": SRI } })).toEqual({ ...expected, fromCache: true });
  });

  it("is shared by pages that load it at once", async () => {
    // Opened by the page itself, it shares its storage.
    const [twin] = await Promise.all([test.page.waitForEvent("popup"), test.page.evaluate(() => void open(location.href))]);
    await twin.waitForFunction(() => "webjepa" in globalThis);
    const pages = [test, { ...test, page: twin }];
    const outcomes = await Promise.all([...pages, ...pages].map((page) => load(page, { integrity: { "model.safetensors": SRI } })));
    for (const outcome of outcomes) expect(outcome).toMatchObject({ embedding: (outcomes[0] as Outcome).embedding, failure: undefined });
    for (const page of pages) expect(await load(page, { integrity: { "model.safetensors": SRI } })).toMatchObject({ fromCache: true });
    await twin.close();
  });

  it("is refused with another hash, and dropped", async () => {
    await load(test);
    const wrong = `sha256-${createHash("sha256").update("other").digest("base64")}`;
    const error = await load(test, { integrity: { "model.safetensors": wrong } });
    expect(error).toMatch(/^integrity: .*model\.safetensors/);
    expect(error).toContain(SRI);
    expect(error).toContain(wrong);
    expect(await test.page.evaluate(() => webjepa.opfsCache().entries())).toEqual([]);
    expect(await load(test, { integrity: { "model.safetensors": SRI } })).toMatchObject({ failure: undefined, fromCache: false });
  });

  it("does without when the site has no space left, and says so", async () => {
    const session = await test.page.context().newCDPSession(test.page);
    const origin = new URL(test.page.url()).origin;
    await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 20_000 });
    expect(await load(test)).toMatchObject({ failure: expect.stringContaining("no space left"), fromCache: false });
    await session.send("Storage.overrideQuotaForOrigin", { origin });
    expect(await load(test)).toMatchObject({ failure: undefined });
    expect(await test.page.evaluate(async () => (await webjepa.opfsCache().estimate()).bytes)).toBeGreaterThan(FILE.length);
  });
});

describe("pages without a private file system", () => {
  it("load all the same, and say why nothing is kept", async () => {
    const plain = await lab.openPage({ host: "plain.test" });
    expect(await load(plain, { integrity: { "model.safetensors": SRI } })).toMatchObject({ failure: expect.stringContaining("secure context"), fromCache: false });
    await plain.close();
  });
});

describe("a cache of the page's own", () => {
  it("is asked by the worker", async () => {
    const { keys, fromCache } = await test.page.evaluate(async (source) => {
      const cache = new Map<string, Uint8Array<ArrayBuffer>>();
      const fromCache: boolean[] = [];
      for (let i = 0; i < 2; i++) {
        const jepa = await webjepa.Jepa.load(source, { backend: "cpu", cache, onProgress: (progress) => void (progress.phase === "download" && (fromCache[i] = progress.fromCache)) });
        await jepa.dispose();
      }
      return { keys: [...cache.keys()], fromCache };
    }, TINY);
    expect(fromCache).toEqual([false, true]);
    expect(keys.filter((key) => key.includes("model.safetensors#"))).toHaveLength(1);
  });
});
