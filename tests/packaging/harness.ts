// The packed package, installed as users install it: into projects made from templates, outside of this repository.

import { execFile, spawn } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync } from "node:fs";
import { cp, mkdir, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium, type Browser, type Request } from "playwright-core";
import { afterAll, beforeAll, expect } from "vitest";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { pseudoRandom } from "../../www/bench/models.mjs";
import { startServer, type TestServer } from "../unit/server.js";

const execute = promisify(execFile);
const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
export const FIXTURES = path("../fixtures");
const PKG = path("../../pkg");
const json = (...names: string[]) => JSON.parse(readFileSync(join(FIXTURES, ...names), "utf8"));

/** Absolute, as everywhere on the CPU. */
const TOLERANCE = 1e-5;
const ENVIRONMENT = { ...process.env, NODE_ENV: undefined, NEXT_TELEMETRY_DISABLED: "1" };

/** Runs a program in a project; what it says is the message when it fails. */
export async function run(project: string, command: string, ...args: string[]): Promise<{ stdout: string; stderr: string }> {
  return execute(command, args, { cwd: project, env: ENVIRONMENT }).catch(({ message, stdout }) => Promise.reject(new Error(`${message}\n${stdout}`)));
}

/** A project from the template `name`, or from another folder, with what it depends on installed; its folder is known once the tests run. */
export function useProject(name: string, template = path(`templates/${name}`)): { readonly folder: string } {
  const project = { folder: "" };
  beforeAll(async () => {
    if (!existsSync(join(PKG, "package.json"))) throw new Error("pkg/ is not there: npm run build");
    project.folder = mkdtempSync(join(tmpdir(), `webjepa-${name}-`));
    cpSync(template, project.folder, { recursive: true });
    cpSync(path("templates/app.js"), join(project.folder, "app.js"));
    const { stdout } = await run(PKG, "npm", "pack", "--json", "--pack-destination", project.folder);
    cpSync(join(project.folder, JSON.parse(stdout)[0].filename), join(project.folder, "webjepa.tgz"));
    await run(project.folder, "npm", "pkg", "set", "dependencies.webjepa=file:webjepa.tgz");
    await run(project.folder, "npm", "install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock");
  });
  afterAll(() => rm(project.folder, { recursive: true, force: true }));
  return project;
}

interface Result {
  shape: number[];
  data: number[];
  threads?: number;
}

/** The first picture of `ijepa_tiny.json`, which is the model's very input, and what the published code makes of it. */
export const TINY = tinyFixture();

function tinyFixture() {
  const { files, recipe } = json("manifest.json");
  const { seed, shape, amp } = files["ijepa_tiny.json"].inputs.image;
  expect(recipe.hash).toBe("fnv1a32");
  const [, channels, height, width] = shape as [number, number, number, number];
  const plane = height * width;
  const planes = pseudoRandom(seed, channels * plane, amp);
  const data = Array.from({ length: planes.length }, (_, i) => planes[(i % channels) * plane + Math.floor(i / channels)]!);
  const encoded: Result = json("ijepa_tiny.json").enc_full;
  const [, tokens, hiddenSize] = encoded.shape as [number, number, number];
  const mean = Array.from({ length: hiddenSize }, (_, d) => {
    let sum = 0;
    for (let token = 0; token < tokens; token++) sum += encoded.data[token * hiddenSize + d]!;
    return sum / tokens;
  });
  const processor = { ...json("ijepa_ti16", "preprocessor_config.json"), size: { height, width } };
  return { folder: join(FIXTURES, "ijepa_tiny_hf"), picture: JSON.stringify({ data, width, height, channels }), processor: JSON.stringify(processor), mean };
}

/** Puts the model and the picture into a folder that another server than {@link useSite}'s serves. */
export async function addModel(folder: string): Promise<void> {
  const model = join(folder, "model");
  await mkdir(model, { recursive: true });
  await cp(TINY.folder, model, { recursive: true });
  await writeFile(join(model, "preprocessor_config.json"), TINY.processor);
  await writeFile(join(model, "picture.json"), TINY.picture);
}

