import type { WriterKind } from "../writer/writer.ts";
import { MiB } from "./quantities.ts";
import type { SlowOptions } from "./slow-driver.ts";

/** Sizes and times of a run. */
export interface Settings {
  /** Bytes of the disk that is made, of the file system on it, and of the big file in that. */
  readonly diskSize: number;
  readonly fileSystemSize: number;
  readonly scratchSize: number;
  /** Bytes that the writer may write to. */
  readonly writableSize: number;
  /** The writer is watched this long without any backup, milliseconds. */
  readonly idleMs: number;
  /** How slow the slow target is. */
  readonly line: SlowOptions;
  /** A backup to the slow target is measured at most so long, then cancelled. Milliseconds. */
  readonly slowMs: number;
  /** Default: what is installed. */
  readonly writer?: WriterKind;
  /** Finds the programs of others. Default: where they are installed. */
  readonly find?: (name: string) => string | undefined;
}

/** What `npm start` uses. */
export const SETTINGS: Settings = {
  diskSize: 256 * MiB,
  fileSystemSize: 224 * MiB,
  scratchSize: 96 * MiB,
  writableSize: 24 * MiB,
  idleMs: 1000,
  line: { "bytes-per-second": 24 * MiB, "latency-ms": 20 },
  slowMs: 8000,
};
