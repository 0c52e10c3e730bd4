import type { WriteArea } from "./write-areas.ts";

/** The disk that is going to be served. */
export interface DemoDisk {
  /** The raw file. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** What it is, in a few words. */
  readonly description: string;
  /** Where the writer may write so that a file system on the disk stays one. */
  readonly areas: readonly WriteArea[];
  /** The file is the user's own: it is opened read-only, and writes go to memory. */
  readonly isUsersOwn: boolean;
  /** Why `fsck.ext4` can say nothing of it, `undefined` if it can. */
  readonly noFsck: string | undefined;
}
