import type {
  BitmapContent,
  BlockChild,
  BlockDriver,
  PersistentBitmaps,
  StoredBitmap,
} from "@blocklayer/driver";
import type { TestHost } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import type { Workshop } from "./peers.ts";

export const MIB: number = 2 ** 20;

/** A bitmap to be stored. Dirty groups by number. */
export type GivenBitmap = StoredBitmap & { readonly content: BitmapContent };

/** Makes a bitmap of a disk of 1 MiB with groups of 64 KiB, if nothing else is said. */
export function bitmap(
  name: string,
  dirty: readonly number[],
  change: Partial<StoredBitmap> = {},
): GivenBitmap {
  const { granularity = 65536, size = MIB, enabled = true, inUse = false } = change;
  return {
    name,
    granularity,
    size,
    enabled,
    inUse,
    content: contentOfBits(dirty, size, granularity),
  };
}

/** Content in serialised form. */
export function contentOfBits(
  dirty: readonly number[],
  size: number,
  granularity: number,
): BitmapContent {
  const serializedLength = Math.ceil(size / granularity / 64) * 8;
  const bytes = new Uint8Array(serializedLength);
  for (const bit of dirty) {
    const at = Math.floor(bit / 8);
    bytes[at] = (bytes[at] ?? 0) | (1 << (bit % 8));
  }
  return { serializedLength, read: (offset, length) => bytes.slice(offset, offset + length) };
}

/** Numbers of the groups that are dirty, read in parts of 13 bytes. */
export async function bitsOfContent(content: BitmapContent): Promise<number[]> {
  const bits: number[] = [];
  const step = 13;
  for (let offset = 0; offset < content.serializedLength; offset += step) {
    const length = Math.min(step, content.serializedLength - offset);
    const bytes = (await content.read(offset, length)) ?? [];
    for (const [index, byte] of bytes.entries()) {
      for (let bit = 0; bit < 8; bit += 1) {
        if ((byte & (1 << bit)) !== 0) bits.push((offset + index) * 8 + bit);
      }
    }
  }
  return bits;
}

export function bitmapsOf(driver: BlockDriver): PersistentBitmaps {
  if (driver.persistentBitmaps === undefined) throw new Error("the driver keeps no bitmaps");
  return driver.persistentBitmaps;
}

/** What the image holds, by name: dirty groups, or that it is in use. */
export async function heldBy(
  driver: BlockDriver,
): Promise<Record<string, readonly number[] | "in use">> {
  const held: Record<string, readonly number[] | "in use"> = {};
  for (const { name, inUse } of await bitmapsOf(driver).list()) {
    held[name] = inUse ? "in use" : await bitsOfContent(await bitmapsOf(driver).load(name));
  }
  return held;
}

/** Code and message of what a call rejects with. */
export async function failure(call: Promise<unknown>): Promise<readonly [string, string]> {
  try {
    await call;
  } catch (error) {
    if (error instanceof BlockError) return [error.code, error.message];
    throw error;
  }
  throw new Error("nothing was thrown");
}

let sockets = 0;

/** Groups that an export of the bitmap by `qemu-nbd` shows as dirty. */
export function theirBits(
  shop: Workshop,
  image: string,
  { name, granularity }: Pick<StoredBitmap, "name" | "granularity">,
): number[] {
  // The one before removes its socket when it gets round to it.
  sockets += 1;
  const socket = shop.file(`nbd-${sockets}.sock`);
  shop.run("qemu-nbd", "--fork", "-r", "-k", socket, "-f", "qcow2", "-B", name, image);
  const options = `driver=nbd,server.type=unix,server.path=${socket},x-dirty-bitmap=qemu:dirty-bitmap:${name}`;
  const out = shop.run("qemu-img", "map", "--output=json", "--image-opts", options);
  const extents = JSON.parse(out) as { start: number; length: number; data: boolean }[];
  return extents
    .filter(({ data }) => !data)
    .flatMap(({ start, length }) =>
      Array.from(
        { length: Math.ceil(length / granularity) },
        (_, index) => Math.floor(start / granularity) + index,
      ),
    );
}

/** The edge to the image file. */
export function fileOf(host: TestHost): BlockChild {
  const child = host.children.get("file");
  if (child === undefined) throw new Error("there is no file");
  return child;
}

/** The lowest bits of the autoclear word. */
export async function autoclearOf(file: BlockChild): Promise<number> {
  const bytes = new Uint8Array(8);
  await file.pread(88, bytes);
  return bytes[7] ?? 0;
}

/** Host offset of the directory. */
export async function directoryOffsetOf(file: BlockChild): Promise<number> {
  const bytes = new Uint8Array(file.size);
  await file.pread(0, bytes);
  const view = new DataView(bytes.buffer);
  let at = 112;
  while (view.getUint32(at) !== 0x23852875) at += 8;
  return Number(view.getBigUint64(at + 24));
}

/** Host offset of the table of the first bitmap. */
export async function tableOffsetOf(file: BlockChild): Promise<number> {
  const offset = new Uint8Array(8);
  await file.pread(await directoryOffsetOf(file), offset);
  return Number(new DataView(offset.buffer).getBigUint64(0));
}

/** Bitmaps as `qemu-img info` shows them. */
export function theirList(shop: Workshop, image: string): unknown[] {
  const info = JSON.parse(shop.run("qemu-img", "info", "--output=json", image)) as {
    "format-specific": { data: { bitmaps?: unknown[] } };
  };
  return info["format-specific"].data.bitmaps ?? [];
}
