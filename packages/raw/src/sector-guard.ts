import { assert, BlockError } from "@blocklayer/errors";

/** Says how sure it is that an image with these first bytes is of its format: 0 to 100. */
export type FormatProber = (firstBytes: Uint8Array) => number;

/** Bytes at the start of a disk that a format would be recognised by. */
export const GUARDED_LENGTH = 512;

/** How sure raw is of everything; a prober that says more recognises another format. */
export const RAW_SCORE = 1;

/**
 * Keeps a guest from turning its raw disk into an image of another format: were the format then detected
 * again, a header of the guest's making would name any file of the host as its backing file.
 *
 * @see spec/filters-and-raw.md section 5, probed raw
 */
export class SectorGuard {
  readonly #probers: readonly FormatProber[];
  readonly #node: string;

  /** @param probers - of all formats that could be detected but raw */
  constructor(probers: readonly FormatProber[], node: string) {
    this.#probers = probers;
    this.#node = node;
  }

  /**
   * Judges what a write at the start of the disk would put there.
   *
   * @param buffers - the data of the write; together at least 512 bytes
   * @returns the data to write in its stead: a private copy of the sector that was judged, then the rest, so that
   *   whoever owns the buffers can not change the sector after it was judged
   * @throws BlockError `EPERM` another format would recognise it
   */
  admit(buffers: readonly Uint8Array[]): Uint8Array[] {
    const sector = new Uint8Array(GUARDED_LENGTH);
    const rest: Uint8Array[] = [];
    let filled = 0;
    for (const buffer of buffers) {
      const taken = Math.min(buffer.length, GUARDED_LENGTH - filled);
      sector.set(buffer.subarray(0, taken), filled);
      filled += taken;
      if (taken < buffer.length) rest.push(buffer.subarray(taken));
    }
    assert(filled === GUARDED_LENGTH, "a write to a guarded sector covers it");
    // A prober gets a copy of its own: it is foreign code, and the sector goes to the disk.
    const isRecognised = this.#probers.some((prober) => prober(sector.slice()) > RAW_SCORE);
    if (isRecognised) {
      throw new BlockError(
        "EPERM",
        "write to sector 0 refused: its content would be recognised as another image format",
        { node: this.#node, operation: "pwrite", offset: 0, length: GUARDED_LENGTH },
        { hint: "Specify the 'raw' format explicitly to remove the restrictions." },
      );
    }
    return [sector, ...rest];
  }
}
