// The licences of everything that the package holds or installs, as one text: crates in the wasm modules, npm dependencies.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { output, read, root, stop } from "./lib.mjs";
import { WASM } from "./toolchain.mjs";

/** The notice of the licence's own Exhibit A. */
const MPL = `This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0. If a copy of the MPL was not distributed with
this file, You can obtain one at https://mozilla.org/MPL/2.0/.`;
const LICENCE_FILE = /^(licen[cs]e|copying|copyright|notice|unlicense)/i;

/**
 * Markdown that is the same wherever it is made from the same lock files.
 * `builds`: crate and features of each of the modules; `npmNames`: what the package depends on or bundles.
 */
export function thirdPartyLicences({ wasm }, builds, npmNames) {
  const components = [...crates(wasm, builds), ...npmNames.map(npmPackage), standardLibrary()];
  const texts = new Map();
  for (const component of components) {
    for (const text of textsOf(component)) {
      const key = text.replace(/\s+/g, " ").trim();
      if (!texts.has(key)) texts.set(key, { text: text.replace(/\r/g, "").trimEnd(), titles: [] });
      texts.get(key).titles.push(component.title);
    }
  }
  return [
    "# Third-party licences",
    "What webjepa is built from or depends on, with the licences of each. Sources are at the addresses given.",
    components.map(({ title, licence, url }) => `- [${title}](${url}): ${licence}`).join("\n"),
    ...[...texts.values()].map(({ text, titles }) => `## ${titles.join(", ")}\n\n\`\`\`\`text\n${text}\n\`\`\`\``),
    "",
  ].join("\n\n");
}

/** The crates that are linked into the modules; those that only run while compiling are left out. */
function crates({ cargo, env }, builds) {
  const answer = (...args) => output(cargo, args, { env }) ?? stop(`failed: cargo ${args.join(" ")}`);
  const linked = new Set();
  for (const { crate, features } of builds) {
    const select = ["--package", crate, "--target", WASM, "--no-default-features", "--features", features, "--edges", "normal,no-proc-macro"];
    const tree = answer("tree", "--locked", "--quiet", ...select, "--no-dedupe", "--prefix", "none", "--format", "{p}");
    for (const line of tree.split("\n")) linked.add(line.match(/^\S+ v\S+/)[0].replace(" v", " "));
  }
  const { packages } = JSON.parse(answer("metadata", "--locked", "--quiet", "--format-version", "1", "--filter-platform", WASM));
  // Those of this repository have no source.
  const foreign = packages.filter(({ name, version, source }) => source && linked.has(`${name} ${version}`));
  const titled = foreign.map(({ name, version, license, manifest_path, authors }) => ({
    title: `${name} ${version}`,
    licence: license ?? "see its text below",
    url: `https://crates.io/crates/${name}/${version}`,
    folder: dirname(manifest_path),
    authors,
  }));
  return titled.sort((a, b) => (a.title < b.title ? -1 : 1));
}

function npmPackage(name) {
  const folder = join(root, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  return { title: `${name} ${version}`, licence: license, url: `https://www.npmjs.com/package/${name}/v/${version}`, folder, authors: [] };
}

/** Part of every module, and no crate of a registry. */
function standardLibrary() {
  return { title: "The Rust standard library", licence: "MIT OR Apache-2.0", url: "https://github.com/rust-lang/rust", authors: ["The Rust Project Contributors"] };
}

/** What a component says itself or, where it has no file, the text that its licence names. Of several that it offers, MIT's. */
function textsOf({ title, licence, folder, authors }) {
  const files = folder ? readdirSync(folder).filter((name) => LICENCE_FILE.test(name) && !name.endsWith(".rs")).sort() : [];
  const offersMit = licence.includes("MIT") && !/\bAND\b/.test(licence) && files.some((name) => name.includes("MIT"));
  const chosen = offersMit ? files.filter((name) => /MIT|^notice|^copyright/i.test(name)) : files;
  if (chosen.length > 0) return chosen.map((name) => readFileSync(join(folder, name), "utf8"));
  const holder = authors.length > 0 ? authors.map((author) => author.replace(/ <.*>$/, "")).join(", ") : `the authors of ${title}`;
  if (licence.includes("MIT")) return [read("LICENSE-MIT").replace(/^Copyright .*$/m, `Copyright (c) ${holder}`)];
  if (licence.includes("Apache-2.0")) return [read("LICENSE-APACHE")];
  if (licence === "MPL-2.0") return [MPL];
  return stop(`${title} has no licence file, and its licence is ${licence}`);
}
