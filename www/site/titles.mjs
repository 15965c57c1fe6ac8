// Names pages of the site by their first heading, as the same files have on other sites, instead of by their file.

import { Converter } from "typedoc";

/** @param {import("typedoc").Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_, document) => {
    const [first] = document.content;
    const title = first?.kind === "text" && /^\s*# (.+)\n/.exec(first.text);
    if (!title) throw new Error(`${document.name}.md begins with no heading`);
    document.name = title[1];
  });
}
