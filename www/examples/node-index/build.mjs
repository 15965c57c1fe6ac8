// Embeds every picture of a folder: node build.mjs MODEL FOLDER INDEX.json

import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Jepa, JepaError } from "webjepa";

const [model, folder, index] = process.argv.slice(2);
if (!index) {
  console.error("node build.mjs MODEL FOLDER INDEX.json");
  process.exit(1);
}
const jepa = await Jepa.load(model);
const entries = [];
for (const name of (await readdir(folder)).filter((name) => /\.(png|jpe?g)$/i.test(name)).sort()) {
  try {
    const { data } = await jepa.embed(join(folder, name), { normalize: true });
    // Four digits are enough to compare, and half the size.
    entries.push({ name, embedding: Array.from(data, (value) => Number(value.toFixed(4))) });
  } catch (error) {
    if (!(error instanceof JepaError && error.code === "bad-input")) throw error;
    console.error(`${name} is left out: ${error.message}`);
  }
}
await writeFile(index, JSON.stringify(entries));
console.log(`${entries.length} pictures in ${index}`);
await jepa.dispose();
