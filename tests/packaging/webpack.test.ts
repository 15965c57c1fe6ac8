import { join } from "node:path";
import { expect, it } from "vitest";
import { POLICY, run, useProject, useSite } from "./harness.js";

const project = useProject("webpack");
const site = useSite();

it("works when webpack has bundled it", async () => {
  const { stdout } = await run(project.folder, "npm", "run", "build");
  expect(stdout).not.toMatch(/WARNING|ERROR/);
  site.serve(join(project.folder, "dist"), POLICY);
  await site.check();
  await site.checkThreads();
});
