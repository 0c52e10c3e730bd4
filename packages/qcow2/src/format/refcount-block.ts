import { readU16, readU32, readU64, writeU16, writeU32, writeU64 } from "@blocklayer/offsets";

/** Reads and writes counts of one width in a refcount block. */
export interface RefcountAccess {
  /** Count number `index`. Of 64-bit counts above 2^53 only roughly. */
  get(block: Uint8Array, index: number): number;
  /** @param value - fits the width */
  set(block: Uint8Array, index: number, value: number): void;
}

/**
 * Returns how counts of `bits` bits are stored: narrower than a byte from the least significant bits of each
 * byte upwards, wider ones big endian.
 *
 * @param bits - 1, 2, 4, 8, 16, 32 or 64
 * @see spec/qcow2.md section 4
 */
export function refcountAccess(bits: number): RefcountAccess {
  switch (bits) {
    case 8:
      return {
        get: (block, index) => block[index] ?? 0,
        set: (block, index, value) => {
          block[index] = value;
        },
      };
    case 16:
      return {
        get: (block, index) => readU16(block, index * 2),
        set: (block, index, value) => writeU16(block, index * 2, value),
      };
    case 32:
      return {
        get: (block, index) => readU32(block, index * 4),
        set: (block, index, value) => writeU32(block, index * 4, value),
      };
    case 64:
      return {
        get: (block, index) => readU64(block, index * 8),
        set: (block, index, value) => writeU64(block, index * 8, value),
      };
    default:
      return narrow(bits);
  }
}

function narrow(bits: number): RefcountAccess {
  const perByte = 8 / bits;
  const mask = 2 ** bits - 1;
  return {
    get(block, index) {
      const byte = block[Math.floor(index / perByte)] ?? 0;
      return (byte >>> ((index % perByte) * bits)) & mask;
    },
    set(block, index, value) {
      const at = Math.floor(index / perByte);
      const shift = (index % perByte) * bits;
      block[at] = ((block[at] ?? 0) & ~(mask << shift)) | (value << shift);
    },
  };
}
