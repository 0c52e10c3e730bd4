export interface DirectoryEntry {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
}

/** An exclusive lock on a directory; released by the operating system when the process ends. */
export interface DirectoryLock extends AsyncDisposable {
  release(): Promise<void>;
}

/**
 * The few file operations that are not a disk: sidecars and manifests. Implemented by `file` and by the
 * simulator. Names are plain file names: no separators, not `.` or `..`.
 */
export interface Directory {
  /** @throws BlockError `ENOENT`; `EFBIG` the file is larger than `lengthMax` bytes */
  read(name: string, lengthMax: number): Promise<Uint8Array>;
  /**
   * Replaces a file so that after a crash either the old or the new content is there: writes a temporary
   * file, syncs it, renames it, syncs the directory.
   */
  writeAtomically(name: string, content: Uint8Array): Promise<void>;
  list(): Promise<readonly DirectoryEntry[]>;
  /** Removes a file durably. Removing what is not there succeeds. */
  remove(name: string): Promise<void>;
  /** @throws BlockError `EAGAIN` somebody else holds it */
  lock(name: string): Promise<DirectoryLock>;
  /** Bytes that can still be written, `undefined` where unknown. */
  freeSpace(): Promise<number | undefined>;
  /** Names the file beyond renames: device, inode, size and time of the last change. @throws BlockError `ENOENT` */
  identity(name: string): Promise<string>;
}
