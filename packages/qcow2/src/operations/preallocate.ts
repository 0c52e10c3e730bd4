import type { Preallocation } from "@blocklayer/driver";
import { EntryChange } from "../data/entry-change.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** Bytes that are allocated and linked at a time. */
const STEP: number = 64 * 2 ** 20;
const ALL = 0xffffffff;

/**
 * Allocates and links all clusters of a range that has none, so that nothing has to be allocated when it is written.
 * The range reads as zeroes.
 *
 * @param start - guest bytes, at a cluster
 * @param end - guest bytes
 * @see spec/qcow2.md section 10
 */
export async function preallocate(
  image: Qcow2Image,
  start: number,
  end: number,
  mode: Exclude<Preallocation, "off">,
): Promise<void> {
  const { geometry } = image;
  const { clusterSize } = geometry;
  for (let at = start; at < end; ) {
    const length = Math.min(STEP, geometry.clustersOf(end - at) * clusterSize);
    const host = image.hasDataFile ? at : await reserve(image, length, mode);
    await link(image, at, host, length);
    at += length;
  }
  if (image.hasDataFile) await image.data.truncate(end, { preallocation: dataMode(mode) });
}

/** Space in the image file that reads as zeroes. */
async function reserve(
  image: Qcow2Image,
  length: number,
  mode: Exclude<Preallocation, "off">,
): Promise<number> {
  const { allocator, file, geometry } = image;
  const { child } = file;
  await image.prepareToAllocate();
  const host = await allocator.allocate(length / geometry.clusterSize);
  try {
    const inside = Math.min(length, Math.max(0, file.size - host));
    if (inside > 0) await file.writeZeroes(host, inside);
    if (host + length > file.size) {
      await child.truncate(host + length, { preallocation: dataMode(mode) });
    }
  } catch (error) {
    allocator.abandon(host, length);
    throw error;
  }
  return host;
}

/** How the file below gets ready: metadata is this format's own. */
function dataMode(mode: Exclude<Preallocation, "off">): Preallocation {
  return mode === "metadata" ? "off" : mode;
}

async function link(image: Qcow2Image, start: number, host: number, length: number): Promise<void> {
  const entries = new EntryChange(image);
  const { clusterSize } = image.geometry;
  for (let done = 0; done < length; done += clusterSize) {
    const at = start + done;
    await entries.within(at, (words) => entries.link(at, words, host + done, ALL, false));
  }
}
