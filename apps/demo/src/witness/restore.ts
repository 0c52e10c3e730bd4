import { constants, copyFile, open } from "node:fs/promises";
import { copySparse, writeAll } from "../disk/sparse-copy.ts";
import { MiB } from "../scenario/quantities.ts";

/** A part of a disk, bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface RestoreOptions {
  /** The full backup. */
  readonly full: string;
  /** The incremental backup, a file of the disk's size that holds `extents` and nothing else. */
  readonly increment: string;
  readonly extents: readonly Extent[];
  /** The disk to be made. */
  readonly restored: string;
  readonly signal: AbortSignal;
}

/** Makes a disk of a full backup and an incremental one, as a user would have to: with plain files and none of our layers. */
export async function restore(options: RestoreOptions): Promise<void> {
  await cloneFile(options.full, options.restored, options.signal);
  const increment = await open(options.increment, "r");
  try {
    const restored = await open(options.restored, "r+");
    try {
      const buffer = Buffer.alloc(MiB);
      for (const piece of pieces(options.extents, buffer.length)) {
        options.signal.throwIfAborted();
        const part = buffer.subarray(0, piece.length);
        const { bytesRead } = await increment.read(part, 0, part.length, piece.offset);
        if (bytesRead !== part.length) throw new Error(`${options.increment} is too short`);
        await writeAll(restored, part, piece.offset);
      }
    } finally {
      await restored.close();
    }
  } finally {
    await increment.close();
  }
}

async function cloneFile(from: string, to: string, signal: AbortSignal): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
  } catch {
    // Where files can not share blocks; if something else was wrong, copying tells.
    await copySparse({ from, to, signal });
  }
}

function* pieces(extents: readonly Extent[], max: number): Generator<Extent> {
  for (const { offset, length } of extents) {
    for (let done = 0; done < length; done += max) {
      yield { offset: offset + done, length: Math.min(max, length - done) };
    }
  }
}
