// The JavaScript of the documents, as programs.
//
// A fenced block is a program by itself. What it needs beside what it shows stands in a comment before it, `<!-- with: … -->`, where `given`
// has pictures, files and the like (given.js); `<!-- continued -->` makes it the next part of the program before it.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const LANGUAGES = ["js", "jsx", "ts", "tsx"];

export interface Program {
  /** The document and the line of its first block. */
  name: string;
  code: string;
  /** Whether it is for Node, which is what one that imports Node's modules is for. */
  node: boolean;
}

/** The documents whose programs are run: all that users read. */
export const DOCUMENTS = ["README.md", "pkg-template/README.md", "www/examples/README.md", ...documentsIn("docs"), ...documentsIn("docs/guides")];

export function programs(): Program[] {
  return DOCUMENTS.flatMap((document) => programsOf(document, readFileSync(join(root, document), "utf8")));
}

export function programsOf(document: string, text: string): Program[] {
  const found: { line: number; code: string }[] = [];
  for (const match of text.matchAll(/((?:<!--[^]*?-->\n)*)^```(\w+)[^\n]*\n([^]*?)^```$/gm)) {
    const [, comments = "", language = "", code = ""] = match;
    if (!LANGUAGES.includes(language)) continue;
    if (language !== "js") throw new Error(`${document}: a block of ${language} is not run; write JavaScript`);
    const given = /<!-- with: ([^]*?) -->/.exec(comments)?.[1] ?? "";
    const part = given ? `${given}\n${code}` : code;
    const line = text.slice(0, match.index + comments.length).split("\n").length;
    if (!comments.includes("<!-- continued -->")) found.push({ line, code: part });
    else if (found.length === 0) throw new Error(`${document}: the block in line ${line} continues nothing`);
    else found.at(-1)!.code += part;
  }
  return found.map(({ line, code }) => ({ name: `${document}:${line}`, code, node: /from "node:/.test(code) }));
}

/** The examples of the API's comments: in the words of their reader's program, which examples.d.ts declares, and so not run. */
export function examples(): Program[] {
  return ["www/src", "www/src/viz"].flatMap((folder) =>
    readdirSync(join(root, folder))
      .filter((name) => name.endsWith(".ts"))
      .sort()
      .flatMap((name) => examplesOf(`${folder}/${name}`, readFileSync(join(root, folder, name), "utf8"))),
  );
}

/** Each goes to the next tag or to the end of its comment. */
export function examplesOf(file: string, text: string): Program[] {
  return [...text.matchAll(/^ *\* @example\n((?: *\*(?!\/| @).*\n)+)/gm)].map(({ 1: lines = "", index }) => {
    const line = text.slice(0, index).split("\n").length + 1;
    return { name: `${file}:${line}`, code: lines.replace(/^ *\* ?/gm, ""), node: false };
  });
}

function documentsIn(folder: string): string[] {
  return readdirSync(join(root, folder)).filter((name) => name.endsWith(".md")).sort().map((name) => `${folder}/${name}`);
}
