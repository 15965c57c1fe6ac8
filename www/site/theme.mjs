// TypeDoc's own theme, with what its pages lack for people who hear them or use no pointer; what a style sheet can mend is in site.css.

import { DefaultTheme } from "typedoc";

/** @param {import("typedoc").Application} app */
export function load(app) {
  app.renderer.defineTheme("webjepa", AccessibleTheme);
}

class AccessibleTheme extends DefaultTheme {
  render(page) {
    return accessible(super.render(page));
  }

  buildNavigation(project) {
    return super.buildNavigation(project).map(unlinked);
  }
}

/** Puts the page of what can be opened inside of it: a control within a control cannot be reached. */
function unlinked({ path, ...element }) {
  if (!element.children) return { ...element, path };
  const own = path === undefined ? [] : [{ text: "Overview", path, kind: element.kind, class: element.class }];
  return { ...element, children: [...own, ...element.children.map(unlinked)] };
}

export function accessible(html) {
  return levelled(html)
    .replace('class="col-content"', 'class="col-content" role="main"')
    // A document begins with its own heading.
    .replace(/<div class="tsd-page-title">[^]*?<\/div>\s*(?=<div class="tsd-panel tsd-typography"><h1)/, "")
    .replace('class="col-sidebar"', 'class="col-sidebar" role="complementary" aria-label="Settings and contents"')
    // Their headings keep their names, so that links to them still lead there.
    .replace(/<summary\b[^]*?<\/summary>/g, (summary) => summary.replace(/<a [^>]*class="tsd-anchor-icon">[^]*?<\/a>/g, ""))
    .replace(/<th([^>]*)><\/th>/g, "<td$1></td>")
    // What scrolls by itself has to be reached by keys.
    .replace(/<table>[^]*?<\/table>/g, (table) => `<div class="table" role="group" aria-label="Table" tabindex="0">${table}</div>`);
}

/** Tells the level that each heading has in the page: TypeDoc leaves levels out, and chooses by how large letters are to be. */
function levelled(html) {
  const open = [];
  return html.replace(/<h([1-6])(?=[ >])/g, (heading, size) => {
    while (open.length > 0 && open.at(-1) >= Number(size)) open.pop();
    open.push(Number(size));
    return open.length === Number(size) ? heading : `${heading} aria-level="${open.length}"`;
  });
}
