// What the scripts share: where things are, running a program, saying in one line what is wrong.
// Node's own modules only, here and in setup.mjs: both run before `npm ci`.

import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Build tools and build results live outside the checkout, so that a fresh clone finds them. */
export const cache = process.env.WEBJEPA_CACHE ?? join(homedir(), ".cache", "webjepa");

/** A fault that the user can act on; its message is the whole report. */
export class Stop extends Error {}

export function stop(message) {
  throw new Stop(message);
}

export const say = (line) => console.log(`webjepa: ${line}`);
export const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
export const read = (...path) => readFileSync(join(root, ...path), "utf8");

/** A table of Markdown; the first row is its head. */
export const markdownTable = ([head, ...rows]) => [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");

/** Replaces what stands in a document between the lines `<!-- name -->` and `<!-- /name -->`. */
export function putMarked(file, name, text) {
  const marked = new RegExp(`(<!-- ${name} -->\n)[^]*(\n<!-- /${name} -->)`);
  const document = readFileSync(file, "utf8");
  if (!marked.test(document)) stop(`${file} has no place for the table: the lines <!-- ${name} --> and <!-- /${name} -->`);
  writeFileSync(file, document.replace(marked, (_, before, after) => `${before}\n${text}\n${after}`));
}

/** Runs a program in the repository with its output shown; anything but success ends the script. */
export function run(command, args, { env, cwd = root } = {}) {
  const { status, error } = spawnSync(command, args, { cwd, stdio: "inherit", env: { ...process.env, ...env } });
  if (error) stop(`cannot run ${command}: ${error.message}`);
  if (status !== 0) stop(`failed: ${[command, ...args].join(" ")}`);
}

/** The trimmed output of a program, or undefined when it is absent or fails. */
export function output(command, args, { env, cwd = root } = {}) {
  const { status, stdout } = spawnSync(command, args, { cwd, encoding: "utf8", env: { ...process.env, ...env }, maxBuffer: 1 << 28 });
  return status === 0 ? stdout.trim() : undefined;
}

/** Runs a program of a package in node_modules, without npx's look-ups. */
export function bin(name, args, options) {
  run(process.execPath, [join(root, "node_modules", name), ...args], options);
}

/** The version of a crate in Cargo.lock. */
export function lockedVersion(crate) {
  return read("Cargo.lock").match(new RegExp(`name = "${crate}"\nversion = "(.+)"`))?.[1] ?? stop(`Cargo.lock has no ${crate}`);
}

/** Calls `script` when its module is the program that Node was asked to run. */
export async function main(meta, script) {
  if (process.argv[1] !== fileURLToPath(meta.url)) return;
  try {
    await script(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    console.error(`webjepa: ${error.message}`);
    process.exitCode = 1;
  }
}
