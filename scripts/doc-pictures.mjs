// Draws the pictures of the guides with the built package, in Chromium on the CPU: node scripts/doc-pictures.mjs [NAME …]

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";
import { CHROMIUM, CHROMIUM_FLAGS } from "./hosts.mjs";
import { main, root, say, stop } from "./lib.mjs";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json", ".png": "image/png" };
const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<style>body { margin: 0; padding: 12px; display: inline-grid; grid-auto-flow: column; gap: 12px; background: #fff; font: 14px/1.4 system-ui, sans-serif; color: #15191b }
figure { margin: 0 } canvas { display: block; max-width: none } figcaption { padding-top: 4px }</style>
<script type="importmap">{ "imports": { "webjepa": "/pkg/dist/index.js", "webjepa/viz": "/pkg/dist/viz/index.js" } }</script>`;

await main(import.meta, async (names) => {
  if (!existsSync(join(root, "pkg", "dist", "viz"))) stop("pkg/ is not there: npm run build");
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    if (path === "/") return response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    const file = join(root, path);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS.filter((flag) => !flag.includes("webgpu")) });
  try {
    for (const name of names.length > 0 ? names : ["features", "masks", "prediction", "scatter", "collapse"]) {
      const page = await browser.newPage();
      page.on("console", (message) => console.log(`${name}: ${message.text()}`));
      await page.goto(`http://127.0.0.1:${server.address().port}/`);
      await page.evaluate((name) => import("/scripts/doc-pictures-page.js").then((pictures) => pictures[name]()), name);
      writeFileSync(join(root, "docs", "images", `guide-${name}.png`), await page.locator("body").screenshot());
      say(`docs/images/guide-${name}.png`);
      await page.close();
    }
  } finally {
    await browser.close();
    server.close();
  }
});
