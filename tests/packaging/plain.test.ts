import { expect, it } from "vitest";
import { BASE, POLICY, useProject, useSite } from "./harness.js";

const project = useProject("plain");
const site = useSite();

it("works without a bundler, found by an import map", async () => {
  site.serve(project.folder);
  await site.check();
  await site.checkThreads();
});

it("works without a bundler, found by its path, under a strict policy", async () => {
  site.serve(project.folder, POLICY);
  await site.check(`${site.server.url}${BASE}/relative.html`);
});

it("is noticed by these tests when the policy forbids WebAssembly", async () => {
  site.serve(project.folder, { "content-security-policy": "default-src 'self'" });
  await expect(site.check(`${site.server.url}${BASE}/relative.html`)).rejects.toThrow(/JepaError/);
});
