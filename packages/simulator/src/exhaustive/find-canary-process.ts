/** Explores a space with a planted bug in this process and prints the report: `find-canary-process.ts ID SPACE RUNS-MAX`. */
import { canaries } from "../canaries/canary-list.ts";
import { plantCanary } from "../canaries/load-hook.ts";

const [id, name, runsMax = "100000"] = process.argv.slice(2);
const canary = canaries.find((one) => one.id === id);
if (canary === undefined) throw new Error(`there is no canary '${id ?? ""}'`);
const planted = plantCanary(canary);
const { explore, smallSpaces, spaces } = await import("./entry.ts");
const space = [...smallSpaces, ...spaces].find((one) => one.name === name);
if (space === undefined) throw new Error(`there is no space '${name ?? ""}'`);
if (!planted.isLoaded) throw new Error(`canary ${canary.id}: ${canary.file} was never loaded`);
const report = await explore(space, { runsMax: Number(runsMax), failuresMax: 1 });
process.stdout.write(`${JSON.stringify(report)}\n`);
