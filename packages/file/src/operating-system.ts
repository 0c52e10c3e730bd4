import type { NativeCalls } from "./native-calls.ts";

/** What a path or a descriptor stands for. */
export interface FileStat {
  readonly kind: "file" | "block" | "directory" | "other";
  /** Bytes; 0 for devices. */
  readonly size: number;
  /** Bytes that are allocated, `undefined` where the platform does not say. */
  readonly allocated: number | undefined;
  /** Number of the device that a device node stands for. */
  readonly device: number;
  /** Device and inode: the file, whatever its name. */
  readonly inode: string;
  /** Time of the last change of the content, as text, in nanoseconds. */
  readonly modified: string;
}

/** What is asked of a file system. */
export interface FileSystemStat {
  /** The number by which Linux knows the kind of file system; 0 elsewhere. */
  readonly type: number;
  /** Bytes that an ordinary user can still write. */
  readonly available: number;
}

/**
 * The calls that this package makes, and no others: by argument, so that tests inject every fault.
 *
 * Methods that return a promise run on Node's thread pool and may take any time. Those whose names end in
 * `Now` run within the call, and only where that is known to be short. Failures are `Error`s with a `code`.
 */
export interface OperatingSystem {
  /** The calls that Node lacks, `undefined` where they cannot be had. */
  readonly native: NativeCalls | undefined;
  /** Why `native` is not there, a clause for messages. */
  readonly nativeMissing: string;
  /** Threads of Node's pool, shared by everything in the process. */
  readonly poolSize: number;

  /** @param flags - `O_…` bits of `node:fs` constants */
  open(path: string, flags: number, mode?: number): Promise<number>;
  close(fd: number): Promise<void>;
  stat(path: string): Promise<FileStat>;
  fstat(fd: number): Promise<FileStat>;
  statfs(path: string): Promise<FileSystemStat>;
  /** Whether the user may write to the path: resolves, or rejects with the reason. */
  mayWrite(path: string): Promise<void>;

  /** Reads at most `buffer.length` bytes. @returns bytes read, 0 at the end */
  read(fd: number, buffer: Uint8Array, offset: number): Promise<number>;
  /** Writes buffers one after the other, maybe only a part. @returns bytes written */
  write(fd: number, buffers: readonly Uint8Array[], offset: number): Promise<number>;
  readNow(fd: number, buffer: Uint8Array, offset: number): number;
  writeNow(fd: number, buffer: Uint8Array, offset: number): number;
  writevNow(fd: number, buffers: readonly Uint8Array[], offset: number): number;
  ftruncate(fd: number, size: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  fsync(fd: number): Promise<void>;

  /** The whole of a small text file that the kernel makes. */
  readText(path: string): Promise<string>;
  rename(path: string, newPath: string): Promise<void>;
  unlink(path: string): Promise<void>;
  list(path: string): Promise<readonly string[]>;
  /** Makes what was renamed or removed in a directory durable, where the platform can. */
  syncDirectory(path: string): Promise<void>;
  /** The number of this process, and whether another one lives. */
  readonly processId: number;
  isProcessAlive(processId: number): boolean;

  /** Calls back in the next turn of the event loop. */
  onNextTurn(callback: () => void): void;
}
