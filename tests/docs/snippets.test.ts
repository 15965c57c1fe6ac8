// Every program of the documents: its types, and that it runs to its end without a complaint, with tiny checkpoints in the place of real ones.

import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium, type Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AC_CONFIG, acCheckpoint, classifierCheckpoint } from "../../scripts/fixtures.mjs";
import { CHROMIUM, CHROMIUM_FLAGS } from "../../scripts/hosts.mjs";
import { ERROR_CODES } from "../../www/src/errors.js";
import { watchErrors } from "../browser/harness.js";
import { startServer, type TestServer } from "../unit/server.js";
import * as library from "../../www/src/index.js";
import * as viz from "../../www/src/viz/index.js";
import { examples, examplesOf, programs, programsOf, type Program } from "./snippets.js";

const execute = promisify(execFile);
const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
const PKG = path("../../pkg");
const PHOTO = path("../fixtures/ijepa_ti16/image.png");
const LEWM = { system: "lewm", imageSize: 12, patchSize: 4, hiddenSize: 12, layers: 2, heads: 3, lewm: { actionSize: 3, actionChannels: 5, projectorHidden: 14, layers: 2, heads: 3, headDim: 6, mlpHidden: 20 } };

/** The models that documents name, and the tiny ones that are there instead; that of Two Rooms is itself. */
const MODELS: Record<string, string> = { ijepa_vith14_1k: path("../fixtures/ijepa_ti16"), "vjepa2-vitl-fpc64-256": path("../fixtures/vjepa2_tiny_hf"), "two-rooms": path("../../www/demo/models/two-rooms") };

const all = programs();
const project = mkdtempSync(join(tmpdir(), "webjepa-docs-"));

beforeAll(() => {
  if (!existsSync(join(PKG, "package.json"))) throw new Error("pkg/ is not there: npm run build");
  mkdirSync(join(project, "node_modules"));
  symlinkSync(PKG, join(project, "node_modules", "webjepa"), "dir");
  for (const name of ["@types", "mediabunny"]) symlinkSync(path(`../../node_modules/${name}`), join(project, "node_modules", name), "dir");
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module" }));
  for (const [name, folder] of Object.entries(MODELS)) cpSync(folder, join(project, "models", name), { recursive: true });
  cpSync(PHOTO, join(project, "photos", "coffee.png"));
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

it("finds the programs of all documents", () => {
  const documents = new Set(all.map(({ name }) => name.replace(/:\d+$/, "")));
  for (const document of ["README.md", "pkg-template/README.md", "docs/training.md", "docs/video.md", "docs/guides/search.md"]) expect(documents).toContain(document);
  const text = '# A\n\n```js\nlet a = 1;\n```\n\n<!-- continued -->\n```js\na++;\n```\n\n<!-- with: let b; -->\n```js\nb = 2;\n```\n\n```sh\nls\n```\n';
  expect(programsOf("a.md", text)).toEqual([
    { name: "a.md:3", code: "let a = 1;\na++;\n", node: false },
    { name: "a.md:13", code: "let b;\nb = 2;\n", node: false },
  ]);
  expect(() => programsOf("a.md", "<!-- continued -->\n```js\n```\n")).toThrow("continues nothing");
  expect(() => programsOf("a.md", "```ts\n```\n")).toThrow("not run");
});

it("troubleshoots every code that there is, and the README explains it", () => {
  const inTable = (document: string) => [...readFileSync(path(`../../${document}`), "utf8").matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, code]) => code);
  expect(inTable("docs/guides/troubleshooting.md")).toEqual([...ERROR_CODES]);
  expect(inTable("README.md")).toEqual([...ERROR_CODES]);
});

/** What the compiler says of programs, by their names. */
async function compiled(kind: string, given: string, list: readonly Program[], before: string): Promise<string> {
  const folder = join(project, kind);
  mkdirSync(folder);
  cpSync(path(given), join(folder, given));
  // A statement that is no comment makes each file a module, whose top level may await.
  list.forEach(({ name, code }, i) => writeFileSync(join(folder, `${i}.js`), `// ${name}\n${before}${code}\nexport {};\n`));
  const compilerOptions = { target: "esnext", module: "esnext", moduleResolution: "bundler", lib: ["ESNext", "DOM", "DOM.Iterable", "DOM.AsyncIterable"], types: ["node"], allowJs: true, checkJs: true, strict: false, noEmit: true, skipLibCheck: true };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["."] }));
  const said = await execute(process.execPath, [path("../../node_modules/typescript/bin/tsc"), "--project", folder]).then(() => "", ({ stdout }) => stdout as string);
  const first = before.split("\n").length;
  return said.replace(/^.*?(\d+)\.js\((\d+),/gm, (_, i, line) => `${list[Number(i)]!.name} + ${Number(line) - first - 1} (`);
}

