// The two places where the tasks of tasks.js run. Each call has a fresh one, so that nothing is left over from the last case.
import { chromium } from "playwright-core";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { say } from "../../scripts/lib.mjs";
import { inProcess } from "./process.mjs";

// A dispatch on a software adapter can outlast the patience of the GPU watchdog.
const FLAGS = [...CHROMIUM_FLAGS, "--disable-gpu-watchdog"];

async function withPage(work) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, timeout: 180_000 });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => {
      if (message.text().startsWith("bench: ")) say(message.text().slice(7));
      else if (message.type() === "error") say(`page error: ${message.text()}`);
    });
    return await work(page);
  } finally {
    await browser.close();
  }
}

/** Runs a task in a page of a new browser. */
export const inPage = (server, method, request, isolated = true) =>
  withPage(async (page) => {
    server.traffic.reset();
    await page.goto(`${server.origin}/bench/page.html${isolated ? "?isolated" : ""}`);
    await page.waitForFunction(() => "ready" in document.documentElement.dataset);
    return page.evaluate(([method, request]) => window.bench[method](request), [method, request]);
  });

/** The rows of the bench "cost" as a PNG. */
export const drawn = (server, rows) =>
  withPage(async (page) => {
    await page.goto(`${server.origin}/bench/cost.html`);
    await page.evaluate((rows) => import("./cost.js").then(({ draw }) => draw(rows)), rows);
    return page.locator("body").screenshot();
  });

/** Runs a task in a new Node process, with lavapipe as its WebGPU adapter. */
export const inNode = (server, method, request) => inProcess(new URL("node.mjs", import.meta.url), { method, request, origin: server.origin });
