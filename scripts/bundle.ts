/** Bundles the "." entry of every core package but `file` for a browser; fails when one needs Node. */
import { build } from "esbuild";
import { workspaceMembers } from "./manifests.ts";

/** Floors 0 to 10 are the core. */
const CORE_FLOOR_MAX = 10;

let faults = 0;
let count = 0;
for (const { folder, manifest } of workspaceMembers()) {
  if (manifest.floor > CORE_FLOOR_MAX || manifest.name === "@blocklayer/file") continue;
  count += 1;
  try {
    const { outputFiles } = await build({
      entryPoints: [`${folder}/src/index.ts`],
      bundle: true,
      write: false,
      format: "esm",
      platform: "browser",
      target: "es2024",
      conditions: ["@blocklayer/source"],
      logLevel: "silent",
    });
    const text = outputFiles[0]?.text ?? "";
    if (/\bfrom\s*"node:|\brequire\("node:|\bBuffer\b\s*\./.test(text))
      throw new Error("mentions Node");
  } catch (error) {
    faults += 1;
    console.error(`${manifest.name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
console.log(`bundle: ${count} core packages for a browser, ${faults} faults`);
process.exitCode = faults > 0 ? 1 : 0;
