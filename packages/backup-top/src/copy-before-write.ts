import { copyClusterSize } from "@blocklayer/block-copy";
import { chainContains, Edge, skipFilters } from "@blocklayer/block-graph";
import {
  type BlockChild,
  type DriverDefinition,
  defineDriver,
  type NodeHost,
  Role,
} from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError, toBlockError } from "@blocklayer/errors";
import type { HBitmap } from "@blocklayer/hbitmap";
import { MAX_LENGTH } from "@blocklayer/offsets";
import {
  boolean,
  enumeration,
  integer,
  object,
  optional,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";
import { CopyBeforeWriteDriver } from "./copy-before-write-driver.ts";

/** Options of the driver `copy-before-write`, beside its children `file` and `target`. */
export interface CopyBeforeWriteOptions {
  /** The dirty bitmap whose dirty areas, at open, are copied and shown; everything without one. */
  readonly bitmap?: { readonly node: string; readonly name: string };
  /** Who bears a copy that fails. */
  readonly "on-cbw-error": "break-guest-write" | "break-snapshot";
  /** Seconds that a write waits for its copies; 0 for ever. */
  readonly "cbw-timeout": number;
  /** Bytes, a power of two; 0 for what the target asks for. */
  readonly "min-cluster-size": number;
  /** Whether the source is discarded where it was copied. */
  readonly "x-blocklayer-discard-source": boolean;
}

/** Where dirty bitmaps are found; a `BitmapManager` is one. */
export interface BitmapLookup {
  /** @throws BlockError there is no such bitmap */
  lookup(
    nodeName: string,
    name: string,
  ): {
    readonly map: HBitmap;
    /** Refuses bitmaps whose content counts for nothing. */
    check?(use: "allow-readonly"): void;
  };
}

export interface CopyBeforeWriteSettings {
  /** Needed for the option `bitmap`. */
  readonly bitmaps?: BitmapLookup;
}

const schema: Schema<CopyBeforeWriteOptions> = object({
  bitmap: optional(object({ node: string(), name: string() })),
  "on-cbw-error": optional(enumeration("break-guest-write", "break-snapshot"), "break-guest-write"),
  "cbw-timeout": optional(integer({ min: 0, max: 2 ** 32 - 1 }), 0),
  "min-cluster-size": optional(size({ max: MAX_LENGTH }), 0),
  "x-blocklayer-discard-source": optional(boolean(), false),
});

/**
 * Returns the driver `copy-before-write`, also known as `backup-top`.
 *
 * Its node shows its child `file` and saves to its child `target` what is about to be overwritten.
 */
export function copyBeforeWrite(
  settings: CopyBeforeWriteSettings = {},
): DriverDefinition<"copy-before-write", CopyBeforeWriteOptions, "file" | "target"> {
  return defineDriver({
    driverName: "copy-before-write",
    aliases: ["backup-top"],
    schema,
    children: [
      { name: "file", role: Role.filtered | Role.primary, required: true },
      { name: "target", role: Role.data, required: true },
    ],
    isFilter: true,
    isProtocol: false,
    supportsBacking: false,
    open: (host, options, env) => openFilter(host, options, env, settings),
  });
}

async function openFilter(
  host: NodeHost,
  options: CopyBeforeWriteOptions,
  env: Env,
  { bitmaps }: CopyBeforeWriteSettings,
): Promise<CopyBeforeWriteDriver> {
  const source = await host.openChild("file", Role.filtered | Role.primary);
  const target = await host.openChild("target", Role.data);
  checkSizes(host, source, target);
  const initial = findBitmap(host, options, bitmaps);
  const { hasBacking, containsSource } = chainOf(target, source);
  try {
    const clusterSize = await copyClusterSize({
      target,
      hasBacking,
      minClusterSize: options["min-cluster-size"],
      warn: (message) => host.warn(message),
    });
    return new CopyBeforeWriteDriver({
      host,
      env,
      source,
      target,
      options,
      clusterSize,
      serialising: containsSource,
      initial,
    });
  } catch (error) {
    throw withPrefix(error, host.nodeName);
  }
}

/** Differs: the reference opens the filter, and fails the first write that is saved beyond the target's end. */
function checkSizes(host: NodeHost, source: BlockChild, target: BlockChild): void {
  if (target.size >= source.size) return;
  throw new BlockError(
    "EINVAL",
    `target of ${target.size} bytes is shorter than the source of ${source.size} bytes`,
    { node: host.nodeName, source: source.nodeName, target: target.nodeName },
  );
}

function findBitmap(
  host: NodeHost,
  { bitmap }: CopyBeforeWriteOptions,
  bitmaps: BitmapLookup | undefined,
): HBitmap | undefined {
  if (bitmap === undefined) return undefined;
  if (bitmaps === undefined) {
    throw new BlockError("ENOTSUP", "the option 'bitmap' needs dirty bitmaps to be set up", {
      node: host.nodeName,
      bitmap: bitmap.name,
    });
  }
  const found = bitmaps.lookup(bitmap.node, bitmap.name);
  found.check?.("allow-readonly");
  const { size: length } = found.map;
  const sourceSize = host.children.get("file")?.size ?? length;
  if (length !== sourceSize) {
    const sizes = `destination size is ${sourceSize}, source size is ${length}`;
    throw withPrefix(
      new BlockError(
        "EINVAL",
        `Failed to merge bitmap '${bitmap.name}' to internal copy-bitmap: Bitmaps are of different sizes (${sizes}) and can't be merged`,
        { bitmap: bitmap.name },
      ),
      host.nodeName,
    );
  }
  return found.map;
}

/** What the target's chain has to do with the source. Without a graph there are no chains. */
function chainOf(
  target: BlockChild,
  source: BlockChild,
): { readonly hasBacking: boolean; readonly containsSource: boolean } {
  if (!(target instanceof Edge && source instanceof Edge)) {
    return { hasBacking: false, containsSource: false };
  }
  return {
    hasBacking: target.node.backing !== undefined,
    // The guest may write through a filter that is not in the chain to a disk that is.
    containsSource:
      chainContains(target.node, source.node) ||
      chainContains(target.node, skipFilters(source.node)),
  };
}

function withPrefix(error: unknown, node: string): BlockError {
  const { code, message, context, hint } = toBlockError(error, "failed");
  return new BlockError(
    code,
    `Cannot create block-copy-state: ${message}`,
    { ...context, node },
    { cause: error, ...(hint === undefined ? {} : { hint }) },
  );
}
