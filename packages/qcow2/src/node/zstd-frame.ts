const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
/** Bytes of the dictionary's id, by the two lowest bits of the descriptor. */
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
/** Bytes of the content's size, by the two highest bits of the descriptor. */
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const RLE_BLOCK = 1;

/**
 * Returns where the zstd frame that begins at `start` ends, `undefined` if it does not end within the input or is none.
 * Clusters end in the middle of a sector, and what follows belongs to others: a decoder must not see it.
 *
 * @see RFC 8878 section 3.1
 */
export function zstdFrameEnd(input: Uint8Array, start: number): number | undefined {
  if (start + 8 > input.length) return undefined;
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  const magic = view.getUint32(start, true);
  if (magic - (magic % 16) === SKIPPABLE_MAGIC) {
    return inside(start + 8 + view.getUint32(start + 4, true), input);
  }
  if (magic !== MAGIC) return undefined;
  const descriptor = view.getUint8(start + 4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const sizeCode = descriptor >>> 6;
  const contentBytes = sizeCode === 0 && isSingleSegment ? 1 : (CONTENT_SIZE_BYTES[sizeCode] ?? 0);
  const dictionaryBytes = DICTIONARY_BYTES[descriptor & 3] ?? 0;
  let at = start + 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + contentBytes;
  for (let isLast = false; !isLast; ) {
    if (at + 3 > input.length) return undefined;
    const header = view.getUint16(at, true) + view.getUint8(at + 2) * 65536;
    isLast = (header & 1) === 1;
    at += 3 + (((header >>> 1) & 3) === RLE_BLOCK ? 1 : header >>> 3);
  }
  return inside((descriptor & 4) === 0 ? at : at + 4, input);
}

function inside(end: number, input: Uint8Array): number | undefined {
  return end <= input.length ? end : undefined;
}
