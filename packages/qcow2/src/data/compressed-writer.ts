import { BlockError } from "@blocklayer/errors";
import { encodeCompressed } from "../format/l2-entry.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { EntryChange } from "./entry-change.ts";
import { PartQueue } from "./parallel.ts";
import type { Writer } from "./writer.ts";

/**
 * Writes whole clusters compressed. They are compressed side by side, beside the event loop; what does not become
 * shorter is written as it is.
 *
 * @see spec/qcow2.md section 6.4
 */
export class CompressedWriter {
  readonly #image: Qcow2Image;
  readonly #writer: Writer;
  readonly #entries: EntryChange;

  constructor(image: Qcow2Image, writer: Writer) {
    this.#image = image;
    this.#writer = writer;
    this.#entries = new EntryChange(image);
  }

  /**
   * @throws BlockError `EINVAL` no whole clusters; `ENOTSUP` an external data file, or no codec; `EIO` a cluster is
   *   allocated already: compressed clusters are written once
   */
  async write(offset: number, buffer: Uint8Array): Promise<void> {
    const { geometry, size, hasDataFile } = this.#image;
    const { clusterSize } = geometry;
    const context = { node: this.#image.host.nodeName, offset, length: buffer.length };
    if (hasDataFile) {
      throw new BlockError("ENOTSUP", "an external data file is not compressed", context);
    }
    const isWhole = buffer.length % clusterSize === 0 || offset + buffer.length === size;
    if (offset % clusterSize !== 0 || !isWhole) {
      throw new BlockError("EINVAL", "compressed writes are of whole clusters", context);
    }
    const parts = new PartQueue();
    for (let done = 0; done < buffer.length && !parts.hasFailed; done += clusterSize) {
      const part = buffer.subarray(done, Math.min(done + clusterSize, buffer.length));
      await parts.track(this.#writeCluster(offset + done, part));
    }
    await parts.end();
  }

  async #writeCluster(offset: number, data: Uint8Array): Promise<void> {
    const { geometry, header, codecs, env, changing } = this.#image;
    const { clusterSize } = geometry;
    const { compressionType } = header.header;
    const codec = codecs[compressionType];
    if (codec?.compress === undefined) {
      const message = `there is no codec to compress with ${compressionType}`;
      throw new BlockError("ENOTSUP", message, { compressionType });
    }
    const { compress } = codec;
    const whole = data.length === clusterSize ? data : padded(data, clusterSize);
    const packed = await env.offload(() => compress.call(codec, whole, clusterSize - 1));
    if (packed === undefined) {
      await this.#writer.write(offset, data);
      return;
    }
    const hold = await changing.acquire(offset, clusterSize, { mode: "exclusive" });
    try {
      await this.#store(offset, packed);
    } finally {
      hold.release();
    }
  }

  /** The data is in the file before anything refers to it. */
  async #store(offset: number, packed: Uint8Array): Promise<void> {
    const { geometry, allocator, file } = this.#image;
    await this.#image.prepareToAllocate();
    const words = await this.#entries.prepare(offset);
    const isTaken = this.#entries.hasHost(words) || (words.high & 0x40000000) !== 0;
    if (isTaken) {
      throw new BlockError(
        "EIO",
        "the cluster is allocated already; compressed ones are written once",
        {
          node: this.#image.host.nodeName,
          offset,
        },
      );
    }
    const host = await allocator.allocateBytes(packed.length);
    const start = geometry.startOfCluster(host);
    const end = geometry.startOfCluster(host + packed.length - 1) + geometry.clusterSize;
    const pin = file.pins.pin(host, packed.length);
    try {
      await file.write(host, packed);
      const [high, low] = encodeCompressed({ offset: host, length: packed.length }, geometry);
      await this.#entries.within(offset, (now) => {
        this.#entries.linkCompressed(offset, now, high, low);
      });
    } catch (error) {
      allocator.abandon(start, end - start);
      throw error;
    } finally {
      file.pins.unpin(pin);
    }
  }
}

function padded(data: Uint8Array, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(data);
  return bytes;
}
