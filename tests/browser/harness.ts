// A real Chromium in which the built package runs, and which tolerates no error that nobody asked for.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium, type Browser, type ConsoleMessage, type Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect } from "vitest";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { startServer, type TestServer } from "../unit/server.js";

declare global {
  /** The package, in a page of `openPage`. */
  var webjepa: typeof import("../../www/src/index.js");
  /** Its entry `webjepa/viz`. */
  var viz: typeof import("../../www/src/viz/index.js");
}

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
export const FIXTURES = path("../fixtures");
export const DIST = path("../../pkg/dist");

// A name that is no secure context, unlike localhost; a camera that shows a test picture, to pages that are allowed to use it.
const ARGUMENTS = [...CHROMIUM_FLAGS, "--host-resolver-rules=MAP plain.test 127.0.0.1", "--use-fake-device-for-media-stream"];

export interface TestPage {
  page: Page;
  /** Messages with these words are expected, and so no failure. */
  expectErrors(pattern: RegExp): void;
  /** Fails when there was an error that was not expected. */
  close(): Promise<void>;
}

export interface Lab {
  browser: Browser;
  /** Serves the package under /dist, fixtures under /fixtures, and files and faults that a test adds. */
  server: TestServer;
  /** The same on another origin, with CORS for the package but not for pictures. */
  other: TestServer;
  openPage(options?: { html?: string; host?: string }): Promise<TestPage>;
}

const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
globalThis.viz = await import("/dist/viz/index.js");
globalThis.webjepa = await import("/dist/index.js");
</script>`;

/** A browser and its servers for the tests of a file. */
export function useLab(): Lab {
  const lab = {} as Lab;
  beforeAll(async () => {
    if (!existsSync(DIST)) throw new Error("pkg/ is not there: npm run build");
    lab.server = await startLabServer();
    lab.other = await startLabServer();
    lab.browser = await chromium.launch({ executablePath: CHROMIUM, args: ARGUMENTS });
  });
  afterAll(async () => {
    await lab.browser?.close();
    await lab.server?.close();
    await lab.other?.close();
  });
  lab.openPage = async ({ html = PAGE, host = "localhost" } = {}) => {
    lab.server.files.set("page.html", html);
    const page = await lab.browser.newPage();
    const errors: string[] = [];
    const expected: RegExp[] = [];
    watchErrors(page, (text) => expected.some((pattern) => pattern.test(text)) || errors.push(text));
    await page.goto(`http://${host}:${new URL(lab.server.url).port}/page.html`);
    if (html === PAGE) await page.waitForFunction(() => "webjepa" in globalThis);
    return {
      page,
      expectErrors: (pattern) => expected.push(pattern),
      async close() {
        await page.close();
        expect(errors).toEqual([]);
      },
    };
  };
  return lab;
}

/** Has the lab's server give the demo, built as it is published, in a folder. */
export function useDemo(lab: Lab, folder: string): void {
  const out = mkdtempSync(join(tmpdir(), "webjepa-demo-"));
  beforeAll(async () => {
    await build({ configFile: path("../../www/vite.config.ts"), build: { outDir: out }, logLevel: "warn" });
    lab.server.folders.set(folder, out);
  });
  afterAll(() => rmSync(out, { recursive: true, force: true }));
}

/** Keeps a picture of a page where the variable says, to be looked at. */
export async function screenshot(page: Page, name: string): Promise<void> {
  const folder = process.env.WEBJEPA_SCREENSHOTS;
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** Reports everything that went wrong in a page and in its workers. */
export function watchErrors(page: Page, report: (text: string) => void): void {
  page.on("console", (message) => {
    const { url } = message.location();
    // A file that a model need not have: the browser itself reports each 404.
    const optional = message.text().includes("404") && url.endsWith("/preprocessor_config.json");
    if (isError(message) && !optional) report(`${message.type()}: ${message.text()} (${url})`);
  });
  page.on("pageerror", (error) => report(`uncaught: ${error.stack}`));
  page.on("crash", () => report("the page crashed"));
}

async function startLabServer(): Promise<TestServer> {
  const server = await startServer();
  server.folders.set("dist", DIST);
  server.folders.set("fixtures", FIXTURES);
  return server;
}

/** Chromium reports what WebGPU and its shader compiler reject as warnings. */
function isError(message: ConsoleMessage): boolean {
  if (message.type() === "error") return true;
  return message.type() === "warning" && /webgpu|wgsl|shader|tint|dawn|validation|invalid/i.test(message.text());
}