it("has types that fit", async () => {
  expect(await compiled("types", "given.d.ts", all, "")).toBe("");
});

it("has types that fit in the examples of the API's comments", async () => {
  const text = "/**\n * @example\n * f();\n *\n * @example\n * g();\n * h();\n */\n  /**\n   * @example\n   * i();\n   * @throws never\n   */\n";
  expect(examplesOf("a.ts", text).map(({ name, code }) => [name, code.trim()])).toEqual([["a.ts:3", "f();"], ["a.ts:6", "g();\nh();"], ["a.ts:11", "i();"]]);
  const list = examples();
  for (const file of ["www/src/jepa.ts", "www/src/trainer.ts", "www/src/world.ts", "www/src/viz/masks.ts"]) expect(list.map(({ name }) => name.replace(/:\d+$/, ""))).toContain(file);
  const imports = Object.entries({ webjepa: library, "webjepa/viz": viz }).map(([name, exports]) => `import { ${Object.keys(exports).join(", ")} } from "${name}";`);
  expect(await compiled("examples", "examples.d.ts", list, `${imports.join(" ")}\n`)).toBe("");
});

describe.each(all.filter(({ node }) => node))("$name, in Node", ({ code }) => {
  it("runs", async () => {
    writeFileSync(join(project, "program.js"), code);
    const { stderr } = await execute(process.execPath, ["program.js"], { cwd: project });
    expect(stderr).toBe("");
  });
});

describe("in Chromium", () => {
  let browser: Browser;
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer();
    server.folders.set("dist", join(PKG, "dist"));
    for (const [name, folder] of Object.entries(MODELS)) server.folders.set(`models/${name}`, folder);
    server.files.set("models/vjepa2-ac/config.json", JSON.stringify(AC_CONFIG));
    server.files.set("models/vjepa2-ac/model.safetensors", Buffer.concat(acCheckpoint()));
    const encoder = JSON.parse(readFileSync(path("../fixtures/vjepa2_tiny_hf/config.json"), "utf8"));
    const id2label = Object.fromEntries(["wave", "push", "fold", "tear", "drop"].entries());
    server.files.set("models/vjepa2-vitl-fpc16-256-ssv2/config.json", JSON.stringify({ ...encoder, id2label }));
    server.files.set("models/vjepa2-vitl-fpc16-256-ssv2/model.safetensors", Buffer.concat(classifierCheckpoint()));
    server.files.set("probes/ssv2-vitl-16x2x3.safetensors", readFileSync(path("../fixtures/vjepa2_tiny_probe.safetensors")));
    server.files.set("models/lewm/config.json", JSON.stringify(LEWM));
    server.files.set("models/lewm/model.safetensors", readFileSync(path("../data/lewm.safetensors")));
    for (const name of ["photos/now.png", "photos/goal.png"]) server.files.set(name, readFileSync(PHOTO));
    for (const name of ["cat.jpg", "dog.jpg"]) server.files.set(name, readFileSync(PHOTO));
    server.files.set("given.js", readFileSync(path("given.js")));
    server.files.set("mediabunny.js", readFileSync(path("../../node_modules/mediabunny/dist/bundles/mediabunny.mjs")));
    const imports = { webjepa: "/dist/index.js", "webjepa/viz": "/dist/viz/index.js", mediabunny: "/mediabunny.js" };
    server.files.set("page.html", `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script type="importmap">${JSON.stringify({ imports })}</script>`);
    // Without WebGPU: a software adapter would take minutes for what the CPU does at once.
    browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS.filter((flag) => !flag.includes("webgpu")) });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  it.each(all.filter(({ node }) => !node))("$name runs", async ({ code }) => {
    server.files.set("program.js", code);
    const context = await browser.newContext();
    const page = await context.newPage();
    const errors: string[] = [];
    watchErrors(page, (text) => errors.push(text));
    await page.goto(`${server.url}page.html`);
    const outcome = await page.evaluate(`import("/given.js").then(() => import("/program.js")).then(() => "done", (error) => String(error.stack ?? error))`);
    await context.close();
    expect(outcome).toBe("done");
    expect(errors).toEqual([]);
  });
});
