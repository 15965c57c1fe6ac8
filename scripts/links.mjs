// Links of a folder of HTML that lead nowhere. Those to other sites are not followed.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

/** How many pages there are, and what is wrong in them: a line for each link whose file or place in a file is not there, or that leaves the folder. */
export function brokenLinks(folder) {
  const pages = readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".html"));
  const texts = new Map(pages.map((name) => [join(folder, name), readFileSync(join(folder, name), "utf8")]));
  const places = new Map();
  const placesOf = (file) => {
    if (!places.has(file)) places.set(file, new Set([...texts.get(file).matchAll(/\s(?:id|name)="([^"]+)"/g)].map(([, id]) => unescaped(id))));
    return places.get(file);
  };
  const broken = [];
  for (const [file, text] of texts) {
    for (const link of linksOf(text)) {
      const complain = (why) => broken.push(`${relative(folder, file)}: ${link} ${why}`);
      const [path, place] = link.split("#");
      const target = path === "" ? file : resolve(dirname(file), decodeURIComponent(path.replace(/\?.*/, "")));
      const page = existsSync(target) && statSync(target).isDirectory() ? join(target, "index.html") : target;
      if (link.startsWith("/")) complain("works at the root of a server only");
      else if (!page.startsWith(resolve(folder) + sep)) complain("leaves the site");
      else if (!existsSync(page)) complain("is not there");
      else if (place && texts.has(page) && !placesOf(page).has(decodeURIComponent(place))) complain("names a place that is not in the page");
    }
  }
  return { pages: pages.length, broken };
}

function linksOf(html) {
  const visible = html.replace(/<(script|style)\b[^>]*>[^]*?<\/\1>/g, (block) => block.slice(0, block.indexOf(">") + 1));
  const links = [...visible.matchAll(/\s(?:href|src)="([^"]*)"/g)].map(([, link]) => unescaped(link));
  return links.filter((link) => !/^(?:[a-z][a-z+.-]*:|\/\/)/i.test(link));
}

function unescaped(text) {
  return text.replaceAll("&quot;", '"').replaceAll("&#39;", "'").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}
