import { promisify } from "node:util";
import { constants, deflateRaw, inflateRaw, zstdCompress, zstdDecompress } from "node:zlib";
import type { ClusterCodec, Codecs } from "../codecs.ts";
import { zstdFrameEnd } from "./zstd-frame.ts";

const deflateAsync = promisify(deflateRaw);
const inflateAsync = promisify<Uint8Array, object, Buffer>(inflateRaw);
const zstdCompressAsync = promisify(zstdCompress);
const zstdDecompressAsync = promisify<Uint8Array, object, Buffer>(zstdDecompress);

/** The window and memory of the format. */
const WINDOW_BITS = 12;
const MEMORY_LEVEL = 9;

const zlib: ClusterCodec = {
  async compress(cluster, limit) {
    const packed = await deflateAsync(cluster, { windowBits: WINDOW_BITS, memLevel: MEMORY_LEVEL });
    return packed.length <= limit ? packed : undefined;
  },
  async decompress(input, length) {
    const bytes = await inflateAsync(input, {
      windowBits: WINDOW_BITS,
      finishFlush: constants.Z_SYNC_FLUSH,
      maxOutputLength: length,
    });
    return exactly(bytes, length);
  },
};

const zstd: ClusterCodec = {
  async compress(cluster, limit) {
    const packed = await zstdCompressAsync(cluster);
    return packed.length <= limit ? packed : undefined;
  },
  async decompress(input, length) {
    const parts: Uint8Array[] = [];
    let done = 0;
    for (let at = 0; done < length; ) {
      const end = zstdFrameEnd(input, at);
      if (end === undefined) break;
      const bytes = await zstdDecompressAsync(input.subarray(at, end), {
        maxOutputLength: length - done,
      });
      parts.push(bytes);
      done += bytes.length;
      at = end;
    }
    return exactly(
      parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts),
      length,
    );
  },
};

function exactly(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length >= length) return bytes.subarray(0, length);
  throw new RangeError(`${bytes.length} of ${length} bytes came out`);
}

/** Returns the codecs of Node, which run on its thread pool. */
export function nodeCodecs(): Codecs {
  return { zlib, zstd };
}
