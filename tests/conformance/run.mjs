// Runs the conformance checks on every host that a backend has, and prints one table. Built and called by scripts/conformance.mjs.

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { CHROMIUM, CHROMIUM_FLAGS, LAVAPIPE } from "../../scripts/hosts.mjs";
import { markdownTable, putMarked } from "../../scripts/lib.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
const { values } = parseArgs({
  options: {
    fixtures: { type: "string", default: join(root, "tests", "fixtures") },
    backend: { type: "string" },
    only: { type: "string", multiple: true, default: [] },
    json: { type: "string" },
    markdown: { type: "string" },
  },
});
const fixtures = resolve(values.fixtures);
if (!existsSync(join(fixtures, "manifest.json"))) fail(`${fixtures} holds no manifest.json; --fixtures names a folder of fixtures`);

const hosts = { cpu: { native, "wasm in Node": wasmInNode, "relaxed wasm in Node": relaxedInNode }, webgpu: { Chromium: webgpuInChromium } };
if (LAVAPIPE) hosts.webgpu["Node on lavapipe"] = webgpuInNode;

const checks = [];
for (const [backend, runs] of Object.entries(hosts)) {
  if (values.backend && values.backend !== backend) continue;
  for (const [host, run] of Object.entries(runs)) {
    const found = await run().catch((error) => [crash(error)]);
    checks.push(...found.map((check) => ({ ...check, backend: `${backend}, ${host}` })));
  }
}
report();

function native() {
  const { stdout, stderr, status } = spawnSync(process.env.WEBJEPA_CONFORMANCE, [fixtures, ...values.only], { encoding: "utf8", maxBuffer: 1 << 28 });
  return status === 0 ? Promise.resolve(JSON.parse(stdout)) : Promise.reject(new Error(stderr));
}

function wasmInNode() {
  return inNode("cpu", {});
}

function relaxedInNode() {
  // Node has relaxed SIMD from version 22 on, and before behind a flag that later ones do not know.
  const flags = parseInt(process.versions.node) < 22 ? ["--experimental-wasm-relaxed-simd"] : [];
  return inNode("cpu-relaxed", {}, flags);
}

function webgpuInNode() {
  return inNode("webgpu", { VK_ICD_FILENAMES: LAVAPIPE, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? "/tmp" });
}

function inNode(module, env, flags = []) {
  const args = [...flags, join(root, "tests", "conformance", "node.mjs"), module, fixtures, ...values.only];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: "utf8", maxBuffer: 1 << 28, env: { ...process.env, ...env } });
  return status === 0 ? Promise.resolve(JSON.parse(stdout)) : Promise.reject(new Error(stderr.trim().split("\n").slice(-8).join("\n")));
}

/** A real browser. Whatever it reports besides the results (console errors, WebGPU errors) is a failed check. */
async function webgpuInChromium() {
  const server = await serve();
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  try {
    const page = await browser.newPage();
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    await page.goto(`${server.url}/tests/conformance/page.html`);
    const found = await page.evaluate(([paths, only]) => globalThis.check(paths, only), [list(fixtures), values.only]);
    return [...found, ...complaints.map((text) => ({ ...crash(text), check: "no error in the browser" }))];
  } finally {
    await browser.close();
    server.close();
  }
}

function serve() {
  const types = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const [base, rest] = path.startsWith("/fixtures/") ? [fixtures, path.slice("/fixtures".length)] : [root, path];
    const file = join(base, rest);
    if (!file.startsWith(base) || !existsSync(file)) return response.writeHead(path === "/favicon.ico" ? 204 : 404).end();
    response.writeHead(200, { "content-type": types[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
  });
  return new Promise((done) => {
    server.listen(0, "127.0.0.1", () => done({ url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() }));
  });
}

function list(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)).split(sep).join("/"));
}

function crash(error) {
  return { file: "", check: "ran to the end", difference: null, tolerance: null, verdict: "fail", note: String(error?.message ?? error) };
}

function report() {
  const number = (value) => (value === null ? "" : value === 0 ? "0" : value.toExponential(1));
  const rows = checks.map((c) => [c.file, c.check, c.backend, number(c.difference), number(c.tolerance), c.verdict, c.note]);
  const head = ["file", "check", "backend", "max abs difference", "tolerance", "verdict", ""];
  const widths = head.map((title, i) => Math.min(70, Math.max(title.length, ...rows.map((row) => row[i].length))));
  for (const row of [head, ...rows]) console.log(row.map((cell, i) => cell.padEnd(i === 6 ? 0 : widths[i])).join("  ").trimEnd());
  const count = (verdict) => checks.filter((c) => c.verdict === verdict).length;
  console.log(`\nchecks: ${count("pass")} passed, ${count("fail")} failed, ${count("skip")} skipped`);
  if (values.json) writeFileSync(values.json, JSON.stringify(checks, null, 1));
  if (values.markdown) intoMarkdown(values.markdown, number);
  const complete = count("skip") === 0;
  process.exitCode = count("pass") > 0 && count("fail") === 0 && complete ? 0 : 1;
}

/** Replaces what stands between the markers of a document by one table, with a column for each host. */
function intoMarkdown(file, number) {
  const columns = [...new Set(checks.map((c) => c.backend))];
  const compared = checks.filter((c) => c.difference !== null);
  const keys = [...new Set(compared.map((c) => `${c.file}\0${c.check}`))];
  const row = (key) => {
    const cells = columns.map((backend) => compared.find((c) => c.backend === backend && `${c.file}\0${c.check}` === key));
    const shown = cells.map((c) => (c ? `${number(c.difference)} of ${number(c.tolerance)}${c.verdict === "pass" ? "" : " **fails**"}` : "–"));
    return [...key.split("\0"), ...shown];
  };
  putMarked(file, "conformance", markdownTable([["file", "check", ...columns], ...keys.map(row)]));
}

function fail(message) {
  console.error(`webjepa: ${message}`);
  process.exit(1);
}
