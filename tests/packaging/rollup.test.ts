import { join } from "node:path";
import { expect, it } from "vitest";
import { POLICY, run, useProject, useSite } from "./harness.js";

const project = useProject("rollup");
const site = useSite();

it("works when Rollup has bundled it", async () => {
  const { stderr } = await run(project.folder, "npm", "run", "build");
  expect(stderr).not.toMatch(/\(!\)|warning/i);
  site.serve(join(project.folder, "dist"), POLICY);
  await site.check();
  await site.checkThreads();
});
