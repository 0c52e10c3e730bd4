/** Replays a life with a bug planted in this process, and prints it: `replay-process.ts ID SHRINK-RUNS < SOURCE`. */
import { text } from "node:stream/consumers";
import { endWithParent } from "../command/children.ts";
import { print, stopWhenNobodyReads } from "../command/output.ts";
import type { DecisionSource } from "../decisions.ts";
import { canaries } from "./canary-list.ts";
import { plantCanary } from "./load-hook.ts";

endWithParent();
stopWhenNobodyReads();
const [id, shrinkRuns = "0"] = process.argv.slice(2);
const canary = canaries.find((one) => one.id === id);
if (canary === undefined) throw new Error(`there is no canary '${id ?? ""}'`);
const planted = plantCanary(canary);
const { findWorld } = await import("../worlds/all-worlds.ts");
const { replay } = await import("../command/replay.ts");
if (!planted.isLoaded) throw new Error(`canary ${canary.id}: ${canary.file} was never loaded`);
const shrinkRunsMax = Number(shrinkRuns);
process.exitCode = await replay(findWorld(canary.world), {
  source: JSON.parse(await text(process.stdin)) as DecisionSource,
  isShrunk: shrinkRunsMax > 0,
  shrinkRunsMax,
  print,
});
