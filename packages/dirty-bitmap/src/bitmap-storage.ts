import type { BlockNode } from "@blocklayer/block-graph";
import type { BitmapContent, PersistentBitmaps, StoredBitmap } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { alignDown, alignUp } from "@blocklayer/offsets";
import { bitmapExists } from "./bitmap-rules.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import type { NodeBitmaps } from "./node-bitmaps.ts";

/**
 * Makes bitmaps of what the image of a node holds. Those that were in use come back inconsistent, without content.
 *
 * @param wasAway - somebody else may have written to the disk: bitmaps that stayed in memory, because they were being
 *   used, lack that and become inconsistent
 * @throws BlockError the image's error; `EIO` a copy does not fit the node; `EEXIST` a bitmap that is not the image's has
 *   the name of one that is. None of them is loaded then
 * @see spec/dirty-bitmap.md section 8.2
 */
export async function loadBitmaps(
  home: NodeBitmaps,
  storage: PersistentBitmaps,
  wasAway: boolean,
): Promise<void> {
  const list = await storage.list();
  const loaded: DirtyBitmap[] = [];
  try {
    for (const stored of list) {
      if (isPresent(home, stored)) continue;
      const bitmap = await loadOne(home, storage, stored);
      loaded.push(bitmap);
      home.add(bitmap);
    }
  } catch (error) {
    for (const bitmap of loaded) home.release(bitmap);
    throw error;
  }
  if (wasAway) for (const bitmap of home.list) setOutdated(bitmap, loaded);
  const intact = list.filter(
    ({ name, inUse }) => !(inUse || home.find(name)?.inconsistent === true),
  );
  home.setIntact(intact.map(({ name }) => name));
}

/** @throws BlockError `EEXIST` */
function isPresent(home: NodeBitmaps, { name, inUse }: StoredBitmap): boolean {
  const present = home.find(name);
  if (present === undefined) return false;
  if (present.persistent || inUse) return true;
  throw bitmapExists(home.node, name);
}

function setOutdated(bitmap: DirtyBitmap, loaded: readonly DirtyBitmap[]): void {
  if (!bitmap.isStored || loaded.includes(bitmap)) return;
  bitmap.setInconsistent();
  bitmap.successor?.setInconsistent();
}

async function loadOne(
  home: NodeBitmaps,
  storage: PersistentBitmaps,
  stored: StoredBitmap,
): Promise<DirtyBitmap> {
  const { name, granularity, enabled } = stored;
  const bitmap = new DirtyBitmap(home, { name, granularity, enabled, persistent: true });
  bitmap.setReadonly(home.node.readOnly);
  if (stored.inUse) {
    bitmap.setInconsistent();
    return bitmap;
  }
  checkSize(home.node, stored);
  bitmap.swapMap(await readMap(home.node, stored, await storage.load(name)));
  bitmap.setModified(false);
  return bitmap;
}

function checkSize(node: BlockNode, stored: StoredBitmap): void {
  if (stored.size === node.size) return;
  throw new BlockError(
    "EIO",
    `stored bitmap '${stored.name}' covers ${stored.size} bytes, the node has ${node.size}`,
    { node: node.name, bitmap: stored.name },
  );
}

/** Bytes of the serialised form that are read at a time; a multiple of 8. */
const PART_BYTES = 65536;

const GROUPS_PER_BYTE = 8;

async function readMap(
  node: BlockNode,
  stored: StoredBitmap,
  content: BitmapContent,
): Promise<HBitmap> {
  const { size, granularity, name } = stored;
  const map = new HBitmap(size, granularity);
  const serializedLength = map.serializationSize(0, size);
  if (content.serializedLength < serializedLength) {
    const message = `stored bitmap '${name}' has ${content.serializedLength} bytes instead of ${serializedLength}`;
    throw new BlockError("EIO", message, { node: node.name, bitmap: name });
  }
  const bytesPerByte = granularity * GROUPS_PER_BYTE;
  for (let position = 0; position < serializedLength; position += PART_BYTES) {
    const part = Math.min(PART_BYTES, serializedLength - position);
    const offset = position * bytesPerByte;
    const length = Math.min(part * bytesPerByte, size - offset);
    const bytes = await content.read(position, part);
    if (bytes === undefined) map.deserializeZeroes(offset, length);
    else map.deserializePart(bytes, offset, length);
  }
  map.deserializeFinish();
  return map;
}

/**
 * Stores the bitmaps of a node in its image if they are not there already.
 *
 * Inconsistent ones keep their place in the image, with the mark that they are in use.
 *
 * @throws BlockError `EACCES` the node is read-only; the image's error: what it holds is not known then
 * @see spec/dirty-bitmap.md section 8.3
 */
export async function storeBitmaps(home: NodeBitmaps): Promise<void> {
  const { node } = home;
  const storage = node.driver.persistentBitmaps;
  if (storage === undefined || !home.needsStore) return;
  if (node.readOnly) {
    const message = `Lost persistent bitmaps during inactivation of node '${node.name}': No write access`;
    throw new BlockError("EACCES", message, { node: node.name });
  }
  // The oldest first, so that loading brings back the order.
  const stored = home.list.filter(({ isStored }) => isStored).toReversed();
  let isModified = true;
  try {
    await storage.store(stored.map(storedForm));
    isModified = false;
  } finally {
    // After a failure the image may hold these or the old ones: they are marked before a write, and stored again.
    for (const bitmap of stored) bitmap.setModified(isModified);
    home.setIntact(
      stored.flatMap(({ name, inconsistent }) =>
        name === undefined || inconsistent ? [] : [name],
      ),
    );
  }
}

/** A frozen bitmap is stored with what was written since: whatever becomes of its job, nothing is missing. */
function storedForm(bitmap: DirtyBitmap): StoredBitmap & { readonly content: BitmapContent } {
  const { name = "", granularity, size, recording, inconsistent, map, successor } = bitmap;
  const content = successor === undefined ? map : HBitmap.merged(map, successor.map);
  return {
    name,
    granularity,
    size,
    enabled: recording,
    inUse: inconsistent,
    content: new MapContent(content),
  };
}

/** A map in serialised form, made as it is read. */
class MapContent implements BitmapContent {
  readonly serializedLength: number;
  readonly #map: HBitmap;

  constructor(map: HBitmap) {
    this.#map = map;
    this.serializedLength = map.serializationSize(0, map.size);
  }

  read(offset: number, length: number): Uint8Array | undefined {
    const map = this.#map;
    const bytesPerByte = map.granularity * GROUPS_PER_BYTE;
    // Parts of the serialised form begin at whole words.
    const start = alignDown(offset, GROUPS_PER_BYTE);
    const end = Math.min(alignUp(offset + length, GROUPS_PER_BYTE), this.serializedLength);
    const from = start * bytesPerByte;
    const bytes = Math.min(end * bytesPerByte, map.size) - from;
    if (map.nextDirty(from, bytes) === -1) return undefined;
    return map.serializePart(from, bytes).subarray(offset - start, offset - start + length);
  }
}
