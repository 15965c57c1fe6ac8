import { cpSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { expectEmbedding, FIXTURES, run, TINY, useProject } from "./harness.js";

const project = useProject("runtimes");
const folder = join(FIXTURES, "ijepa_ti16");
const photo: { output: { mean_pooled: number[] } } = JSON.parse(readFileSync(join(folder, "expected.json"), "utf8"));

beforeAll(async () => {
  cpSync(fileURLToPath(new URL("templates/node/embed.js", import.meta.url)), join(project.folder, "embed.js"));
  await writeFile(join(project.folder, "picture.json"), TINY.picture);
  // npm installs no binary for Bun's command until this has run, and the harness runs no scripts of packages.
  await run(project.folder, process.execPath, "node_modules/bun/install.js");
});

describe.each([
  ["Bun", ["bun"]],
  ["Deno", ["deno", "run", "--allow-read", "--allow-env", "--no-prompt"]],
])("%s", (_, [command, ...options]) => {
  // "auto" is WebGPU in Deno where there is an adapter, and the CPU everywhere else.
  it.each(["cpu", "auto"])("embeds in a script of Node's, backend %s", async (backend) => {
    const script = ["embed.js", folder, join(folder, "resized.png"), TINY.folder, "picture.json", backend];
    const { stdout, stderr } = await run(project.folder, join(project.folder, "node_modules", ".bin", command!), ...options, ...script);
    expect(stderr).toBe("");
    const { picture, prepared } = JSON.parse(stdout);
    // Weights of f16 and twelve layers.
    expectEmbedding(picture, photo.output.mean_pooled, 5e-5);
    expectEmbedding(prepared, TINY.mean);
  });
});
