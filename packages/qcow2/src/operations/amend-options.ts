import { BlockError } from "@blocklayer/errors";
import { isPowerOfTwo, MAX_LENGTH } from "@blocklayer/offsets";
import {
  boolean,
  enumeration,
  integer,
  object,
  optional,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";
import { Incompatible } from "../format/constants.ts";
import type { SnapshotRecord } from "../format/snapshot-table.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/** Options of `amend`: what can be changed of an image that is there. What is not given stays. */
export interface Qcow2AmendOptions {
  /** Bytes of the disk, a multiple of 512. */
  readonly size?: number;
  readonly version?: "v2" | "v3";
  /** Only as it is: what the image shows is not changed here. */
  readonly "backing-file"?: string;
  /** As `backing-file`. */
  readonly "backing-fmt"?: string;
  readonly "lazy-refcounts"?: boolean;
  /** Bits of a reference count, a power of two up to 64. */
  readonly "refcount-bits"?: number;
  /** Name of the external data file, as the image will hold it; empty for none. The open node keeps the file it has. */
  readonly "data-file"?: string;
  /** `false` only, or as it is. */
  readonly "data-file-raw"?: boolean;
}

export const amendSchema: Schema<Qcow2AmendOptions> = object({
  size: optional(size({ max: MAX_LENGTH })),
  version: optional(enumeration("v2", "v3")),
  "backing-file": optional(string()),
  "backing-fmt": optional(string()),
  "lazy-refcounts": optional(boolean()),
  "refcount-bits": optional(integer({ min: 0, max: 2 ** 31 - 1 })),
  "data-file": optional(string()),
  "data-file-raw": optional(boolean()),
});

const USE_V3 = { hint: "compat=1.1 is version v3 here" };

/**
 * Checks that options go together, and with the image, before anything is changed.
 *
 * @throws BlockError `EINVAL`; `ENOTSUP` the image can not be of version 2
 */
export function checkAmend(
  image: Qcow2Image,
  options: Qcow2AmendOptions,
  snapshots: readonly SnapshotRecord[],
): void {
  checkWidth(image, options);
  const version = versionAfter(image, options);
  if (version === 2 && options["lazy-refcounts"] === true) {
    const message =
      "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)";
    throw invalid(image, message, USE_V3);
  }
  checkFiles(image, options);
  if (version === 2 && image.header.header.version === 3) {
    checkDowngrade(image, options, snapshots);
  }
}

/** The version that an image has when it is amended. */
export function versionAfter(image: Qcow2Image, { version }: Qcow2AmendOptions): 2 | 3 {
  if (version === undefined) return image.header.header.version;
  return version === "v3" ? 3 : 2;
}

function checkWidth(image: Qcow2Image, options: Qcow2AmendOptions): void {
  const given = options["refcount-bits"];
  if (given !== undefined && !(isPowerOfTwo(given) && given <= 64)) {
    throw invalid(image, "Refcount width must be a power of two and may not exceed 64 bits");
  }
  const bits = given ?? image.geometry.refcountBits;
  if (versionAfter(image, options) === 3 || bits === 16) return;
  if (options.version === "v2") throw invalid(image, "compat=0.10 requires refcount_bits=16");
  const message =
    "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)";
  throw invalid(image, message, USE_V3);
}

function checkFiles(image: Qcow2Image, options: Qcow2AmendOptions): void {
  const { header, hasDataFile, isRawDataFile } = image;
  const backingFile = options["backing-file"];
  const backingFormat = options["backing-fmt"];
  if (backingFile !== undefined || backingFormat !== undefined) {
    const isSame =
      (backingFile ?? "") === (header.backingName ?? "") &&
      (backingFormat ?? "") === (header.extensions.backingFormat ?? "");
    if (!isSame) {
      throw invalid(image, "Cannot amend the backing file", {
        hint: "You can use 'qemu-img rebase' instead.",
      });
    }
  }
  if (options["data-file"] !== undefined && !hasDataFile) {
    throw invalid(image, "data-file can only be set for images that use an external data file");
  }
  if (options["data-file-raw"] === true && !(hasDataFile && isRawDataFile)) {
    throw invalid(image, "data-file-raw cannot be set on existing images");
  }
}

function checkDowngrade(
  image: Qcow2Image,
  options: Qcow2AmendOptions,
  snapshots: readonly SnapshotRecord[],
): void {
  const { header, hasDataFile } = image;
  if (hasDataFile) throw unsupported(image, "Cannot downgrade an image with a data file");
  const kept = header.header.incompatible.without(
    Incompatible.dirty | Incompatible.compressionType,
  );
  if (!kept.isEmpty) {
    const bits = `0x${kept.hexWithout([])}`;
    throw unsupported(image, `Cannot downgrade an image with incompatible features ${bits} set`);
  }
  const diskSize = options.size ?? image.size;
  // Version 2 has nowhere to say that a snapshot's disk had another size, nor that its VM state is this long.
  if (snapshots.some((one) => one.diskSize !== diskSize || one.vmStateSize >= 2 ** 32)) {
    throw unsupported(image, "Internal snapshots prevent downgrade of image");
  }
  if (header.extensions.bitmaps !== undefined) {
    throw unsupported(image, "Cannot downgrade an image with bitmaps");
  }
}

function invalid(
  { host }: Qcow2Image,
  message: string,
  options: { readonly hint?: string } = {},
): BlockError {
  return new BlockError("EINVAL", message, { node: host.nodeName }, options);
}

export function unsupported({ host }: Qcow2Image, message: string): BlockError {
  return new BlockError("ENOTSUP", message, { node: host.nodeName });
}
