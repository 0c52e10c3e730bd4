import { assert } from "@blocklayer/errors";
import { alignDown } from "@blocklayer/offsets";

/** Longest piece that is copied together instead of being written in several, and longest padded read in one. */
export const GATHER_LENGTH: number = 64 * 1024;

/** Bytes that are never cut in two: what clients take to be written as one, whatever a driver accepts. */
const SECTOR = 512;

/** Largest bounce buffer. */
export const BOUNCE_LENGTH: number = 16 * 1024 * 1024;

/** The bytes of one write in one or several buffers, addressed as if they were one. */
export class Payload {
  readonly buffers: readonly Uint8Array[];
  /** Bytes. */
  readonly length: number;

  constructor(buffers: readonly Uint8Array[]) {
    this.buffers = buffers;
    let length = 0;
    for (const buffer of buffers) length += buffer.length;
    this.length = length;
  }

  /** Returns the same bytes with others around. */
  padded(head: Uint8Array, tail: Uint8Array): Payload {
    return new Payload([head, ...this.buffers, tail].filter((buffer) => buffer.length > 0));
  }

  /** Whether every byte is 0. */
  isZero(): boolean {
    return this.buffers.every(isZeroFilled);
  }

  /**
   * Returns how long the next piece should be: as long as the limit allows where the bytes lie together, else short
   * enough that little is copied. No piece but the last one ends within a sector of the disk.
   *
   * @param position - bytes from the start of the payload
   * @param start - bytes: where the payload begins on the disk
   * @param lengthMax - bytes, a multiple of `alignment`
   */
  pieceLength(position: number, start: number, lengthMax: number, alignment: number): number {
    const rest = this.length - position;
    const at = start + position;
    // A driver that takes less than two sectors at a time leaves no choice.
    const unit = lengthMax >= 2 * SECTOR ? Math.max(alignment, SECTOR) : alignment;
    const cut = (length: number): number =>
      length >= rest ? rest : alignDown(at + length, unit) - at;
    const longest = Math.min(rest, lengthMax);
    const together = this.#contiguous(position);
    const direct = cut(Math.min(together, longest));
    if (together >= longest || direct >= GATHER_LENGTH) return direct;
    return cut(Math.min(longest, Math.max(GATHER_LENGTH, alignment)));
  }

  /** Returns `length` bytes from `position`: a view if they lie in one buffer, else a copy. */
  piece(position: number, length: number): Uint8Array {
    let start = position;
    for (const [index, buffer] of this.buffers.entries()) {
      if (start < buffer.length) {
        return start + length <= buffer.length
          ? buffer.subarray(start, start + length)
          : gather(this.buffers.slice(index), start, length);
      }
      start -= buffer.length;
    }
    assert(length === 0, "a piece lies inside its payload");
    return new Uint8Array(0);
  }

  #contiguous(position: number): number {
    let start = position;
    for (const buffer of this.buffers) {
      if (start < buffer.length) return buffer.length - start;
      start -= buffer.length;
    }
    return 0;
  }
}

function gather(buffers: readonly Uint8Array[], start: number, length: number): Uint8Array {
  const together = new Uint8Array(length);
  let skip = start;
  let filled = 0;
  for (const buffer of buffers) {
    const part = buffer.subarray(skip, skip + length - filled);
    together.set(part, filled);
    filled += part.length;
    skip = 0;
    if (filled === length) break;
  }
  assert(filled === length, "a piece lies inside its payload");
  return together;
}

/** Whether every byte is 0. Most data that is not zero is so in its first bytes. */
export function isZeroFilled(bytes: Uint8Array): boolean {
  const head = Math.min(bytes.length, (4 - (bytes.byteOffset % 4)) % 4);
  const wordCount = Math.floor((bytes.length - head) / 4);
  if (wordCount > 0) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + head, wordCount);
    for (let index = 0; index < wordCount; index += 1) if (words[index] !== 0) return false;
  }
  for (let index = 0; index < head; index += 1) if (bytes[index] !== 0) return false;
  for (let index = head + wordCount * 4; index < bytes.length; index += 1) {
    if (bytes[index] !== 0) return false;
  }
  return true;
}
