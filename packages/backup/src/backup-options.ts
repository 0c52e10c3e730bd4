import { BlockBackend, type BlockNode, type Graph } from "@blocklayer/block-graph";
import type { OnError } from "@blocklayer/block-job";
import type { BitmapManager, DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { RequestFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import {
  boolean,
  describeProblems,
  enumeration,
  integer,
  type ObjectSchema,
  object,
  optional,
  string,
} from "@blocklayer/schema";

/** What a backup copies. */
export type SyncMode = "full" | "top" | "bitmap" | "incremental" | "none";

/** What becomes of the bitmap when the job ends. */
export type BitmapMode = "on-success" | "never" | "always";

/**
 * The arguments of a backup, named as QMP names them.
 *
 * @see spec/copy-before-write-and-backup.md section 5.1
 */
export interface BackupOptions {
  /** Default: none, which only an unnamed disk refuses. */
  readonly "job-id"?: string;
  /** Node or device name of the source. */
  readonly device: string;
  /** Node or device name of the target, of the source's size. */
  readonly target: string;
  readonly sync: SyncMode;
  /** Bytes a second, 0 for no limit. Default 0. */
  readonly speed?: number;
  /** Name of a bitmap on the source: required for `bitmap` and `incremental`, forbidden for `none`. */
  readonly bitmap?: string;
  readonly "bitmap-mode"?: BitmapMode;
  /** Write compressed clusters. Default `false`. */
  readonly compress?: boolean;
  /** Policies for the job's own requests, not for those of the guest. Default `"report"`. */
  readonly "on-source-error"?: OnError;
  readonly "on-target-error"?: OnError;
  readonly "auto-finalize"?: boolean;
  readonly "auto-dismiss"?: boolean;
  /** Node name of the copy-before-write filter. Default: made up. */
  readonly "filter-node-name"?: string;
  /** Discard the source where it was copied. Default `false`. */
  readonly "discard-source"?: boolean;
  /** What happens to a guest write whose old data can not be saved. Default `"break-guest-write"`. */
  readonly "on-cbw-error"?: "break-guest-write" | "break-snapshot";
  /** Seconds that a guest write waits for its copy, 0 without end. Default 0. */
  readonly "cbw-timeout"?: number;
  readonly "x-perf"?: {
    readonly "use-copy-range"?: boolean;
    /** Copies at once, 1 to 2^31 − 1. Default 64. */
    readonly "max-workers"?: number;
    /** Bytes of a copy, 0 for no limit of its own. Default 0. */
    readonly "max-chunk"?: number;
    /** Bytes, a power of two or 0. Default 0. */
    readonly "min-cluster-size"?: number;
  };
}

const INT32_MAX = 2 ** 31 - 1;
const onError = enumeration("report", "ignore", "enospc", "stop", "auto");

/** The description of {@link BackupOptions}, for whoever parses them. */
export const backupOptionsSchema: ObjectSchema<BackupOptions> = object({
  "job-id": optional(string()),
  device: string(),
  target: string(),
  sync: enumeration("full", "top", "bitmap", "incremental", "none"),
  speed: optional(integer()),
  bitmap: optional(string()),
  "bitmap-mode": optional(enumeration("on-success", "never", "always")),
  compress: optional(boolean()),
  "on-source-error": optional(onError),
  "on-target-error": optional(onError),
  "auto-finalize": optional(boolean()),
  "auto-dismiss": optional(boolean()),
  "filter-node-name": optional(string()),
  "discard-source": optional(boolean()),
  "on-cbw-error": optional(enumeration("break-guest-write", "break-snapshot")),
  "cbw-timeout": optional(integer({ min: 0, max: 2 ** 32 - 1 })),
  "x-perf": optional(
    object({
      "use-copy-range": optional(boolean()),
      "max-workers": optional(integer()),
      "max-chunk": optional(integer()),
      "min-cluster-size": optional(integer()),
    }),
  ),
});

/** Arguments that were found good, and what they name. */
export interface BackupRequest {
  readonly options: BackupOptions;
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly bitmap: DirtyBitmap | undefined;
  readonly bitmapMode: BitmapMode | undefined;
  readonly maxWorkers: number;
  readonly maxChunk: number;
}

/**
 * Checks the arguments of a backup, in the order in which the reference does, and before anything is opened or
 * changed.
 *
 * @throws BlockError the first thing that is wrong, named with its value
 * @see spec/copy-before-write-and-backup.md section 5.1: the table
 */
export function checkBackup(
  graph: Graph,
  bitmaps: BitmapManager,
  given: BackupOptions,
): BackupRequest {
  const parsed = backupOptionsSchema.parse(given);
  if (!parsed.ok) throw refused(describeProblems(parsed.problems), given);
  const options = parsed.value;
  const source = findDisk(graph, options.device);
  const target = findDisk(graph, options.target);
  const { bitmap, mode } = checkBitmap(bitmaps, source, options);
  checkNodes(source, target, options);
  const { maxWorkers, maxChunk } = checkPerformance(options);
  if (bitmap !== undefined) bitmap.check(mode === "never" ? "allow-readonly" : "default");
  checkSizes(options, source, target);
  return { options, source, target, bitmap, bitmapMode: mode, maxWorkers, maxChunk };
}

/** @throws BlockError `EINVAL` the sizes differ */
export function checkSizes(options: BackupOptions, source: BlockNode, target: BlockNode): void {
  if (source.size === target.size) return;
  throw refused("Source and target image have different sizes", options, {
    sourceSize: source.size,
    targetSize: target.size,
  });
}

/** Finds a node by its own name or by that of a backend on it. */
function findDisk(graph: Graph, name: string): BlockNode {
  const node =
    graph.findNode(name) ??
    graph
      .nodes()
      .find(({ parents }) =>
        [...parents].some(({ parent }) => parent instanceof BlockBackend && parent.name === name),
      );
  if (node !== undefined) return node;
  throw new BlockError("ENOENT", `Cannot find device='${name}' nor node-name='${name}'`, {
    node: name,
  });
}

interface BitmapChoice {
  readonly bitmap: DirtyBitmap | undefined;
  readonly mode: BitmapMode | undefined;
}

function checkBitmap(
  bitmaps: BitmapManager,
  source: BlockNode,
  options: BackupOptions,
): BitmapChoice {
  const { sync, bitmap: name } = options;
  const needsBitmap = sync === "bitmap" || sync === "incremental";
  if (needsBitmap && name === undefined) {
    throw refused(`must provide a valid bitmap name for '${sync}' sync mode`, options);
  }
  let mode = options["bitmap-mode"];
  if (sync === "incremental") {
    mode ??= "on-success";
    if (mode !== "on-success") {
      throw refused(
        "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'",
        options,
        { mode },
      );
    }
  }
  if (name === undefined) {
    if (mode === undefined) return { bitmap: undefined, mode };
    throw refused("Cannot specify bitmap sync mode without a bitmap", options, { mode });
  }
  const bitmap = bitmaps.find(source, name);
  if (bitmap === undefined)
    throw refused(`Bitmap '${name}' could not be found`, options, { bitmap: name });
  if (mode === undefined) {
    throw refused("Bitmap sync mode must be given when providing a bitmap", options, {
      bitmap: name,
    });
  }
  bitmap.check("allow-readonly");
  if (sync === "none") {
    throw refused("sync mode 'none' does not produce meaningful bitmap outputs", options, {
      bitmap: name,
    });
  }
  if (mode === "never" && !needsBitmap) {
    throw refused(
      `Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '${sync}'`,
      options,
    );
  }
  return { bitmap, mode };
}

function checkNodes(source: BlockNode, target: BlockNode, options: BackupOptions): void {
  if (source === target) throw refused("Source and target cannot be the same", options);
  if (options.compress === true && (target.driver.flags.write & RequestFlag.compressed) === 0) {
    throw refused(`Compression is not supported for this drive ${target.name}`, options);
  }
  source.checkOperation("backup-source");
  target.checkOperation("backup-target");
}

function checkPerformance(options: BackupOptions): { maxWorkers: number; maxChunk: number } {
  const maxWorkers = options["x-perf"]?.["max-workers"] ?? 64;
  if (maxWorkers < 1 || maxWorkers > INT32_MAX) {
    throw refused(`max-workers must be between 1 and ${INT32_MAX}`, options, { maxWorkers });
  }
  const maxChunk = options["x-perf"]?.["max-chunk"] ?? 0;
  if (maxChunk < 0) {
    throw refused("max-chunk must be zero (which means no limit) or positive", options, {
      maxChunk,
    });
  }
  return { maxWorkers, maxChunk };
}

/** An argument is wrong: nothing was changed. */
export function refused(
  message: string,
  options: Pick<BackupOptions, "device" | "target" | "sync">,
  detail: Readonly<Record<string, unknown>> = {},
): BlockError {
  const { device, target, sync } = options;
  return new BlockError("EINVAL", message, {
    node: device,
    operation: "backup",
    target,
    sync,
    ...detail,
  });
}
