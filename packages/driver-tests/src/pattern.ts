/**
 * Returns `length` bytes that no other `seed` and no other place has by accident: never zero, and different
 * from their neighbours, so that a byte that is lost, shifted or duplicated shows.
 *
 * @param seed - any integer of 0 or more
 */
export function patternBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 0x9e3779b1 + 0x7f4a7c15) >>> 0;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = 1 + ((state >>> 24) % 255);
  }
  return bytes;
}

/** Returns buffers one after the other as one. */
export function joinBuffers(buffers: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const buffer of buffers) length += buffer.length;
  const joined = new Uint8Array(length);
  let position = 0;
  for (const buffer of buffers) {
    joined.set(buffer, position);
    position += buffer.length;
  }
  return joined;
}
