import { BlockError } from "@blocklayer/errors";

/**
 * Returns the error for bytes after which the stream can not be understood any more: the connection is to be
 * closed.
 */
export function protocolError(
  message: string,
  field: string,
  value: number | string,
  limit?: number | string,
  details: Readonly<Record<string, number>> = {},
): BlockError {
  return new BlockError("EPROTO", message, { operation: "nbd", field, value, limit, ...details });
}

/** Returns the error for one message that is malformed inside an intact frame: it can be answered. */
export function invalidMessage(
  message: string,
  field: string,
  value: number | string,
  limit?: number | string,
): BlockError {
  return new BlockError("EINVAL", message, { operation: "nbd", field, value, limit });
}

/** Checks that a whole fixed part is there. */
export function needBytes(
  bytes: Uint8Array,
  position: number,
  length: number,
  field: string,
): void {
  if (bytes.length - position >= length) return;
  throw invalidMessage(
    `${field} needs ${length} bytes, ${Math.max(0, bytes.length - position)} are there`,
    field,
    Math.max(0, bytes.length - position),
    length,
  );
}

/** Returns a number as eight hexadecimal digits, as magic numbers are written. */
export function hex32(value: number): string {
  return value.toString(16).padStart(8, "0");
}
