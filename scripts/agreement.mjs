// How far backends and types of weights are apart, over all systems of the fixtures and odd shapes:
// npm run agreement [-- --markdown docs/numerics.md] [-- --json FILE]
//
// Reference is the CPU with f32 weights, which the conformance run holds to the published numbers.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { AC_CONFIG, acCheckpoint } from "./fixtures.mjs";
import { CHROMIUM, CHROMIUM_FLAGS } from "./hosts.mjs";
import { main, markdownTable, putMarked, read, root, say, stop } from "./lib.mjs";

/** What is allowed of tokens, from the fixtures' README: f32 on WebGPU, and f16; q8 has no published tolerance, and none here. */
const TOLERANCES = { f32: 5e-4, f16: 3e-2 };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };
const PAGE = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="importmap">{ "imports": { "webjepa": "/pkg/dist/index.js" } }</script>';
/** Where the page finds the checkpoint that is no file by itself. */
const AC = "/vjepa2_ac_tiny.safetensors";
const COLUMNS = [["webgpu", "f32"], ["cpu", "f16"], ["webgpu", "f16"], ["cpu", "q8"], ["webgpu", "q8"]];

/** The models: a folder, or a file with the geometry that the manifest says. */
function models() {
  const { files } = JSON.parse(read("tests/fixtures/manifest.json"));
  const original = (name, more) => {
    const { params, weights } = files[`${name}.json`];
    const config = {
      imageSize: params.img,
      patchSize: params.patch,
      hiddenSize: params.embed,
      layers: params.depth,
      heads: params.heads,
      mlpRatio: params.mlp_ratio_encoder,
      layerNormEps: params.ln_eps,
      predictor: { hiddenSize: params.pred_dim, layers: params.pred_depth, heads: params.pred_heads, mlpRatio: params.mlp_ratio_predictor },
      ...(params.frames ? { frames: params.frames, tubelet: params.tubelet } : {}),
      ...more,
    };
    return { name, source: `/tests/fixtures/${weights}`, config };
  };
  return [
    { name: "ijepa_ti16", source: "/tests/fixtures/ijepa_ti16/" },
    original("ijepa_tiny", {}),
    original("vjepa1_tiny", { system: "vjepa" }),
    original("vjepa2_tiny", { system: "vjepa2" }),
    { name: "vjepa2_pan", source: "/tests/fixtures/vjepa2_pan/" },
    { name: "vjepa2_tiny_probe", source: "/tests/fixtures/vjepa2_tiny_hf/", probe: "/tests/fixtures/vjepa2_tiny_probe.safetensors", heads: files["vjepa2_tiny.json"].params.probe_heads },
    original("vjepa21_tiny", { system: "vjepa2.1", ropeGrid: files["vjepa21_tiny.json"].params.rope_pretrained_grid }),
    // Its random weights enlarge the rounding of its own with every prediction that is fed back, sixteenfold by the fourth; the tolerance of f16 is of one pass.
    { name: "vjepa2_ac_tiny", source: AC, config: AC_CONFIG, world: true, fedBack: ["five of four actions", "three of two actions, after all frames that it sees"] },
    { name: "lewm (tests/data)", source: "/tests/data/lewm.safetensors", world: true, config: { system: "lewm", imageSize: 12, patchSize: 4, hiddenSize: 12, layers: 2, heads: 3, lewm: { actionSize: 3, actionChannels: 5, projectorHidden: 14, layers: 2, heads: 3, headDim: 6, mlpHidden: 20 } } },
  ];
}

export async function agreement(args) {
  const { markdown, json } = parseArgs({ args, options: { markdown: { type: "string" }, json: { type: "string" } } }).values;
  if (!existsSync(join(root, "pkg", "package.json"))) stop("pkg/ is not there: npm run build");
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    if (path === "/") return response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    if (path === AC) return response.writeHead(200, { "content-type": "application/octet-stream" }).end(Buffer.concat(acCheckpoint()));
    const file = join(root, path);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  // Only now, as `npm test` reads this file before it has installed anything.
  const { chromium } = await import("playwright-core");
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  try {
    const page = await browser.newPage();
    const faults = [];
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => /webgpu|wgsl|shader|validation/i.test(message.text()) && ["error", "warning"].includes(message.type()) && faults.push(message.text()));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const rows = [];
    for (const model of models()) {
      say(`comparing ${model.name}`);
      const compared = await page.evaluate(([model, columns]) => import("/scripts/agreement-page.js").then(({ compared }) => compared(model, columns)), [model, COLUMNS]);
      rows.push(...compared.map((row) => ({ ...row, fedBack: model.fedBack?.includes(row.input) ?? false })));
    }
    if (faults.length > 0) stop(`WebGPU complained: ${faults.join("\n")}`);
    report(rows, { markdown, json });
  } finally {
    await browser.close();
    server.close();
  }
}

function report(rows, { markdown, json }) {
  const number = (value) => (value === 0 ? "0" : value.toExponential(1));
  const titles = COLUMNS.map(([backend, dtype]) => `${backend === "cpu" ? "CPU" : "WebGPU"} ${dtype}`);
  const head = ["model", "what", "input", "largest value", ...titles];
  const cells = rows.map(({ model, what, input, largest, differences }) => [model, what, input, largest.toPrecision(2), ...differences.map(number)]);
  const worst = COLUMNS.map((_, i) => Math.max(...rows.map(({ differences }) => differences[i])));
  cells.push(["**worst**", "", "", "", ...worst.map((value) => `**${number(value)}**`)]);
  const table = markdownTable([head, ...cells]);
  console.log(table);
  if (json) writeFileSync(json, JSON.stringify(rows, null, 1));
  if (markdown) putMarked(markdown, "agreement", table);
  const beyond = COLUMNS.flatMap(([backend, dtype], i) => rows.filter(({ differences, fedBack }) => !(differences[i] <= ((fedBack && dtype !== "f32" ? undefined : TOLERANCES[dtype]) ?? Infinity))).map(({ model, what, input, differences }) => `${model}, ${what}, ${input} on ${backend} in ${dtype}: ${number(differences[i])}`));
  if (beyond.length > 0) stop(`beyond the tolerances of the fixtures:\n${beyond.join("\n")}`);
}

await main(import.meta, agreement);
