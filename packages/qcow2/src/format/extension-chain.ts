import { alignUp, readU32, writeU32 } from "@blocklayer/offsets";
import type { Header } from "./header.ts";
import { type BitmapsExtension, Extension, encodeBitmaps } from "./header-extensions.ts";

/** Bytes of type and length. */
const PREFIX = 8;
const PADDING = 8;

/** Where cluster 0 has what matters for changing the extension of bitmaps. Bytes from its start. */
export interface ChainPlaces {
  /** The extension of bitmaps, its type first; `undefined` where there is none. */
  readonly bitmaps: number | undefined;
  /** What ends the extensions, or would if it were written. */
  readonly end: number;
  /** Nothing but the end follows the extension of bitmaps. */
  readonly isLast: boolean;
}

/** Finds the places in a cluster 0 whose extensions can be decoded. */
export function chainPlaces(bytes: Uint8Array, header: Header): ChainPlaces {
  const limit = header.backingNameOffset === 0 ? bytes.length : header.backingNameOffset;
  let bitmaps: number | undefined;
  let behindBitmaps = -1;
  let at = header.headerLength;
  while (at + PREFIX <= limit) {
    const type = readU32(bytes, at);
    if (type === Extension.end) break;
    const next = at + PREFIX + alignUp(readU32(bytes, at + 4), PADDING);
    if (type === Extension.bitmaps) {
      bitmaps = at;
      behindBitmaps = next;
    }
    at = next;
  }
  return { bitmaps, end: at, isLast: behindBitmaps === at };
}

/** The content of the extension, for a place that has its type and length already. */
export const BITMAPS_CONTENT_AT: number = PREFIX;

/** Encodes the extension with type and length, and the end of all extensions behind it. */
export function encodeLastBitmaps(extension: BitmapsExtension): Uint8Array {
  const content = encodeBitmaps(extension);
  const bytes = new Uint8Array(PREFIX + content.length + PREFIX);
  writeU32(bytes, 0, Extension.bitmaps);
  writeU32(bytes, 4, content.length);
  bytes.set(content, PREFIX);
  return bytes;
}
