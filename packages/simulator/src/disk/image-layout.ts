import type { StoredBitmap } from "@blocklayer/driver";

/*
 * How a simulated image keeps bitmaps behind its data:
 *
 *   data | area 0 | area 1 | root 0 | root 1
 *
 * An area holds a set of bitmaps with their content. A root is one sector: its generation says which of the two is
 * newer, and it names the area, its length and checksum, and which of its bitmaps are in use. A set is replaced by
 * writing the other area, a flush, the other root, and another flush; a bitmap is marked by the other root and a flush.
 * So there is a whole root at every moment, and what it names is whole.
 */

/** Bytes of an area. */
export const AREA_LENGTH = 4096;
/** Bytes of a root. */
export const ROOT_LENGTH = 512;
/** Bytes that an image needs behind its data. */
export const METADATA_LENGTH: number = 2 * AREA_LENGTH + 2 * ROOT_LENGTH;

const MAGIC = 0xb17_a_b17a;

/** A bitmap as an area holds it. Whether it is in use is the root's to say. */
export interface ImageBitmap extends Omit<StoredBitmap, "inUse"> {
  readonly bytes: readonly number[];
}

export interface ImageRoot {
  readonly generation: number;
  readonly area: number;
  /** Bytes of the area that count. */
  readonly length: number;
  readonly checksum: number;
  /** Bit n: bitmap n of the area is in use. */
  readonly inUse: number;
}

/** What an image holds before anything was stored. */
export const EMPTY_ROOT: ImageRoot = { generation: 0, area: 0, length: 0, checksum: 0, inUse: 0 };

export function encodeRoot(root: ImageRoot): Uint8Array {
  const words = new Uint32Array(ROOT_LENGTH / 4);
  const { generation, area, length, checksum, inUse } = root;
  words.set([MAGIC, generation, area, length, checksum, inUse]);
  const bytes = new Uint8Array(words.buffer);
  words[words.length - 1] = checksumOf(bytes.subarray(0, ROOT_LENGTH - 4));
  return bytes;
}

/** @returns `undefined` for bytes that are no whole root */
export function decodeRoot(bytes: Uint8Array): ImageRoot | undefined {
  const words = new Uint32Array(bytes.slice().buffer);
  const [magic, generation = 0, area = 0, length = 0, checksum = 0, inUse = 0] = words;
  if (magic !== MAGIC || words.at(-1) !== checksumOf(bytes.subarray(0, ROOT_LENGTH - 4))) {
    return undefined;
  }
  return { generation, area, length, checksum, inUse };
}

export function encodeArea(bitmaps: readonly ImageBitmap[]): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(bitmaps));
}

/** @returns `undefined` for bytes that are not what the root says */
export function decodeArea(root: ImageRoot, area: Uint8Array): ImageBitmap[] | undefined {
  if (root.generation === 0) return [];
  const bytes = area.subarray(0, root.length);
  if (checksumOf(bytes) !== root.checksum) return undefined;
  return JSON.parse(new TextDecoder().decode(bytes)) as ImageBitmap[];
}

/** FNV-1a. */
export function checksumOf(bytes: Uint8Array): number {
  let sum = 0x811c9dc5;
  for (const byte of bytes) sum = Math.imul(sum ^ byte, 0x01000193);
  return sum >>> 0;
}
