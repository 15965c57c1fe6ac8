// Makes a fresh machine able to build and test: each missing thing is installed, or named in one line.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { cache, lockedVersion, main, output, read, root, run, say, stop } from "./lib.mjs";
import { apt, rustToolchain } from "./toolchain.mjs";

export const TOOLS = join(cache, "tools");
export const wasmBindgen = join(TOOLS, "bin", "wasm-bindgen");

/** Returns the Rust toolchains; `browser` also makes sure of Chromium. */
export function setup({ browser = false } = {}) {
  if (Number(process.versions.node.split(".")[0]) < 20) stop(`Node 20 or newer is needed, this is ${process.version}`);
  npmPackages();
  const rust = rustToolchain();
  bindgen(rust.native);
  if (browser) process.env.CHROMIUM_PATH = chromium();
  return rust;
}

/** Compares what is installed with the lock file, because time stamps lie after a fresh clone or an interrupted install. */
function npmPackages() {
  const packages = (...path) => Object.entries(JSON.parse(read(...path)).packages).filter(([name, { optional }]) => name && !optional);
  const installed = join("node_modules", ".package-lock.json");
  const versions = existsSync(join(root, installed)) ? new Map(packages(installed)) : new Map();
  if (packages("package-lock.json").every(([name, { version }]) => versions.get(name)?.version === version)) return;
  say("installing npm packages");
  run("npm", ["ci", "--no-fund", "--no-audit", "--loglevel=error"]);
}

/** The tool and the crate must agree to the last digit. */
function bindgen(rust) {
  cargoTool(rust, "wasm-bindgen-cli", lockedVersion("wasm-bindgen"), "wasm-bindgen");
}

/** Installs a program of a crate in the cache, where it is not of this version. */
export function cargoTool({ cargo, env }, crate, version, program) {
  if (output(join(TOOLS, "bin", program), ["--version"]) === `${program} ${version}`) return;
  say(`installing ${crate} ${version}, a few minutes, once`);
  run(cargo, ["install", crate, "--version", version, "--root", TOOLS, "--force", "--quiet"], { env: { ...env, CARGO_TARGET_DIR: join(TOOLS, "target") } });
}

function chromium() {
  const candidates = [process.env.CHROMIUM_PATH, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
  const find = () => candidates.find((path) => path && existsSync(path));
  if (!find()) apt(["chromium"], "Chromium and set CHROMIUM_PATH to it");
  return find() ?? stop("please set CHROMIUM_PATH to a Chromium");
}

await main(import.meta, () => {
  setup({ browser: true });
  say("set up");
});
