import { join } from "node:path";
import { expect, it } from "vitest";
import { run, useProject, useSite } from "./harness.js";

const project = useProject("parcel");
const site = useSite();

it("works when Parcel has bundled it", async () => {
  const { stderr } = await run(project.folder, "npm", "run", "build");
  expect(stderr).not.toMatch(/error|failed/i);
  // Parcel puts an import map into the page, an inline script, which the policy of the other sites forbids.
  site.serve(join(project.folder, "dist"));
  await site.check();
});
