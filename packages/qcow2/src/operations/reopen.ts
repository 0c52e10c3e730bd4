import type { PreparedReopen, ReopenChange } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { Incompatible } from "../format/constants.ts";
import type { CacheCleaner } from "../image/cache-cleaner.ts";
import { type CacheSizes, cacheSizes } from "../image/cache-sizes.ts";
import { imageSettings } from "../image/image-settings.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { checkedSections, type Qcow2Options } from "../options.ts";

/** Options of the driver that can be changed while an image is open. */
export const REOPENABLE: readonly (keyof Qcow2Options)[] = [
  "lazy-refcounts",
  "pass-discard-request",
  "pass-discard-snapshot",
  "pass-discard-other",
  "overlap-check",
  "cache-size",
  "l2-cache-size",
  "l2-cache-entry-size",
  "refcount-cache-size",
  "cache-clean-interval",
];

/**
 * Gets an image ready for other options. What must be in the file before they hold (because the image will be read-only,
 * counts are no longer late, tables are kept in slices of another size) is written here; taking them is one step then.
 *
 * @throws BlockError `EINVAL` options that contradict each other or the image; `EACCES` an image that is marked as damaged
 *   is not written; what writing back reports
 * @see spec/qcow2.md section 17
 */
export async function prepareReopen(
  image: Qcow2Image,
  cleaner: CacheCleaner,
  { options: given, readOnly }: ReopenChange,
  taken: () => void,
): Promise<PreparedReopen> {
  const options = given as Qcow2Options;
  const { header, geometry, host, l2, gate } = image;
  const caches = cacheSizes(options, geometry, image.size);
  const { lazyRefcounts } = imageSettings(options, header.header, host.options.discard);
  const isCorrupt = header.header.incompatible.has(Incompatible.corrupt);
  if (isCorrupt && !readOnly && !image.isCheckOnly) {
    const message = "qcow2: Image is corrupt; cannot be opened read/write";
    throw new BlockError("EACCES", message, { node: host.nodeName });
  }
  const mustClean = readOnly || !lazyRefcounts || caches.sliceSize !== l2.sliceSize;
  if (mustClean && !image.readOnly) {
    await gate.alone(async () => {
      await image.flush();
      await image.clean();
    });
  }
  return {
    commit: () => {
      // The node's own options are the new ones only now.
      image.settings = imageSettings(options, header.header, host.options.discard);
      image.file.metadata.check(checkedSections(options));
      resizeCaches(image, caches);
      cleaner.interval = options["cache-clean-interval"];
      taken();
    },
    abort: () => undefined,
  };
}

function resizeCaches({ l2, refcounts }: Qcow2Image, caches: CacheSizes): void {
  if (caches.sliceSize !== l2.sliceSize) l2.reshape(caches.sliceSize);
  l2.cache.capacity = caches.slices;
  refcounts.blocks.capacity = caches.refcountBlocks;
}
