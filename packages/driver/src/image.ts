/** What a driver tells about the image it holds. */
export interface ImageInfo {
  /** Bytes: the unit in which the format allocates. */
  readonly clusterSize?: number;
  /** Bytes that smaller parts of a cluster can be allocated in. */
  readonly subclusterSize?: number;
  /** Whether the image was not closed cleanly. */
  readonly isDirty?: boolean;
  /** Whether every write allocates where it must, so that a partial cluster needs no completion from below. */
  readonly needsCompressedWrites?: boolean;
  /** Members of the format's own, as QMP shows them. */
  readonly formatSpecific?: Readonly<Record<string, unknown>>;
}

/** What a check may mend: nothing, clusters that nobody refers to, or everything it can. */
export type RepairMode = "none" | "leaks" | "all";

export interface CheckOptions {
  /** Default `"none"`. */
  readonly repair?: RepairMode;
  readonly signal?: AbortSignal;
}

/** The result of a check; members as in spec/qcow2.md. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  readonly imageEndOffset?: number;
  readonly totalClusters?: number;
  readonly allocatedClusters?: number;
  readonly fragmentedClusters?: number;
  readonly compressedClusters?: number;
}

export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  /** Milliseconds since 1970. */
  readonly dateMs: number;
  readonly vmClockNs: number;
  readonly diskSize: number;
}

/** Internal snapshots of an image. */
export interface SnapshotStore {
  list(): Promise<readonly SnapshotInfo[]>;
  create(snapshot: Omit<SnapshotInfo, "id">): Promise<SnapshotInfo>;
  /** Makes the image show the snapshot's content. */
  apply(id: string): Promise<void>;
  delete(id: string): Promise<void>;
}

/** Called as an amend goes on; both in bytes of work. */
export type AmendProgress = (done: number, total: number) => void;
