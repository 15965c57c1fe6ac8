// Draws the pictures of the guides with the built package, in Chromium on the CPU: node scripts/doc-pictures.mjs [NAME …]

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { createServer } from "vite";
import { CHROMIUM, CHROMIUM_FLAGS } from "./hosts.mjs";
import { main, root, say, stop } from "./lib.mjs";

const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<style>body { margin: 0; padding: 12px; display: inline-grid; grid-auto-flow: column; gap: 12px; background: #fff; font: 14px/1.4 system-ui, sans-serif; color: #15191b }
figure { margin: 0 } canvas { display: block; max-width: none } figcaption { padding-top: 4px }</style>`;
const dist = join(root, "pkg", "dist");

await main(import.meta, async (names) => {
  if (!existsSync(join(dist, "viz"))) stop("pkg/ is not there: npm run build");
  // The pictures share code with the demo, which is TypeScript.
  const server = await createServer({
    root,
    configFile: false,
    appType: "custom",
    logLevel: "error",
    resolve: { alias: { "webjepa/viz": join(dist, "viz", "index.js"), webjepa: join(dist, "index.js") } },
    optimizeDeps: { noDiscovery: true },
    server: { host: "127.0.0.1", hmr: false, watch: null },
    plugins: [{ name: "page", configureServer: ({ middlewares }) => void middlewares.use((request, response, next) => (request.url === "/" ? response.setHeader("content-type", "text/html").end(PAGE) : next())) }],
  });
  await server.listen();
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS.filter((flag) => !flag.includes("webgpu")) });
  try {
    for (const name of names.length > 0 ? names : ["features", "masks", "prediction", "scatter", "collapse", "rooms", "imagined", "plan", "surprise"]) {
      const page = await browser.newPage();
      page.on("console", (message) => console.log(`${name}: ${message.text()}`));
      await page.goto(server.resolvedUrls.local[0]);
      await page.evaluate((name) => import("/scripts/doc-pictures-page.js").then((pictures) => pictures[name]()), name);
      writeFileSync(join(root, "docs", "images", `guide-${name}.png`), await page.locator("body").screenshot());
      say(`docs/images/guide-${name}.png`);
      await page.close();
    }
  } finally {
    await browser.close();
    await server.close();
  }
});
