// The two places where the tasks of tasks.js run. Each call has a fresh one, so that nothing is left over from the last case.
import { fork } from "node:child_process";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { CHROMIUM, CHROMIUM_FLAGS, LAVAPIPE } from "../../scripts/hosts.mjs";
import { say } from "../../scripts/lib.mjs";

// A dispatch on a software adapter can outlast the patience of the GPU watchdog.
const FLAGS = [...CHROMIUM_FLAGS, "--disable-gpu-watchdog"];

/** Runs a task in a page of a new browser. */
export async function inPage(server, method, request, isolated = true) {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, timeout: 180_000 });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => {
      if (message.text().startsWith("bench: ")) say(message.text().slice(7));
      else if (message.type() === "error") say(`page error: ${message.text()}`);
    });
    server.traffic.reset();
    await page.goto(`${server.origin}/bench/page.html${isolated ? "?isolated" : ""}`);
    await page.waitForFunction(() => "ready" in document.documentElement.dataset);
    return await page.evaluate(([method, request]) => window.bench[method](request), [method, request]);
  } finally {
    await browser.close();
  }
}

/** Runs a task in a new Node process, with lavapipe as its WebGPU adapter. */
export function inNode(server, method, request) {
  const child = fork(fileURLToPath(new URL("node.mjs", import.meta.url)), {
    env: { ...process.env, VK_ICD_FILENAMES: LAVAPIPE, XDG_RUNTIME_DIR: tmpdir() },
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  return new Promise((resolve, reject) => {
    child.on("message", ({ line, result, error }) => (line ? say(line) : error ? reject(new Error(error)) : resolve(result)));
    child.on("exit", (code) => reject(new Error(`the Node host ended with ${code}`)));
    child.send({ method, request, origin: server.origin });
  });
}
