import { BlockError } from "@blocklayer/errors";
import { readDirectory, validExtension } from "../bitmaps/stored-directory.ts";
import { Compatible, Incompatible } from "../format/constants.ts";
import type { Qcow2Image } from "./qcow2-image.ts";

/** A bitmap as information on an image shows it. */
export interface BitmapInfo {
  readonly name: string;
  /** Bytes per bit. */
  readonly granularity: number;
  readonly flags: readonly ("in-use" | "auto")[];
}

/**
 * Returns what is the format's own to tell of an image, as QMP names it. Bitmaps whose directory cannot be read are left
 * out: a check says what is wrong with them.
 *
 * @see spec/qmp.md section B.2
 */
export async function formatInfo(image: Qcow2Image): Promise<Readonly<Record<string, unknown>>> {
  const { header, extensions } = image.header;
  const common = {
    "refcount-bits": image.geometry.refcountBits,
    "compression-type": header.compressionType,
  };
  if (header.version === 2) return { compat: "0.10", ...common };
  const { dataFile } = extensions;
  const bitmaps = await storedBitmaps(image);
  return {
    compat: "1.1",
    ...common,
    ...(dataFile === undefined ? {} : { "data-file": dataFile }),
    ...(image.hasDataFile ? { "data-file-raw": image.isRawDataFile } : {}),
    "extended-l2": image.geometry.extendedL2,
    "lazy-refcounts": header.compatible.has(Compatible.lazyRefcounts),
    corrupt: header.incompatible.has(Incompatible.corrupt),
    ...(bitmaps === undefined ? {} : { bitmaps }),
  };
}

async function storedBitmaps(image: Qcow2Image): Promise<readonly BitmapInfo[] | undefined> {
  if (validExtension(image) === undefined) return undefined;
  try {
    const { entries } = await readDirectory(image);
    return entries.map(({ name, granularityBits, inUse, auto }) => ({
      name,
      granularity: 2 ** granularityBits,
      flags: [...(inUse ? (["in-use"] as const) : []), ...(auto ? (["auto"] as const) : [])],
    }));
  } catch (error) {
    if (error instanceof BlockError) return undefined;
    throw error;
  }
}
