// Makes the documentation site, www/docs, and checks its links: npm run docs

import { rmSync } from "node:fs";
import { join } from "node:path";
import { brokenLinks } from "./links.mjs";
import { main, root, run, say, stop } from "./lib.mjs";
import { setup } from "./setup.mjs";

export function buildDocs(out = join(root, "www", "docs")) {
  rmSync(out, { recursive: true, force: true });
  // TypeDoc needs a TypeScript that is a library, which the root's is not: both are in a package of their own.
  const site = join(root, "www", "site");
  run(process.execPath, [join(site, "node_modules", "typedoc", "bin", "typedoc"), "--logLevel", "Warn", "--out", out], { cwd: site });
  const { pages, broken } = brokenLinks(out);
  if (broken.length > 0) stop(`dead links in the site:\n${broken.join("\n")}`);
  say(`the site is in ${out}: ${pages} pages, no dead link`);
}

await main(import.meta, () => {
  setup();
  buildDocs();
});
