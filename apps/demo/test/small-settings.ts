import { MiB } from "../src/scenario/quantities.ts";
import type { Settings } from "../src/scenario/settings.ts";

/** A run of two seconds or so. */
export const SMALL: Settings = {
  diskSize: 40 * MiB,
  fileSystemSize: 32 * MiB,
  scratchSize: 8 * MiB,
  writableSize: 2 * MiB,
  idleMs: 50,
  line: { "bytes-per-second": 24 * MiB, "latency-ms": 5 },
  slowMs: 2000,
};
