import type { Preallocation, TruncateOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { CallQueue } from "./call-queue.ts";
import type { Descriptor } from "./descriptor.ts";
import { ioError } from "./io-error.ts";
import type { OperatingSystem } from "./operating-system.ts";
import type { Space } from "./space.ts";
import { writeFully } from "./write-fully.ts";

/** Bytes written at once to allocate space. */
const STEP = 2 ** 20;
/** Bytes of the block that is written when a file grows from nothing. */
const FIRST_BLOCK = 4096;

/** What is needed to change the length of a file. */
export interface ResizeTarget {
  readonly system: OperatingSystem;
  readonly calls: CallQueue;
  readonly space: Space;
  /** Not one that bypasses the page cache. */
  readonly descriptor: Descriptor;
  /** Makes everything stable that was written. */
  sync(): Promise<void>;
  /** Names the node or the file in errors. */
  readonly name: string;
}

/**
 * Changes the length of a regular file. What is new reads as zeroes. When it fails the old length is
 * restored.
 *
 * @param oldSize - bytes
 * @param newSize - bytes
 * @throws BlockError `ENOTSUP` the preallocation mode is not for files or not for shrinking; `ENOSPC`, `EFBIG`,
 *   `EIO` from the operating system
 * @see spec/filters-and-raw.md section 6.3
 */
export async function resizeFile(
  target: ResizeTarget,
  oldSize: number,
  newSize: number,
  { preallocation = "off", signal }: Pick<TruncateOptions, "preallocation" | "signal"> = {},
): Promise<void> {
  checkPreallocation(preallocation, newSize < oldSize, target.name);
  signal?.throwIfAborted();
  const { system, calls, descriptor, name } = target;
  const setSize = (size: number): Promise<void> =>
    calls.run(() => descriptor.hold((fd) => system.ftruncate(fd, size)));
  try {
    const isAllocated =
      preallocation === "falloc" &&
      newSize > oldSize &&
      (await target.space.allocate(descriptor, oldSize, newSize - oldSize));
    if (isAllocated) return;
    await setSize(newSize);
    if (newSize <= oldSize) return;
    if (preallocation !== "off") await fill(target, oldSize, newSize, signal);
    // Something to read at the beginning, for those who find out about alignment by reading.
    else if (oldSize === 0) await write(target, 0, new Uint8Array(Math.min(FIRST_BLOCK, newSize)));
  } catch (error) {
    const context = { node: name, operation: "truncate", size: newSize };
    const failure =
      signal?.aborted === true && error === signal.reason
        ? error
        : ioError(error, `Failed to resize '${name}' to ${newSize} bytes`, context);
    await restoreSize(setSize, oldSize, failure);
    throw failure;
  }
}

/** Puts the old length back; where even that fails, the first error is still the one to be told. */
async function restoreSize(
  setSize: (size: number) => Promise<void>,
  oldSize: number,
  failure: unknown,
): Promise<void> {
  try {
    await setSize(oldSize);
  } catch (error) {
    if (failure instanceof Error && failure.cause === undefined) failure.cause = error;
  }
}

function checkPreallocation(mode: Preallocation, isShrinking: boolean, name: string): void {
  const context = { node: name, operation: "truncate", preallocation: mode };
  if (mode === "metadata") {
    throw new BlockError("ENOTSUP", `Unsupported preallocation mode '${mode}'`, context);
  }
  if (mode !== "off" && isShrinking) {
    throw new BlockError("ENOTSUP", "Preallocation can't be used for shrinking files", context);
  }
}

/** Writes zeroes, so that the space is there whatever the file system offers. */
async function fill(
  target: ResizeTarget,
  start: number,
  end: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const zeroes = new Uint8Array(Math.min(STEP, end - start));
  for (let offset = start; offset < end; offset += STEP) {
    signal?.throwIfAborted();
    await write(target, offset, zeroes.subarray(0, end - offset));
  }
  try {
    await target.sync();
  } catch (error) {
    // What the operating system said is told as a failure to resize.
    throw error instanceof BlockError ? (error.cause ?? error) : error;
  }
}

function write(
  { system, calls, descriptor }: ResizeTarget,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  return descriptor.hold((fd) =>
    writeFully(
      (rest, position) => calls.run(() => system.write(fd, rest, position)),
      [bytes],
      offset,
    ),
  );
}
