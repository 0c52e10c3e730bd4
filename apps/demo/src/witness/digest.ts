import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";

export interface DigestOptions {
  readonly signal: AbortSignal;
  readonly progress?: (done: number, total: number) => void;
  /** Gets each piece too, in order. */
  readonly also?: (piece: Uint8Array, offset: number) => Promise<void>;
}

/** What can be read from its beginning to its end. */
export interface Readable {
  /** Bytes. */
  readonly size: number;
  read(offset: number, buffer: Uint8Array): Promise<void>;
}

/** Bytes that are read at once: little enough that others who want the event loop hardly notice. */
const PIECE = 256 * 1024;

/** Returns the sha256, in hexadecimal, of all of a disk. */
export async function digestOf(disk: Readable, options: DigestOptions): Promise<string> {
  const hash = createHash("sha256");
  const buffer = new Uint8Array(PIECE);
  for (let offset = 0; offset < disk.size; ) {
    options.signal.throwIfAborted();
    const piece = buffer.subarray(0, Math.min(buffer.length, disk.size - offset));
    await disk.read(offset, piece);
    hash.update(piece);
    await options.also?.(piece, offset);
    offset += piece.length;
    options.progress?.(offset, disk.size);
    // A read that is served from memory does not let go of the event loop by itself.
    await nextTurn();
  }
  return hash.digest("hex");
}

/** Returns the sha256 of a file, read without any of our layers. */
export async function digestOfFile(path: string, options: DigestOptions): Promise<string> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const read = async (offset: number, buffer: Uint8Array): Promise<void> => {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
      if (bytesRead !== buffer.length) throw new Error(`${path} ends at ${offset + bytesRead}`);
    };
    return await digestOf({ size, read }, options);
  } finally {
    await handle.close();
  }
}
