import { alignUp, divideDown, writeU64 } from "@blocklayer/offsets";
import { Autoclear } from "../format/constants.ts";
import {
  BITMAPS_CONTENT_AT,
  type ChainPlaces,
  chainPlaces,
  encodeLastBitmaps,
} from "../format/extension-chain.ts";
import { type BitmapsExtension, encodeBitmaps } from "../format/header-extensions.ts";
import type { HeaderStore } from "../image/header-store.ts";
import type { HostFile } from "../image/host-file.ts";

/** Bytes that a disk writes completely or not at all. */
const SECTOR = 512;
/** Where the header has the offset of the backing file's name. */
const BACKING_NAME_AT = 8;
const ALIGNMENT = 8;

/**
 * Lets the header point to another directory of bitmaps, or to none.
 *
 * A crash may tear a write between sectors of 512 bytes, so each step changes one sector, or what nothing refers to:
 *
 * - One directory for another: the 24 bytes of the extension are written. They nearly always lie in one sector, and
 *   then the image has the old set or the new one. If they do not, the autoclear bit is cleared before and set behind.
 * - The first directory: the extension comes behind all others, while the autoclear bit is clear. What lies in later
 *   sectors is written first, then the sector that ends the extensions now, then the bit. A backing file's name that
 *   is in the way is copied to behind the old one before, and the header is pointed to the copy. Where clusters of a few
 *   sectors have no room for both, cluster 0 is written anew in one write, which a crash may tear.
 * - No directory: the autoclear bit is cleared, then the extension makes room for the end of the extensions. One that
 *   others follow stays: without the bit it counts for nothing.
 *
 * Each step is stable before the next. Where the autoclear bit is clear, all bitmaps are lost, and none is wrong.
 *
 * @throws BlockError `ENOSPC` it does not fit cluster 0; then nothing was changed. Whatever writing reports: the header is
 *   no longer known then
 * @see spec/qcow2.md section 16
 */
export async function switchBitmaps(
  file: HostFile,
  header: HeaderStore,
  next: BitmapsExtension | undefined,
): Promise<void> {
  const cluster0 = new Uint8Array(file.geometry.clusterSize);
  await file.read(0, cluster0);
  const places = chainPlaces(cluster0, header.header);
  if (next === undefined) await drop(header, places);
  else if (places.bitmaps === undefined) await append(file, header, places, next);
  else await replace(header, places.bitmaps + BITMAPS_CONTENT_AT, next);
  header.adoptExtensions({ bitmaps: next });
}

/** Sets or clears the bit that says that the bitmaps are true. */
export async function setAutoclear(header: HeaderStore, isValid: boolean): Promise<void> {
  const { autoclear } = header.header;
  if (autoclear.has(Autoclear.bitmaps) === isValid) return;
  const bit = Autoclear.bitmaps;
  await header.setFeatures({ autoclear: isValid ? autoclear.with(bit) : autoclear.without(bit) });
}

async function replace(header: HeaderStore, at: number, next: BitmapsExtension): Promise<void> {
  const bytes = encodeBitmaps(next);
  if (!isOneSector(at, bytes.length)) await setAutoclear(header, false);
  await header.patch(at, bytes);
  await setAutoclear(header, true);
}

async function drop(header: HeaderStore, { bitmaps, isLast }: ChainPlaces): Promise<void> {
  await setAutoclear(header, false);
  if (bitmaps !== undefined && isLast) await header.patch(bitmaps, new Uint8Array(ALIGNMENT));
}

async function append(
  file: HostFile,
  header: HeaderStore,
  { end }: ChainPlaces,
  next: BitmapsExtension,
): Promise<void> {
  const { clusterSize } = file.geometry;
  const bytes = encodeLastBitmaps(next);
  const name = placeForName(header, end + bytes.length);
  if (Math.max(end + bytes.length, name?.end ?? 0) > clusterSize) {
    return await rewrite(header, next);
  }
  await setAutoclear(header, false);
  if (name !== undefined) await moveName(file, header, name.offset);
  const inFirst = Math.min(bytes.length, SECTOR - (end % SECTOR));
  if (inFirst < bytes.length) await header.patch(end + inFirst, bytes.subarray(inFirst));
  await header.patch(end, bytes.subarray(0, inFirst));
  await setAutoclear(header, true);
}

/** Where the backing file's name can be copied to; `undefined` if it is not in the way. */
function placeForName(
  { header }: HeaderStore,
  end: number,
): { readonly offset: number; readonly end: number } | undefined {
  const { backingNameOffset, backingNameLength } = header;
  if (backingNameOffset === 0 || backingNameOffset >= end) return undefined;
  const offset = alignUp(Math.max(end, backingNameOffset + backingNameLength), ALIGNMENT);
  return { offset, end: offset + backingNameLength };
}

async function moveName(file: HostFile, header: HeaderStore, offset: number): Promise<void> {
  const { backingNameOffset, backingNameLength } = header.header;
  const name = new Uint8Array(backingNameLength);
  await file.read(backingNameOffset, name);
  await header.patch(offset, name);
  const pointer = new Uint8Array(8);
  writeU64(pointer, 0, offset);
  await header.patch(BACKING_NAME_AT, pointer);
  header.adopt({ backingNameOffset: offset });
}

async function rewrite(header: HeaderStore, next: BitmapsExtension): Promise<void> {
  await setAutoclear(header, false);
  await header.update({ extensions: { bitmaps: next } });
  await setAutoclear(header, true);
}

function isOneSector(at: number, length: number): boolean {
  return divideDown(at, SECTOR) === divideDown(at + length - 1, SECTOR);
}
