import { alignDown, alignUp } from "@blocklayer/offsets";

/**
 * Splits a range as a graph splits write-zeroes and discards: a head up to the first multiple of the preferred
 * alignment, whole multiples, a tail; none longer than the limit.
 *
 * @param alignment - bytes; 0 for no preference
 * @param lengthMax - bytes; 0 for no limit
 * @returns offset and length of each piece, in order
 */
export function piecesOf(
  offset: number,
  length: number,
  alignment: number,
  lengthMax: number,
): [offset: number, length: number][] {
  const unit = Math.max(alignment, 1);
  const longest = lengthMax === 0 ? length : lengthMax;
  const pieces: [number, number][] = [];
  const end = offset + length;
  for (let position = offset; position < end; ) {
    const boundary = alignUp(position, unit);
    const isHead = boundary > position;
    const wanted = isHead ? Math.min(boundary, end) : Math.max(alignDown(end, unit), position);
    // Nothing whole is left: what remains is the tail.
    const pieceEnd = wanted === position ? end : wanted;
    const pieceLength = Math.min(pieceEnd - position, cut(longest, unit));
    pieces.push([position, pieceLength]);
    position += pieceLength;
  }
  return pieces;
}

/** The limit in whole units, when it is at least one. */
function cut(lengthMax: number, unit: number): number {
  return lengthMax >= unit ? alignDown(lengthMax, unit) : lengthMax;
}
