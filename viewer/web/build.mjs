// Bundles src/ into src/synbrain/viewer/static (or the folder that is given): viewer.js, viewer.css and the licences of
// what is inside. Versions are those of package-lock.json, so the same bytes come out everywhere.
import { build } from "esbuild";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = process.argv[2] ? process.argv[2] + "/" : fileURLToPath(new URL("../../src/synbrain/viewer/static/", import.meta.url));
const three = JSON.parse(readFileSync(here + "node_modules/three/package.json"));
await build({
  entryPoints: [here + "src/viewer.js", here + "src/viewer.css"],
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  legalComments: "none",
  charset: "ascii",
  banner: { js: `/* synbrain viewer; with three.js ${three.version}, MIT, see LICENSE-three.txt */` },
});
writeFileSync(out + "LICENSE-three.txt", readFileSync(here + "node_modules/three/LICENSE"));
