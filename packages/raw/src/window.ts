import { BlockError } from "@blocklayer/errors";
import { isAligned } from "@blocklayer/offsets";

/** The part of the file that a raw node shows. */
export interface RawWindow {
  /** Bytes from the start of the file. */
  readonly offset: number;
  /** Bytes; `undefined`: to the end of the file, wherever that is. */
  readonly size: number | undefined;
}

/**
 * Refuses a window that the file does not have.
 *
 * @param fileSize - bytes
 * @throws BlockError `EINVAL`, in the words of the reference
 * @see spec/filters-and-raw.md section 5; the texts and their order: observed, 7.2
 */
export function checkWindow({ offset, size }: RawWindow, fileSize: number, node: string): void {
  const context = { node, offset, size, fileSize };
  if (offset > fileSize) {
    throw new BlockError(
      "EINVAL",
      `Offset (${offset}) cannot be greater than size of the containing file (${fileSize})`,
      context,
    );
  }
  if (size === undefined) return;
  if (size > fileSize - offset) {
    // Two blanks, as the reference has them.
    throw new BlockError(
      "EINVAL",
      `The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the  actual size of the containing file (${fileSize})`,
      context,
    );
  }
  if (!isAligned(size, 512)) {
    throw new BlockError("EINVAL", "Specified size is not multiple of 512", context);
  }
}

/** Returns the bytes that a window shows of a file: none when the file has become shorter than its start. */
export function windowSize({ offset, size }: RawWindow, fileSize: number): number {
  const rest = Math.max(0, fileSize - offset);
  return size === undefined ? rest : Math.min(size, rest);
}
