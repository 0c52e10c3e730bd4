import type { World } from "../simulation.ts";
import { backupWorld } from "./backup.ts";
import { backupGroupWorld } from "./backup-group.ts";
import { bitmapsWorld } from "./bitmaps.ts";
import { blockCopyWorld } from "./block-copy.ts";
import { graphWorld } from "./graph.ts";
import { hbitmapWorld } from "./hbitmap.ts";
import { jobsWorld } from "./jobs.ts";
import { nbdWorld } from "./nbd.ts";
import { nbdRepliesWorld } from "./nbd-replies.ts";
import { qcow2World } from "./qcow2.ts";
import { qcow2CrashWorld } from "./qcow2-crash.ts";
import { rangeLockWorld } from "./range-lock.ts";
import { requestLayerWorld } from "./request-layer.ts";
import { snapshotAccessWorld } from "./snapshot-access.ts";
import { storedBitmapsWorld } from "./stored-bitmaps.ts";

/** Every world there is, lower layers first. */
export const worlds: readonly World[] = [
  hbitmapWorld,
  rangeLockWorld,
  requestLayerWorld,
  graphWorld,
  jobsWorld,
  blockCopyWorld,
  snapshotAccessWorld,
  backupWorld,
  backupGroupWorld,
  bitmapsWorld,
  storedBitmapsWorld,
  qcow2World,
  qcow2CrashWorld,
  nbdRepliesWorld,
  nbdWorld,
];

/** @throws RangeError there is no world of that name */
export function findWorld(name: string): World {
  const world = worlds.find((one) => one.name === name);
  if (world !== undefined) return world;
  const names = worlds.map((one) => one.name).join(", ");
  throw new RangeError(`there is no world '${name}'; there are: ${names}`);
}
