import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { POLICY, run, useProject, useSite } from "./harness.js";

const project = useProject("own-worker");
const site = useSite();

it("works in a worker of the page, and starts none itself", async () => {
  const { stderr } = await run(project.folder, "npm", "run", "build");
  expect(stderr).toBe("");
  const dist = join(project.folder, "dist");
  const starting = readdirSync(dist).filter((name) => name.endsWith(".js") && readFileSync(join(dist, name), "utf8").includes("new Worker("));
  expect(starting).toEqual(["main.js"]);
  site.serve(dist, POLICY);
  await site.check();
});
