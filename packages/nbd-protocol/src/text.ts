import { NBD_LIMITS } from "./limits.ts";
import { invalidMessage } from "./malformed.ts";

const encoder = new TextEncoder();
// A byte order mark is part of a name like any other character.
const strictOptions = { fatal: true, ignoreBOM: true };
const lenientOptions = { fatal: false, ignoreBOM: true };
const strict = new TextDecoder("utf-8", strictOptions);
const lenient = new TextDecoder("utf-8", lenientOptions);

/**
 * Returns the UTF-8 bytes of a string of the protocol.
 *
 * @param field - names it in the error
 * @param limit - bytes
 * @throws BlockError `EINVAL` longer than `limit`, a NUL in it, or not well-formed
 */
export function encodeText(
  text: string,
  field: string,
  limit: number = NBD_LIMITS.string,
): Uint8Array {
  if (text.includes("\0")) {
    throw invalidMessage(`${field} contains a NUL character`, field, text.slice(0, 80));
  }
  if (!text.isWellFormed()) {
    throw invalidMessage(`${field} is not well-formed Unicode`, field, text.slice(0, 80));
  }
  const bytes = encoder.encode(text);
  checkTextLength(bytes.length, field, limit);
  return bytes;
}

/**
 * Returns the string in `[start, end)`.
 *
 * @throws BlockError `EINVAL` longer than `limit`, a NUL in it, or not UTF-8
 */
export function decodeText(
  bytes: Uint8Array,
  start: number,
  end: number,
  field: string,
  limit: number = NBD_LIMITS.string,
): string {
  checkTextLength(end - start, field, limit);
  const part = bytes.subarray(start, end);
  if (part.includes(0))
    throw invalidMessage(`${field} contains a NUL character`, field, end - start);
  try {
    return strict.decode(part);
  } catch {
    // The decoder's own message names neither the field nor the place.
    throw invalidMessage(`${field} is not UTF-8`, field, end - start);
  }
}

/** Returns text that is only shown to people: what is not UTF-8 becomes U+FFFD. */
export function decodeMessage(bytes: Uint8Array, start: number, end: number): string {
  return lenient.decode(bytes.subarray(start, end));
}

/** Returns the UTF-8 bytes of a message for people, cut to `limit` bytes between characters. */
export function encodeMessage(text: string, limit: number = NBD_LIMITS.string): Uint8Array {
  const bytes = encoder.encode(text.replaceAll("\0", "\u{fffd}"));
  if (bytes.length <= limit) return bytes;
  let end = limit;
  // A byte 10xxxxxx continues a character that must not be cut.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end);
}

function checkTextLength(length: number, field: string, limit: number): void {
  if (length > limit) {
    throw invalidMessage(
      `${field} of ${length} bytes is longer than ${limit}`,
      field,
      length,
      limit,
    );
  }
}
