import { BlockError } from "@blocklayer/errors";
import { retried } from "./io-error.ts";

/**
 * Writes all of the buffers, whatever parts the operating system takes at once. The only way anything is
 * written here: a write may end early without an error, on a full file system for one.
 *
 * @param write - writes buffers at an offset and returns how many bytes it wrote
 * @throws BlockError `EINVAL` a write took nothing and reported nothing
 */
export async function writeFully(
  write: (buffers: readonly Uint8Array[], offset: number) => Promise<number>,
  buffers: readonly Uint8Array[],
  offset: number,
): Promise<void> {
  let rest = buffers.filter((buffer) => buffer.length > 0);
  let position = offset;
  while (rest.length > 0) {
    const buffersNow = rest;
    const positionNow = position;
    const count = await retried(() => write(buffersNow, positionNow));
    if (count <= 0) {
      throw new BlockError("EINVAL", `write at ${position} made no progress`, { offset: position });
    }
    rest = dropBytes(rest, count);
    position += count;
  }
}

/** Returns buffers without their first `count` bytes. */
export function dropBytes(buffers: readonly Uint8Array[], count: number): Uint8Array[] {
  let left = count;
  let index = 0;
  for (; index < buffers.length; index += 1) {
    const length = buffers[index]?.length ?? 0;
    if (left < length) break;
    left -= length;
  }
  const rest = buffers.slice(index);
  const [first] = rest;
  if (left > 0 && first !== undefined) rest[0] = first.subarray(left);
  return rest;
}

/** Returns the bytes in all buffers. */
export function lengthOf(buffers: readonly Uint8Array[]): number {
  let length = 0;
  for (const buffer of buffers) length += buffer.length;
  return length;
}
