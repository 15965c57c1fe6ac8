// Fuzzes what reads bytes of strangers with libFuzzer, from the corpora in fuzz/: npm run fuzz [-- TARGET …] [--seconds N]
// What is found on the way is kept in the cache, so that the next run goes on from there.

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";
import { cache, main, output, root, run, say, stop } from "./lib.mjs";
import { cargoTool, TOOLS } from "./setup.mjs";

/** Of cargo-fuzz, which builds with the flags that libFuzzer needs, and runs. */
const VERSION = "0.13.2";
const FUZZ = join(root, "fuzz");
const TARGETS = readdirSync(join(FUZZ, "fuzz_targets")).map((name) => name.replace(/\.rs$/, ""));

/** A nightly of rustup: sanitizers are not in other toolchains. */
function nightly() {
  const find = () => (output("rustup", ["toolchain", "list"]) ?? "").split("\n").map((line) => line.split(" ")[0]).find((name) => name.startsWith("nightly"));
  if (output("rustup", ["--version"]) === undefined) stop("fuzzing needs a nightly Rust: install rustup (rustup.rs)");
  if (!find()) {
    say("installing a nightly Rust with rustup");
    output("rustup", ["toolchain", "install", "nightly", "--profile", "minimal"]);
  }
  return find() ?? stop("fuzzing needs a nightly Rust, which could not be installed: rustup toolchain install nightly");
}

/** The row of a target in the table of docs/reliability.md, and whether all was well. */
function fuzz(target, seconds, { cargo, env }) {
  const found = join(cache, "fuzz", target);
  mkdirSync(found, { recursive: true });
  // libFuzzer writes to the first folder, and only reads the others.
  const corpora = [found, join(FUZZ, "corpus", target)].filter((folder) => existsSync(folder));
  const limits = [`-max_total_time=${seconds}`, "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"];
  const { status, error, stderr } = spawnSync(cargo, ["fuzz", "run", "--target-dir", join(cache, "target-fuzz"), target, ...corpora, "--", ...limits], { cwd: root, env, encoding: "utf8", maxBuffer: 1 << 28 });
  if (error) stop(`cannot run ${cargo}: ${error.message}`);
  const coverage = [...stderr.matchAll(/^#\d+\s+\w+\s+cov: (\d+)/gm)].map(([, edges]) => Number(edges));
  const [, inputs] = /^stat::number_of_executed_units:\s*(\d+)/m.exec(stderr) ?? [];
  if (inputs === undefined) stop(`${target} could not be fuzzed:\n${stderr.trim().split("\n").slice(-20).join("\n")}`);
  const [, artifact] = /Test unit written to (\S+)/.exec(stderr) ?? [];
  if (status !== 0) console.error(stderr.trim().split("\n").slice(-60).join("\n"));
  const number = (value) => value.toLocaleString("en");
  return { failed: status !== 0, row: `| \`${target}\` | ${seconds} s | ${number(Number(inputs))} | ${number(coverage[0])} → ${number(coverage.at(-1))} | ${status === 0 ? "0" : (artifact ?? `status ${status}`)} |` };
}

await main(import.meta, (args) => {
  const { values, positionals } = parseArgs({ args, options: { seconds: { type: "string", default: "60" } }, allowPositionals: true });
  const unknown = positionals.find((target) => !TARGETS.includes(target));
  if (unknown) stop(`no target "${unknown}"; there are ${TARGETS.join(", ")}`);
  const seconds = Number(values.seconds);
  if (!Number.isInteger(seconds) || seconds < 1) stop(`--seconds is a whole number from 1 on, not ${values.seconds}`);
  const rust = { cargo: "cargo", env: { ...process.env, RUSTUP_TOOLCHAIN: nightly(), PATH: join(TOOLS, "bin") + delimiter + process.env.PATH } };
  cargoTool(rust, "cargo-fuzz", VERSION, "cargo-fuzz");
  say("building the targets");
  run(rust.cargo, ["fuzz", "build", "--target-dir", join(cache, "target-fuzz")], rust);
  const rows = [];
  for (const target of positionals.length > 0 ? positionals : TARGETS) {
    say(`fuzzing ${target} for ${seconds} s`);
    rows.push(fuzz(target, seconds, rust));
  }
  console.log(["| target | time | inputs | coverage | crashes, timeouts, out of memory |", "|---|---|---|---|---|", ...rows.map(({ row }) => row)].join("\n"));
  if (rows.some(({ failed }) => failed)) stop("there are inputs that the library does not stand; `cargo fuzz run TARGET FILE` shows one again");
});
