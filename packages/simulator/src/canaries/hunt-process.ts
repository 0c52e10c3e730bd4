/** Hunts one canary in this process and prints what came of it: `hunt-process.ts ID FINDINGS SHRINK-RUNS`. */
import { endWithParent } from "../command/children.ts";
import { canaries } from "./canary-list.ts";
import { hunt } from "./hunt.ts";

endWithParent();
const [id, findings = "1", shrinkRuns = "0"] = process.argv.slice(2);
const canary = canaries.find((one) => one.id === id);
if (canary === undefined) throw new Error(`there is no canary '${id ?? ""}'`);
const result = await hunt(canary, Number(findings), Number(shrinkRuns));
process.stdout.write(`${JSON.stringify(result)}\n`);
