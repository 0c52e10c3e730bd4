import type { BlockChild, BlockDriver, BlockStatus, StatusOptions } from "@blocklayer/driver";

/** How a snapshot is read; no request flags. */
export interface SnapshotReadOptions {
  readonly signal?: AbortSignal;
}

/**
 * What a driver offers that can show its disk as it was at a point in time: the copy-before-write filter.
 *
 * @see spec/copy-before-write-and-backup.md section 4.4
 */
export interface SnapshotSource {
  /** @throws BlockError `EACCES` the snapshot is broken, or does not show all of the range */
  snapshotRead(offset: number, buffer: Uint8Array, options?: SnapshotReadOptions): Promise<void>;
  /** The status of the layer that holds the range, not of what is below it. @throws BlockError `EACCES` as for a read */
  snapshotStatus(offset: number, length: number, options?: StatusOptions): Promise<BlockStatus>;
  /** Gives up a range, in whole clusters: it can not be read any more, need not be copied, and takes no room. */
  snapshotDiscard(offset: number, length: number): Promise<void>;
}

/** Whether a driver is a {@link SnapshotSource}. */
export function isSnapshotSource(driver: unknown): driver is SnapshotSource {
  return typeof driver === "object" && driver !== null && "snapshotRead" in driver;
}

/**
 * The snapshot source right below an edge, `undefined` if there is none.
 *
 * Resolved for every request, since the graph may re-point the edge. An edge of a graph leads to a node, one of
 * a host without a graph to the driver itself.
 */
export function snapshotSourceBelow(child: BlockChild): SnapshotSource | undefined {
  const edge: BlockChild & {
    readonly node?: { readonly driver: BlockDriver };
    readonly driver?: BlockDriver;
  } = child;
  const driver = edge.node?.driver ?? edge.driver;
  return isSnapshotSource(driver) ? driver : undefined;
}
