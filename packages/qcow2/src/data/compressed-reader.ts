import { BlockError } from "@blocklayer/errors";
import type { CompressedRange } from "../format/l2-entry.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";

/**
 * Reads and decompresses a cluster; decompression runs beside the event loop.
 *
 * @throws BlockError `ENOTSUP` there is no codec of this type; `EIO` the data is damaged
 * @see spec/qcow2.md section 3
 */
export async function readCompressed(
  image: Qcow2Image,
  range: CompressedRange,
): Promise<Uint8Array> {
  const { compressionType } = image.header.header;
  const codec = image.codecs[compressionType];
  if (codec === undefined) {
    throw new BlockError("ENOTSUP", `there is no codec for ${compressionType}`, {
      compressionType,
    });
  }
  const input = new Uint8Array(range.length);
  await image.file.read(range.offset, input);
  const { clusterSize } = image.geometry;
  try {
    return await image.env.offload(() => codec.decompress(input, clusterSize));
  } catch (error) {
    throw new BlockError(
      "EIO",
      `compressed data at ${range.offset} can not be decompressed`,
      { offset: range.offset, length: range.length, compressionType },
      { cause: error },
    );
  }
}
