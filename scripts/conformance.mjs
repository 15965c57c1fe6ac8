// Compares the library with reference numbers: npm run conformance -- --fixtures DIR [--backend cpu|webgpu] [--json FILE]

import { join } from "node:path";
import { buildWasm } from "./build-wasm.mjs";
import { main, run, stop } from "./lib.mjs";
import { setup } from "./setup.mjs";

const MODULES = { cpu: ["cpu", "cpu-relaxed"], webgpu: ["webgpu"] };
const BACKENDS = Object.keys(MODULES);

export function conformance(args, rust) {
  const backend = args.includes("--backend") ? args[args.indexOf("--backend") + 1] : undefined;
  if (backend !== undefined && !BACKENDS.includes(backend)) stop(`--backend is ${BACKENDS.join(" or ")}, not ${backend}`);
  if (backend !== "webgpu") {
    const { cargo, env } = rust.native;
    run(cargo, ["build", "--locked", "--release", "--quiet", "--package", "webjepa-conformance"], { env });
    process.env.WEBJEPA_CONFORMANCE = join(env.CARGO_TARGET_DIR, "release", "webjepa-conformance");
  }
  for (const module of (backend ? [backend] : BACKENDS).flatMap((each) => MODULES[each])) buildWasm(`conformance-${module}`, rust);
  run(process.execPath, ["tests/conformance/run.mjs", ...args]);
}

await main(import.meta, (args) => conformance(args, setup({ browser: true })));
