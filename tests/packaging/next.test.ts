import { join } from "node:path";
import { expect, it } from "vitest";
import { addModel, run, useProject, useSite, whileServing } from "./harness.js";

const project = useProject("next");
const site = useSite();

it.each([["Turbopack"], ["webpack", "--webpack"]])("works in a page that Next.js renders on the server, bundled by %s", async (_, ...flags) => {
  await addModel(join(project.folder, "public"));
  const { stdout } = await run(project.folder, "npm", "run", "build", "--", ...flags);
  expect(stdout).toMatch(/ƒ +\//);
  expect(stdout).not.toMatch(/warn|error/i);
  await whileServing(project.folder, [join("node_modules", "next", "dist", "bin", "next"), "start", "--hostname", "127.0.0.1"], async (url) => {
    expect(await (await fetch(url)).text()).toMatch(/<button[^>]*>Embed/);
    await site.check(url);
  });
});
