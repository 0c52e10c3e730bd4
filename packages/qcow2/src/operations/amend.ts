import type { AmendProgress } from "@blocklayer/driver";
import { log2 } from "@blocklayer/offsets";
import { Autoclear, Compatible } from "../format/constants.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { checkAmend, type Qcow2AmendOptions, versionAfter } from "./amend-options.ts";
import { downgrade } from "./downgrade.ts";
import { changeRefcountWidth } from "./refcount-width.ts";
import { type ResizeParts, resize } from "./resize.ts";
import type { Snapshots } from "./snapshots.ts";

/** What amending needs of the driver. */
export interface AmendParts extends ResizeParts {
  readonly snapshots: Snapshots;
}

/**
 * Changes what an image is. Each step leaves a valid image, wherever it is cut short; a smaller one than was asked
 * for may be done then.
 *
 * Nobody else uses the image meanwhile.
 *
 * Differs: an image with bitmaps is not made one of version 2; `qemu-img` loses them. All options are checked
 * before the first of them is carried out. Snapshots lose the host clusters of preallocated zeroes on the way to
 * version 2.
 *
 * @param progress - bytes of the image file, once for each step that looks at all of it
 * @throws BlockError `EINVAL` options that do not go together, a count that does not fit its new width; `ENOTSUP` the
 *   image can not be of version 2; `ENOSPC` the header does not fit; as {@link resize}
 * @see spec/qcow2.md section 15
 */
export async function amendImage(
  image: Qcow2Image,
  parts: AmendParts,
  options: Qcow2AmendOptions,
  progress: AmendProgress = () => undefined,
): Promise<void> {
  const { header, geometry, host } = image;
  const { snapshots } = parts;
  checkAmend(image, options, snapshots.records);
  const version = versionAfter(image, options);
  const bits = options["refcount-bits"] ?? geometry.refcountBits;
  const changesWidth = bits !== geometry.refcountBits;
  const downgrades = version < header.header.version;
  const unit = image.file.size;
  const total = Math.max(1, Number(changesWidth) + Number(downgrades)) * unit;
  let done = 0;
  const tell = (bytes: number): void => progress(done + Math.min(bytes, unit), total);
  if (version > header.header.version) await upgrade(image, snapshots);
  if (changesWidth) {
    await changeRefcountWidth(image, log2(bits), snapshots.records, tell);
    done += unit;
  }
  await amendDataFile(image, options);
  await amendLazy(image, options["lazy-refcounts"]);
  if (options.size !== undefined && options.size !== image.size) {
    await resize(image, parts, options.size, {});
    host.resized();
  }
  if (downgrades) await downgrade(image, parts.writer, snapshots.records, tell);
  progress(total, total);
}

async function upgrade(image: Qcow2Image, snapshots: Snapshots): Promise<void> {
  // What version 3 asks of snapshots is allowed in version 2 as well.
  await snapshots.rewrite();
  await image.header.update({ header: { version: 3 } });
}

async function amendDataFile({ header }: Qcow2Image, options: Qcow2AmendOptions): Promise<void> {
  const { "data-file": name, "data-file-raw": isRaw } = options;
  const { autoclear } = header.header;
  if (isRaw === false && autoclear.has(Autoclear.rawDataFile)) {
    await header.setFeatures({ autoclear: autoclear.without(Autoclear.rawDataFile) });
  }
  if (name === undefined || name === (header.extensions.dataFile ?? "")) return;
  await header.update({ extensions: { dataFile: name === "" ? undefined : name } });
}

async function amendLazy(image: Qcow2Image, lazy: boolean | undefined): Promise<void> {
  if (lazy === undefined) return;
  const { header } = image;
  if (!lazy) await image.clean();
  const { compatible } = header.header;
  const bit = Compatible.lazyRefcounts;
  const changed = lazy ? compatible.with(bit) : compatible.without(bit);
  if (!changed.equals(compatible)) await header.setFeatures({ compatible: changed });
  image.settings = { ...image.settings, lazyRefcounts: lazy };
}
