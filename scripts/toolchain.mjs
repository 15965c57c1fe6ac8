// Finds a Rust that can build for the browser, and installs what is missing.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { cache, output, read, run, say, stop } from "./lib.mjs";

export const WASM = "wasm32-unknown-unknown";
const PINNED = read("rust-toolchain.toml").match(/channel = "(.+)"/)[1];
const DEBIAN = ["rustc-web", "cargo-web", "rust-web-src", "lld-22"];
const TARGET_DIR = { CARGO_TARGET_DIR: join(cache, "target") };

/**
 * How to call cargo for this machine and for the browser: `{ native, wasm }`, each `{ cargo, args, env }`.
 * In this order: a rustup toolchain that has the target, one that can be given it, Debian's own Rust for the web.
 */
export function rustToolchain() {
  if (output("cc", ["--version"]) === undefined) apt(["gcc", "libc6-dev"], "a C compiler, which Rust links with");
  const toolchains = rustupToolchains();
  for (const has of [hasTarget, addTarget]) {
    const name = toolchains.find(has);
    if (name) {
      const rust = { cargo: "cargo", args: [], env: { ...TARGET_DIR, RUSTUP_TOOLCHAIN: name } };
      return { native: rust, wasm: rust };
    }
  }
  const debian = debianRust();
  const rustup = { cargo: "cargo", args: [], env: { ...TARGET_DIR, RUSTUP_TOOLCHAIN: toolchains[0] } };
  return { native: toolchains.length > 0 ? rustup : { ...debian, args: [] }, wasm: debian };
}

/** Names of the usable rustup toolchains: the pinned one, installed now if it can be, then others of at least its version. */
function rustupToolchains() {
  const version = (name) => output("rustc", ["--version"], { env: { RUSTUP_TOOLCHAIN: name } })?.match(/ (\d+)\.(\d+)\.\d+ /);
  const [major, minor] = PINNED.split(".").map(Number);
  const installed = () => (output("rustup", ["toolchain", "list"]) ?? "").split("\n").map((line) => line.split(" ")[0]).filter(Boolean);
  const isPinned = (name) => name === PINNED || name.startsWith(`${PINNED}-`);
  if (output("rustup", ["--version"]) === undefined) return [];
  if (!installed().some(isPinned)) {
    say(`installing Rust ${PINNED} with rustup`);
    output("rustup", ["toolchain", "install", PINNED, "--profile", "minimal", "--component", "rustfmt,clippy", "--target", WASM]);
  }
  const names = installed().sort((a, b) => isPinned(b) - isPinned(a));
  return names.filter((name) => {
    if (isPinned(name)) return true;
    const found = version(name);
    return found && Number(found[1]) === major && Number(found[2]) >= minor;
  });
}

function hasTarget(toolchain) {
  const directory = output("rustc", ["--print", "target-libdir", "--target", WASM], { env: { RUSTUP_TOOLCHAIN: toolchain } });
  return directory !== undefined && existsSync(directory);
}

function addTarget(toolchain) {
  say(`adding ${WASM} to Rust ${toolchain}`);
  return output("rustup", ["target", "add", WASM, "--toolchain", toolchain]) !== undefined;
}

/** Debian ships no compiled standard library for the target, but its source: cargo builds it along, once. */
function debianRust() {
  const [cargo, linker] = ["/usr/bin/cargo", "/usr/bin/wasm-ld-22"];
  if (!existsSync(linker) || !output(cargo, ["--version"])) apt(DEBIAN, `Rust with the ${WASM} target: \`rustup target add ${WASM}\``);
  return {
    cargo,
    args: ["-Zbuild-std=std,panic_abort"],
    env: {
      CARGO_TARGET_DIR: join(cache, "target-debian"),
      PATH: `/usr/bin:${process.env.PATH}`,
      RUSTC_BOOTSTRAP: "1",
      CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER: linker,
    },
  };
}

/** Installs Debian packages where this user may; elsewhere says what to install. */
export function apt(packages, otherwise) {
  const advice = `please install ${otherwise}, or as root: apt-get install ${packages.join(" ")}`;
  if (process.getuid?.() !== 0 || !output("apt-get", ["--version"])) stop(advice);
  say(`installing ${packages.join(", ")} with apt-get`);
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  try {
    run("apt-get", ["update", "-qq"], { env });
    run("apt-get", ["install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", ...packages], { env });
  } catch {
    stop(advice);
  }
}
