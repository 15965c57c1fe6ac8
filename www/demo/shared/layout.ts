import "./base.css";
import { h } from "./dom";
import { pages } from "./pages";
import { themeToggle } from "./theme";

/**
 * Fills the header and the footer that every page of the site has in common.
 *
 * @param root - where the site's first page is, as seen from this one
 */
export function mountLayout(root: string): void {
  const header = document.querySelector("body > header");
  const footer = document.querySelector("body > footer");
  if (!header || !footer) throw new Error("A page of the site needs a <header> and a <footer> in its <body>.");

  const brand = h("a", { class: "brand", href: root }, h("b", {}, "webjepa"), h("span", {}, "JEPA encoders in the browser"));
  header.append(brand, navigation(root), themeToggle());

  footer.append(h("p", {}, "webjepa is free software under the MIT or the Apache 2.0 licence, as you prefer."));
}

function navigation(root: string): HTMLElement {
  const links = pages.map(({ href, title }) => {
    const { pathname } = new URL(href, new URL(root, location.href));
    const current = pathname === location.pathname.replace(/index\.html$/, "");
    return h("a", { href: root + href.slice(2), "aria-current": current && "page" }, title);
  });
  return h("nav", { "aria-label": "Pages" }, ...links);
}
