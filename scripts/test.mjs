// Sets up what is missing and runs every test, cheapest first: npm test [-- --only STAGE], npm run test:full for those of FULL, too

import { parseArgs } from "node:util";
import { agreement } from "./agreement.mjs";
import { buildPackage } from "./build-package.mjs";
import { buildWasm } from "./build-wasm.mjs";
import { conformance } from "./conformance.mjs";
import { buildDocs } from "./docs.mjs";
import { Stop, bin, main, run, seconds, stop } from "./lib.mjs";
import { setup } from "./setup.mjs";
import { sizeReport } from "./size-report.mjs";
import { WASM } from "./toolchain.mjs";

const cargo = ({ cargo, args, env }, command, ...rest) => run(cargo, [command, ...args, ...rest], { env });
const tsc = (project) => bin("typescript/bin/tsc", ["--noEmit", "--project", project]);
const vitest = (project) => bin("vitest/vitest.mjs", ["run", "--project", project]);

/** In the order in which they run; a stage may use what those above it built. */
const STAGES = {
  format: ({ native }) => cargo(native, "fmt", "--all", "--check"),
  types: () => ["www/tsconfig.json", "www/tsconfig.tests.json", "www/demo/tsconfig.json"].forEach(tsc),
  lint({ native, wasm }) {
    cargo(native, "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings");
    if (wasm !== native) return;
    for (const features of ["", "webgpu"]) cargo(wasm, "clippy", "--locked", "--lib", "--target", WASM, "--no-default-features", "--features", features, "--", "-D", "warnings");
  },
  rust: ({ native }) => cargo(native, "test", "--locked", "--workspace", "--release"),
  wasm: (rust) => ["core", "cpu", "cpu-relaxed", "cpu-threads", "webgpu"].forEach((kind) => buildWasm(kind, rust)),
  size: sizeReport,
  unit: () => vitest("unit"),
  fuzz: () => vitest("fuzz"),
  package: buildPackage,
  docs() {
    buildDocs();
    vitest("docs");
  },
  packaging: () => vitest("packaging"),
  "packaging-full": () => vitest("packaging-full"),
  reliability: () => vitest("reliability"),
  browser: () => vitest("browser"),
  conformance: (rust) => conformance(["--fixtures", "tests/fixtures"], rust),
  agreement: () => agreement(["--markdown", "docs/numerics.md"]),
};

/** Stages that run when they are asked for. */
const FULL = ["packaging-full", "reliability", "agreement"];

await main(import.meta, async (args) => {
  const { only, full } = parseArgs({ args, options: { only: { type: "string" }, full: { type: "boolean", default: false } } }).values;
  if (only !== undefined && !(only in STAGES)) stop(`no stage "${only}"; there are ${Object.keys(STAGES).join(", ")}`);
  const rust = setup({ browser: true });
  const stages = only === undefined ? Object.keys(STAGES).filter((stage) => full || !FULL.includes(stage)) : [only];
  const passed = [];
  let failed;
  for (const stage of stages) {
    console.log(`\n── ${stage}`);
    const start = performance.now();
    try {
      await STAGES[stage](rust);
      passed.push(`${stage.padEnd(14)} ${seconds(start).padStart(9)}`);
    } catch (error) {
      failed = stage;
      console.error(error instanceof Stop ? `webjepa: ${error.message}` : error);
      break;
    }
  }
  console.log(`\n${passed.join("\n")}`);
  if (failed) console.log(`${failed} failed; again alone: npm test -- --only ${failed}`);
  const [failures, skipped] = [failed ? 1 : 0, stages.length - passed.length - (failed ? 1 : 0)];
  console.log(`stages: ${passed.length} passed, ${failures} failed${skipped ? `, ${skipped} skipped` : ""}`);
  process.exitCode = failures;
});
