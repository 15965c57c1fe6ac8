// Makes pkg/, the package as it is published: npm run build

import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buildWasm, KINDS } from "./build-wasm.mjs";
import { bin, main, output, read, root, say, stop } from "./lib.mjs";
import { thirdPartyLicences } from "./licences.mjs";
import { setup } from "./setup.mjs";

/** What is published of each wasm build. */
const WASM_FILES = {
  core: ["webjepa.js", "bytes.js"],
  cpu: ["webjepa.js", "webjepa_bg.wasm"],
  "cpu-relaxed": ["webjepa.js", "webjepa_bg.wasm"],
  "cpu-threads": ["webjepa.js", "webjepa_bg.wasm"],
  webgpu: ["webjepa.js", "webjepa_bg.wasm"],
};

/** The library that is bundled into dist/hashes.js. */
const BUNDLED = "@noble/hashes";

export async function buildPackage(rust) {
  for (const kind of Object.keys(WASM_FILES)) buildWasm(kind, rust);
  const pkg = join(root, "pkg");
  rmSync(pkg, { recursive: true, force: true });
  bin("typescript/bin/tsc", ["--project", "www/tsconfig.json", "--outDir", join(pkg, "dist")]);
  await bundleHashes(join(pkg, "dist"));
  for (const [kind, files] of Object.entries(WASM_FILES)) {
    mkdirSync(join(pkg, "dist", "wasm", kind), { recursive: true });
    for (const file of files) cpSync(join(root, "www", "wasm", kind, file), join(pkg, "dist", "wasm", kind, file));
  }
  for (const file of ["LICENSE-MIT", "LICENSE-APACHE", "pkg-template/README.md"]) cpSync(join(root, file), join(pkg, file.split("/").at(-1)));
  const published = manifest();
  writeFileSync(join(pkg, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  const builds = Object.keys(WASM_FILES).map((kind) => KINDS[kind]);
  writeFileSync(join(pkg, "THIRD-PARTY-LICENSES.md"), thirdPartyLicences(rust, builds, [...Object.keys(published.dependencies), BUNDLED]));
  check(pkg);
}

/** Pages without a bundler cannot import packages, in a worker not even with an import map: the one that browsers need goes into its file. */
async function bundleHashes(dist) {
  // Imported only here, because the set-up may have to install it first.
  const { build } = await import("vite");
  const { version } = JSON.parse(read(`node_modules/${BUNDLED}/package.json`));
  const notice = `/*! ${BUNDLED} ${version}, MIT licence, (c) 2022 Paul Miller (paulmillr.com) */`;
  await build({
    configFile: false,
    root,
    logLevel: "warn",
    build: {
      outDir: dist,
      emptyOutDir: false,
      target: "es2022",
      minify: false,
      copyPublicDir: false,
      lib: { entry: join(dist, "hashes.js"), formats: ["es"], fileName: () => "hashes.js" },
      rolldownOptions: { output: { banner: notice } },
    },
  });
}

/** The template, with the crate's version and the dependency versions that the tests ran with. */
function manifest() {
  const template = JSON.parse(read("pkg-template/package.json"));
  const tested = JSON.parse(read("package.json")).devDependencies;
  template.version = read("Cargo.toml").match(/^version = "(.+)"$/m)[1];
  for (const name of Object.keys(template.dependencies)) template.dependencies[name] = tested[name] ?? stop(`${name} is not in package.json`);
  return template;
}

function check(pkg) {
  bin("publint/src/cli.js", [pkg, "--strict"]);
  bin("@arethetypeswrong/cli/dist/index.js", ["--pack", pkg, "--profile", "esm-only", "--no-emoji", "--no-color", "--format", "ascii"]);
  const [packed] = JSON.parse(output("npm", ["pack", "--dry-run", "--json"], { cwd: pkg }) ?? stop("npm pack refused pkg/"));
  const stray = packed.files.map(({ path }) => path).filter((path) => !/^(dist\/(?!.*\.test\.).+\.(js|d\.ts|wasm)|package\.json|README\.md|LICENSE-(MIT|APACHE)|THIRD-PARTY-LICENSES\.md)$/.test(path));
  if (stray.length > 0) stop(`pkg/ holds what should not be published: ${stray.join(", ")}`);
  say(`pkg/ is ${packed.id}, ${packed.files.length} files, ${(packed.size / 1e6).toFixed(1)} MB packed`);
}

await main(import.meta, () => buildPackage(setup()));
