/** Modes of `fallocate`, to be combined. */
export const Fallocate = {
  keepSize: 0x1,
  punchHole: 0x2,
  zeroRange: 0x10,
} as const;

/** Error numbers of Linux that native calls are compared with. */
export const Errno = {
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  EXDEV: 18,
  EINVAL: 22,
  ENOLCK: 37,
  ENOSYS: 38,
  ENOTSUP: 95,
} as const;

/**
 * The system calls of Linux that Node does not offer, through a foreign function interface.
 *
 * Each answers with 0 or a positive result, or with a negative error number: an exception per cold page would cost
 * more than the read. Those that return a promise run on the thread pool of Node, the others within the call.
 */
export interface NativeCalls {
  /** Reads what the page cache holds, never waits for a disk. @returns bytes, `-EAGAIN` for a cold page */
  readNoWait(fd: number, buffer: Uint8Array, offset: number): number;
  /** The next byte at or after `offset` that is data or a hole. Moves the position of the descriptor. */
  seekNow(fd: number, offset: number, target: "data" | "hole"): number;
  seek(fd: number, offset: number, target: "data" | "hole"): Promise<number>;
  /** @param mode - {@link Fallocate} bits */
  fallocate(fd: number, mode: number, offset: number, length: number): Promise<number>;
  /** @returns bytes copied, maybe fewer than `length` */
  copyRange(
    sourceFd: number,
    sourceOffset: number,
    fd: number,
    offset: number,
    length: number,
  ): Promise<number>;
  /** Sets or drops a lock of the open file description on bytes. `-EAGAIN` when somebody else is in the way. */
  setLock(fd: number, kind: "shared" | "exclusive" | "none", start: number, length: number): number;
  /** Whether an exclusive lock could not be had: 1 somebody else holds one, 0 nobody. */
  testLock(fd: number, start: number, length: number): number;
  /** Bytes of a block device. */
  deviceSize(fd: number): number;
  /** Turns copy-on-write off for an empty file, where the file system knows that. */
  setNoCopyOnWrite(fd: number): number;
  /** @param size - bytes, 0 for none */
  setExtentSizeHint(fd: number, size: number): number;
}
