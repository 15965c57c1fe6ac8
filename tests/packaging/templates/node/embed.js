// Embeds a picture file, and a picture that has been prepared: node embed.js FOLDER PICTURE FOLDER PREPARED [BACKEND]

import { readFile } from "node:fs/promises";
import process from "node:process";
import { Jepa } from "webjepa";

const [folder, picture, tiny, prepared, backend = "auto"] = process.argv.slice(2);
const results = {};

const jepa = await Jepa.load(folder, { backend });
results.picture = await jepa.embed(picture);
await jepa.dispose();

const small = await Jepa.load(tiny, { backend });
const { data, ...size } = JSON.parse(await readFile(prepared, "utf8"));
results.prepared = await small.embed({ ...size, data: Float32Array.from(data) }, { preprocess: false });
await small.dispose();

console.log(JSON.stringify(results, (_, value) => (ArrayBuffer.isView(value) ? [...value] : value)));
