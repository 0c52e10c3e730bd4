import { BlockError } from "@blocklayer/errors";
import type { HostFile } from "../image/host-file.ts";
import type { Section } from "../image/metadata-map.ts";

/**
 * The image file as a check sees it: reads stop when the check is cancelled, and writes that would hit other metadata
 * are refused without marking the image, which is known to be damaged already.
 */
export class CheckFile {
  /** Bytes, as the check began. */
  readonly size: number;
  readonly #file: HostFile;
  readonly #signal: AbortSignal | undefined;

  constructor(file: HostFile, signal: AbortSignal | undefined) {
    this.#file = file;
    this.#signal = signal;
    this.size = file.size;
  }

  /** Host clusters that the file has, the last one perhaps in part. */
  get clusters(): number {
    return Math.ceil(this.size / this.#file.geometry.clusterSize);
  }

  /** Whether the check was told to stop. */
  get isCancelled(): boolean {
    return this.#signal?.aborted ?? false;
  }

  /** Fills all of `buffer`, with zeroes beyond the end. */
  async read(offset: number, buffer: Uint8Array): Promise<void> {
    this.#signal?.throwIfAborted();
    const inside = Math.max(0, Math.min(buffer.length, this.size - offset));
    buffer.fill(0, inside);
    if (inside > 0) await this.#file.read(offset, buffer.subarray(0, inside));
  }

  /**
   * @param section - the metadata that is meant
   * @throws BlockError `EIO` other metadata is there
   */
  async write(offset: number, bytes: Uint8Array, section: Section): Promise<void> {
    const hit = this.#file.metadata.find(offset, bytes.length, section);
    if (hit !== undefined) {
      const message = `a repair would write over the ${hit}`;
      throw new BlockError("EIO", message, { operation: "pwrite", offset, length: bytes.length });
    }
    await this.#file.child.pwrite(offset, bytes);
  }

  flush(): Promise<void> {
    return this.#file.flush();
  }
}
