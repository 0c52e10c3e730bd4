import { readU16, readU32, readU64, writeU16, writeU32 } from "@blocklayer/offsets";
import { NbdClientFlag, NbdMagic, NbdSize } from "./constants.ts";
import { hex32, needBytes, protocolError } from "./malformed.ts";
import { checkExportSize } from "./option-reply.ts";

/** What a server says first. Old servers tell the export at once and know no options. */
export type NbdGreeting =
  | { readonly style: "newstyle"; readonly flags: number }
  | { readonly style: "oldstyle"; readonly size: number; readonly transmissionFlags: number };

/** Returns the newstyle greeting of a server. */
export function encodeGreeting(flags: number): Uint8Array {
  const bytes = new Uint8Array(NbdSize.GREETING);
  writeU32(bytes, 0, NbdMagic.INIT_HIGH);
  writeU32(bytes, 4, NbdMagic.INIT_LOW);
  writeU32(bytes, 8, NbdMagic.OPTION_HIGH);
  writeU32(bytes, 12, NbdMagic.OPTION_LOW);
  writeU16(bytes, 16, flags);
  return bytes;
}

/**
 * Returns how long the greeting is that begins with these 16 bytes.
 *
 * @throws BlockError `EPROTO` not an NBD server
 */
export function greetingLength(bytes: Uint8Array, position: number = 0): number {
  needBytes(bytes, position, 16, "greeting");
  checkMagic(bytes, position, NbdMagic.INIT_HIGH, NbdMagic.INIT_LOW, "greeting magic");
  const high = readU32(bytes, position + 8);
  const low = readU32(bytes, position + 12);
  if (high === NbdMagic.OPTION_HIGH && low === NbdMagic.OPTION_LOW) return NbdSize.GREETING;
  if (high === NbdMagic.OLDSTYLE_HIGH && low === NbdMagic.OLDSTYLE_LOW) {
    return NbdSize.OLDSTYLE_GREETING;
  }
  throw protocolError(
    `handshake magic ${hex32(high)}${hex32(low)} is neither newstyle nor oldstyle`,
    "handshake magic",
    `${hex32(high)}${hex32(low)}`,
  );
}

/**
 * Returns a whole greeting.
 *
 * @throws BlockError `EPROTO` not an NBD server; `EINVAL` too few bytes; `EFBIG` an oldstyle export of 2^53
 *   bytes or more
 */
export function decodeGreeting(bytes: Uint8Array, position: number = 0): NbdGreeting {
  const length = greetingLength(bytes, position);
  needBytes(bytes, position, length, "greeting");
  if (length === NbdSize.GREETING) {
    return { style: "newstyle", flags: readU16(bytes, position + 16) };
  }
  const size = checkExportSize(readU64(bytes, position + 16));
  // The upper half of this field are handshake flags, which oldstyle gives no meaning.
  return { style: "oldstyle", size, transmissionFlags: readU16(bytes, position + 26) };
}

/** Returns the client's answer to the greeting. */
export function encodeClientFlags(flags: number): Uint8Array {
  const bytes = new Uint8Array(NbdSize.CLIENT_FLAGS);
  writeU32(bytes, 0, flags);
  return bytes;
}

/**
 * Returns the client's flags.
 *
 * @throws BlockError `EPROTO` a flag that is not known, which obliges a server to close
 */
export function decodeClientFlags(bytes: Uint8Array, position: number = 0): number {
  needBytes(bytes, position, NbdSize.CLIENT_FLAGS, "client flags");
  const flags = readU32(bytes, position);
  const known = NbdClientFlag.FIXED_NEWSTYLE + NbdClientFlag.NO_ZEROES;
  if (flags > known) {
    throw protocolError(
      `client flags 0x${flags.toString(16)} contain unknown ones`,
      "client flags",
      flags,
      known,
    );
  }
  return flags;
}

/** Checks a magic number of 64 bits. */
export function checkMagic(
  bytes: Uint8Array,
  position: number,
  high: number,
  low: number,
  field: string,
): void {
  const gotHigh = readU32(bytes, position);
  const gotLow = readU32(bytes, position + 4);
  if (gotHigh === high && gotLow === low) return;
  const value = `${hex32(gotHigh)}${hex32(gotLow)}`;
  const wanted = `${hex32(high)}${hex32(low)}`;
  throw protocolError(`${field} is ${value}, not ${wanted}`, field, value, wanted);
}
