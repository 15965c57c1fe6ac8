// The pictures of an index that are most like one: node search.mjs MODEL INDEX.json PICTURE

import { readFile } from "node:fs/promises";
import { Jepa, cosineSimilarity } from "webjepa";

const [model, index, picture] = process.argv.slice(2);
if (!picture) {
  console.error("node search.mjs MODEL INDEX.json PICTURE");
  process.exit(1);
}
const jepa = await Jepa.load(model);
const query = await jepa.embed(picture);
const found = JSON.parse(await readFile(index, "utf8")).map(({ name, embedding }) => ({ name, similarity: cosineSimilarity(query, embedding) }));
found.sort((a, b) => b.similarity - a.similarity);
for (const { name, similarity } of found.slice(0, 10)) console.log(similarity.toFixed(4), name);
await jepa.dispose();
