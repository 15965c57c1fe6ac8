import { join } from "node:path";
import { it } from "vitest";
import { run, useProject } from "./harness.js";

const project = useProject("types");

const check = (compiler: string, resolution: string, ...flags: string[]) =>
  run(project.folder, process.execPath, join("node_modules", compiler, "bin", "tsc"), "--project", `tsconfig.${resolution}.json`, ...flags);

it.each([
  ["typescript", "bundler"],
  ["typescript", "nodenext"],
  ["typescript-7", "bundler"],
  ["typescript-7", "node16"],
  ["typescript-7", "nodenext"],
])("has types for %s with the module resolution %s", async (compiler, resolution) => {
  await check(compiler, resolution, "--exactOptionalPropertyTypes");
  if (compiler === "typescript-7") await check(compiler, resolution);
});
