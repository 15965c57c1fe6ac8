import "./base.css";
import { h } from "./dom";
import { pages } from "./pages";
import { themeToggle } from "./theme";

/** Fills the header and the footer that every page of the site has in common. */
export function mountLayout(): void {
  const header = document.querySelector("body > header");
  const footer = document.querySelector("body > footer");
  if (!header || !footer) throw new Error("A page of the site needs a <header> and a <footer> in its <body>.");

  const brand = h("a", { class: "brand", href: "./" }, h("b", {}, "webjepa"), h("span", {}, "JEPA encoders in the browser"));
  header.append(brand);
  if (pages.length > 1) header.append(navigation());
  header.append(themeToggle());

  footer.append(h("p", {}, "webjepa is free software under the MIT or the Apache 2.0 licence, as you prefer."));
}

function navigation(): HTMLElement {
  const links = pages.map(({ href, title }) => {
    const current = new URL(href, location.href).pathname === location.pathname;
    return h("a", { href, "aria-current": current && "page" }, title);
  });
  return h("nav", { "aria-label": "Pages" }, ...links);
}
