// Sets up what is missing, builds, and serves the demo: npm start [-- --port N]

import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildWasm } from "./build-wasm.mjs";
import { main, root, say, stop } from "./lib.mjs";
import { setup } from "./setup.mjs";

await main(import.meta, async (args) => {
  const port = Number(parseArgs({ args, options: { port: { type: "string", default: "5173" } } }).values.port);
  if (!Number.isInteger(port)) stop("--port wants a number");
  const rust = setup();
  for (const kind of ["core", "cpu", "cpu-relaxed", "cpu-threads", "webgpu"]) buildWasm(kind, rust);
  const { createServer } = await import("vite");
  const server = await createServer({ configFile: join(root, "www", "vite.config.ts"), server: { port } });
  await server.listen();
  say(`the demo is at ${server.resolvedUrls.local[0]} (Ctrl+C ends it)`);
});
