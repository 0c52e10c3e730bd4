import { backupCanaries } from "./backup-canaries.ts";
import { backupGroupCanaries } from "./backup-group-canaries.ts";
import { bitmapsCanaries } from "./bitmaps-canaries.ts";
import { blockCopyCanaries } from "./block-copy-canaries.ts";
import type { Canary } from "./canary.ts";
import { graphCanaries } from "./graph-canaries.ts";
import { hbitmapCanaries } from "./hbitmap-canaries.ts";
import { jobsCanaries } from "./jobs-canaries.ts";
import { nbdCanaries } from "./nbd-canaries.ts";
import { qcow2Canaries } from "./qcow2-canaries.ts";
import { rangeLockCanaries } from "./range-lock-canaries.ts";
import { requestLayerCanaries } from "./request-layer-canaries.ts";
import { snapshotAccessCanaries } from "./snapshot-access-canaries.ts";

/** The planted bugs, by the world that finds them. */
export const canaries: readonly Canary[] = [
  ...hbitmapCanaries,
  ...rangeLockCanaries,
  ...jobsCanaries,
  ...requestLayerCanaries,
  ...graphCanaries,
  ...bitmapsCanaries,
  ...backupCanaries,
  ...backupGroupCanaries,
  ...blockCopyCanaries,
  ...snapshotAccessCanaries,
  ...qcow2Canaries,
  ...nbdCanaries,
];
