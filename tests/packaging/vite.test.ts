import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { addModel, BASE, POLICY, run, useProject, useSite, whileServing } from "./harness.js";

const site = useSite();

describe.each(["vite", "vite-7"])("in a project of %s", (name) => {
  const project = useProject(name);

  it("works bundled", async () => {
    const { stderr } = await run(project.folder, "npm", "run", "build");
    expect(stderr).toBe("");
    site.serve(join(project.folder, "dist"), POLICY);
    await site.check();
    await site.checkThreads();
  });

  it("works in the development server", async () => {
    await addModel(join(project.folder, "public"));
    await whileServing(project.folder, [join("node_modules", "vite", "bin", "vite.js"), "--host", "127.0.0.1", "--base", `/${BASE}/`], (url) => site.check(url));
  });
});
