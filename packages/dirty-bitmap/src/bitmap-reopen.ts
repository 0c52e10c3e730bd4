import { BlockError } from "@blocklayer/errors";
import { storeBitmaps } from "./bitmap-storage.ts";
import type { NodeBitmaps } from "./node-bitmaps.ts";

/**
 * Stores the bitmaps of a node that becomes read-only; they stay, and must remain equal to what was stored.
 *
 * @returns what takes it back
 * @throws BlockError what the image reported
 * @see spec/dirty-bitmap.md section 8.3
 */
export async function prepareReadOnly(home: NodeBitmaps): Promise<() => void> {
  await storeBitmaps(home);
  return setReadonly(home, true);
}

/**
 * Makes the bitmaps of a node that becomes writable usable again. The image learns of it before the first write.
 *
 * @returns what takes it back
 * @throws BlockError `EINVAL` the image holds a bitmap that is not in memory, or is not what was loaded
 * @see spec/dirty-bitmap.md section 8.5
 */
export async function prepareWritable(home: NodeBitmaps): Promise<() => void> {
  for (const stored of (await home.node.driver.persistentBitmaps?.list()) ?? []) {
    const bitmap = home.find(stored.name);
    const fits = bitmap?.persistent === true && bitmap.inconsistent === stored.inUse;
    if (fits) continue;
    const message = `Bitmap '${stored.name}' of node '${home.node.name}' has changed in the image since it was loaded`;
    throw new BlockError("EINVAL", message, { node: home.node.name, bitmap: stored.name });
  }
  return setReadonly(home, false);
}

function setReadonly(home: NodeBitmaps, isReadonly: boolean): () => void {
  const changed = home.list.filter(({ isStored, readonly }) => isStored && readonly !== isReadonly);
  for (const bitmap of changed) bitmap.setReadonly(isReadonly);
  return () => {
    for (const bitmap of changed) bitmap.setReadonly(!isReadonly);
  };
}