/** Runs a project's own server, a script of Node that takes these arguments and `--port`, while `body` visits its pages under {@link BASE}. */
export async function whileServing(project: string, args: string[], body: (url: string) => Promise<void>): Promise<void> {
  const port = String(await freePort());
  const server = spawn(process.execPath, [...args, "--port", port], { cwd: project, env: ENVIRONMENT, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<never>((_, reject) => server.once("exit", (code) => reject(new Error(`the server of the project ended with ${code}`))));
  ended.catch(() => {});
  try {
    await Promise.race([ended, new Promise((resolve) => server.stdout.on("data", (text) => /ready/i.test(String(text)) && resolve(undefined)))]);
    await body(`http://127.0.0.1:${port}/${BASE}/`);
  } finally {
    server.kill();
    await ended.catch(() => {});
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => probe.once("listening", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

export function expectEmbedding({ shape, data }: Result, expected: readonly number[], tolerance = TOLERANCE): void {
  expect(shape).toEqual([expected.length]);
  expect(data.length).toBe(expected.length);
  const worst = data.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i]!)), 0);
  expect(worst).toBeLessThan(tolerance);
}

/** The strictest policy under which WebAssembly compiles. */
export const POLICY = { "content-security-policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" };

/** Where the sites are deployed: not at the root of their server. */
export const BASE = "some/sub/path";

export interface Site {
  /** Serves `folder`, and the model beside its pages, under {@link BASE}, without any header that was not asked for. */
  serve(folder: string, headers?: Record<string, string>): void;
  readonly server: TestServer;
  /**
   * Opens a page, presses its button and checks what it shows. Before the button is pressed neither model, worker nor WebAssembly may
   * be asked for, nothing of other sites ever, and no request, script or policy may fail.
   */
  check(url?: string): Promise<void>;
  /** The same of what `serve` was given, in a page that is cross-origin isolated: two threads embed. */
  checkThreads(): Promise<void>;
}

/** A server for the sites of a file, and a browser that visits them. */
export function useSite(): Site {
  let browser: Browser;
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer();
    browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });
  return {
    get server() {
      return server;
    },
    serve(folder, headers = {}) {
      server.headers = { ...headers };
      server.folders.set(BASE, folder);
      server.folders.set(`${BASE}/model`, TINY.folder);
      server.files.set(`${BASE}/model/preprocessor_config.json`, TINY.processor);
      server.files.set(`${BASE}/model/picture.json`, TINY.picture);
    },
    check: (url = `${server.url}${BASE}/`) => check(browser, url, 1),
    checkThreads() {
      Object.assign(server.headers, { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" });
      return check(browser, `${server.url}${BASE}/`, 2);
    },
  };
}

async function check(browser: Browser, url: string, threads: number): Promise<void> {
  const page = await browser.newPage();
  const faults: string[] = [];
  const requests: URL[] = [];
  let workers = 0;
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(`${message.type()}: ${message.text()} (${message.location().url})`));
  page.on("pageerror", (error) => faults.push(`uncaught: ${error.stack}`));
  page.on("requestfailed", (request) => isFault(request) && faults.push(`${request.failure()?.errorText}: ${request.url()}`));
  page.on("response", (response) => response.status() >= 400 && faults.push(`${response.status()}: ${response.url()}`));
  page.on("worker", () => workers++);
  page.on("request", (request) => requests.push(new URL(request.url())));
  // Browsers ask for it at the root of the server, which is none of the site's.
  await page.route("**/favicon.ico", (route) => route.fulfill({ body: "" }));
  try {
    await page.goto(url, { waitUntil: "networkidle" });
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(threads > 1);
    await page.waitForSelector("button:enabled", { timeout: 20_000 });
    expect(requests.map(String).filter((href) => /\.wasm$|\/worker[-.]|\/model\//.test(href))).toEqual([]);
    expect(workers).toBe(0);
    await page.click("button");
    const shown = await page.locator("output:not(:empty)").textContent({ timeout: 60_000 });
    expect(shown).toMatch(/^\{/);
    const results: Record<string, Result> = JSON.parse(shown!);
    expect(results).toHaveProperty("worker");
    for (const result of Object.values(results)) expectEmbedding(result, TINY.mean);
    if (threads > 1) expect(results.worker!.threads).toBe(threads);
    expect(workers).toBe(threads);
    expect(requests.some(({ pathname }) => pathname.endsWith(".wasm"))).toBe(true);
    const site = new URL(`/${BASE}/`, url).href;
    expect(requests.map(String).filter((href) => !href.startsWith(site) && !href.endsWith("/favicon.ico"))).toEqual([]);
  } catch (error) {
    throw new Error([(error as Error).message, ...faults].join("\n"), { cause: error });
  } finally {
    await page.close();
  }
  expect(faults).toEqual([]);
}

/** The library itself ends a download of weights of whose rest it needs nothing. */
function isFault(request: Request): boolean {
  return !(request.failure()?.errorText === "net::ERR_ABORTED" && request.url().endsWith(".safetensors"));
}
