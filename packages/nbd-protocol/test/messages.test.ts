import {
  decodeChunk,
  decodeClientFlags,
  decodeErrorChunk,
  decodeExportName,
  decodeExportNameReply,
  decodeGreeting,
  decodeInfo,
  decodeInfoRequest,
  decodeMetaContext,
  decodeMetaContextRequest,
  decodeOffsetData,
  decodeOffsetHole,
  decodeRequest,
  decodeServerEntry,
  decodeSimpleReply,
  decodeStatus,
  decodeStatusFilter,
  encodeChunk,
  encodeClientFlags,
  encodeErrorChunk,
  encodeExportName,
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeInfoRequest,
  encodeMetaContext,
  encodeMetaContextRequest,
  encodeOffsetData,
  encodeOffsetHole,
  encodeOption,
  encodeOptionError,
  encodeOptionReply,
  encodeRequest,
  encodeServerEntry,
  encodeSimpleReply,
  encodeStatus,
  encodeStatusFilter,
  NbdChunk,
  NbdChunkFlag,
  type NbdChunkHeader,
  NbdCommand,
  NbdCommandFlag,
  type NbdInfoReply,
  NbdOption,
  NbdOptionReply,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { bytes } from "./bytes.ts";

/** One message: its value, its bytes as the protocol document has them, and both directions. */
interface Row<T> {
  readonly value: T;
  readonly wire: Uint8Array;
  encode(value: T): Uint8Array;
  decode(wire: Uint8Array): T;
}

function row<T>(
  value: T,
  wire: Uint8Array,
  encode: (value: T) => Uint8Array,
  decode: (wire: Uint8Array) => T,
): Row<unknown> {
  return { value, wire, encode, decode } as Row<unknown>;
}

const info = (value: NbdInfoReply, wire: Uint8Array): Row<unknown> =>
  row(value, wire, encodeInfo, decodeInfo);

const header = { flags: 1, type: 1, cookieHigh: 0xfedcba98, cookieLow: 0x76543210, offset: 0x1000 };
const chunk: Omit<NbdChunkHeader, "length"> = {
  ...header,
  flags: NbdChunkFlag.DONE,
  type: NbdChunk.OFFSET_DATA,
};

const ROWS: Record<string, Row<unknown>> = {
  "greeting, newstyle": row(
    { style: "newstyle", flags: 3 } as const,
    bytes('"NBDMAGIC" "IHAVEOPT" 0003'),
    ({ flags }) => encodeGreeting(flags),
    decodeGreeting as (wire: Uint8Array) => { readonly style: "newstyle"; readonly flags: number },
  ),
  "client flags": row(3, bytes("00000003"), encodeClientFlags, (wire) => decodeClientFlags(wire)),
  "export name": row("disk é", bytes('"disk é"'), encodeExportName, decodeExportName),
  "info request": row(
    { exportName: "vda", infos: [1, 3] },
    bytes('00000003 "vda" 0002 0001 0003'),
    encodeInfoRequest,
    decodeInfoRequest,
  ),
  "info request of the default export": row(
    { exportName: "", infos: [] },
    bytes("00000000 0000"),
    encodeInfoRequest,
    decodeInfoRequest,
  ),
  "meta context request": row(
    { exportName: "a", queries: ["base:allocation", "qemu:"] },
    bytes('00000001 "a" 00000002 0000000f "base:allocation" 00000005 "qemu:"'),
    encodeMetaContextRequest,
    (wire) => decodeMetaContextRequest(wire),
  ),
  "server entry": row(
    { exportName: "vda", description: "first" },
    bytes('00000003 "vda" "first"'),
    encodeServerEntry,
    decodeServerEntry,
  ),
  "meta context": row(
    { id: 7, name: "base:allocation" },
    bytes('00000007 "base:allocation"'),
    encodeMetaContext,
    decodeMetaContext,
  ),
  "info EXPORT": info(
    { kind: "export", size: 0x123456789a, transmissionFlags: 0x0dff },
    bytes("0000 000000123456789a 0dff"),
  ),
  "info NAME": info({ kind: "name", name: "vda" }, bytes('0001 "vda"')),
  "info DESCRIPTION": info({ kind: "description", description: "d" }, bytes('0002 "d"')),
  "info BLOCK_SIZE": info(
    { kind: "block-size", minimum: 512, preferred: 4096, maximum: 0x2000000 },
    bytes("0003 00000200 00001000 02000000"),
  ),
  "info BLOCK_SIZE without a maximum": info(
    { kind: "block-size", minimum: 1, preferred: 512, maximum: 0xffffffff },
    bytes("0003 00000001 00000200 ffffffff"),
  ),
  "unknown info": info(
    { kind: "unknown", type: 0x1234, payload: bytes("abcd") },
    bytes("1234 abcd"),
  ),
  "export name reply": row(
    { size: 65536, transmissionFlags: 5 },
    bytes("0000000000010000 0005"),
    (value) => encodeExportNameReply(value, true),
    (wire) => decodeExportNameReply(wire),
  ),
  "compact request": row(
    { ...header, length: 0xfffffe00 },
    bytes("25609513 0001 0001 fedcba98 76543210 0000000000001000 fffffe00"),
    (value) => encodeRequest(value, false),
    (wire) => decodeRequest(wire, false),
  ),
  "extended request": row(
    { ...header, type: NbdCommand.WRITE_ZEROES as number, length: 2 ** 40 },
    bytes("21e41c71 0001 0006 fedcba98 76543210 0000000000001000 0000010000000000"),
    (value) => encodeRequest(value, true),
    (wire) => decodeRequest(wire, true),
  ),
  "block status filter": row(
    { effectLength: 2 ** 33, contextIds: [1, 0xffffffff] },
    bytes("0000000200000000 00000001 ffffffff"),
    encodeStatusFilter,
    (wire) => decodeStatusFilter(wire),
  ),
  "simple reply": row(
    { error: 28, cookieHigh: 1, cookieLow: 2 },
    bytes("67446698 0000001c 00000001 00000002"),
    (value) => encodeSimpleReply(value),
    (wire) => decodeSimpleReply(wire),
  ),
  "structured chunk header": row(
    { ...chunk, offset: 0, length: 0 },
    bytes("668e33ef 0001 0001 fedcba98 76543210 00000000"),
    (value) => encodeChunk(value, false),
    (wire) => decodeChunk(wire, false),
  ),
  "extended chunk header": row(
    { ...chunk, length: 0 },
    bytes("6e8a278c 0001 0001 fedcba98 76543210 0000000000001000 0000000000000000"),
    (value) => encodeChunk(value, true),
    (wire) => decodeChunk(wire, true),
  ),
  hole: row(
    { offset: 2 ** 32, length: 512 },
    bytes("0000000100000000 00000200"),
    ({ offset, length }) => encodeOffsetHole(offset, length),
    decodeOffsetHole,
  ),
  "error chunk": row(
    { error: 5, message: "bad", offset: undefined },
    bytes('00000005 0003 "bad"'),
    ({ error, message }) => encodeErrorChunk(error, message),
    (wire) => ({ ...decodeErrorChunk(NbdChunk.ERROR, wire), offset: undefined }),
  ),
  "error chunk with offset": row(
    { error: 5, message: "bad", offset: 4096 as number | undefined },
    bytes('00000005 0003 "bad" 0000000000001000'),
    ({ error, message, offset }) => encodeErrorChunk(error, message, offset),
    (wire) => decodeErrorChunk(NbdChunk.ERROR_OFFSET, wire),
  ),
  "block status": row(
    {
      contextId: 1,
      extents: [
        { length: 512, flags: 0, flagsHigh: 0 },
        { length: 1, flags: 3, flagsHigh: 0 },
      ],
    },
    bytes("00000001 00000200 00000000 00000001 00000003"),
    (value) => encodeStatus(value, false),
    (wire) => decodeStatus(wire, false) as never,
  ),
  "extended block status": row(
    { contextId: 1, extents: [{ length: 2 ** 33, flags: 3, flagsHigh: 0x80000000 }] },
    bytes("00000001 00000001 0000000200000000 8000000000000003"),
    (value) => encodeStatus(value, true),
    (wire) => decodeStatus(wire, true) as never,
  ),
};

describe.each(Object.entries(ROWS))("%s", (_name, { value, wire, encode, decode }) => {
  it("is encoded as in the document", () => {
    expect(encode(value)).toEqual(wire);
  });
  it("is decoded from it", () => {
    expect(decode(wire)).toEqual(value);
  });
});

it.each<[string, Uint8Array, Uint8Array]>([
  ["option ABORT", encodeOption(NbdOption.ABORT), bytes('"IHAVEOPT" 00000002 00000000')],
  [
    "option EXPORT_NAME",
    encodeOption(NbdOption.EXPORT_NAME, encodeExportName("vda")),
    bytes('"IHAVEOPT" 00000001 00000003 "vda"'),
  ],
  [
    "reply ACK",
    encodeOptionReply(NbdOption.GO, NbdOptionReply.ACK),
    bytes("0003e889045565a9 00000007 00000001 00000000"),
  ],
  [
    "reply ERR_UNSUP",
    encodeOptionError(NbdOption.STARTTLS, NbdOptionReply.ERR_UNSUP, "no"),
    bytes('0003e889045565a9 00000005 80000001 00000002 "no"'),
  ],
  [
    "write with data",
    encodeRequest({ ...header, flags: NbdCommandFlag.FUA, length: 2 }, false, bytes("abcd")),
    bytes("25609513 0001 0001 fedcba98 76543210 0000000000001000 00000002 abcd"),
  ],
  [
    "simple reply with data",
    encodeSimpleReply({ error: 0, cookieHigh: 0, cookieLow: 9 }, bytes("abcd")),
    bytes("67446698 00000000 00000000 00000009 abcd"),
  ],
  [
    "data chunk",
    encodeChunk(chunk, false, encodeOffsetData(0x1000, bytes("abcd"))),
    bytes("668e33ef 0001 0001 fedcba98 76543210 0000000a 0000000000001000 abcd"),
  ],
])("%s has the bytes of the document", (_name, encoded, wire) => {
  expect(encoded).toEqual(wire);
});

it("pads the reply to EXPORT_NAME with 124 zeroes unless both sides agreed not to", () => {
  const reply = encodeExportNameReply({ size: 1, transmissionFlags: 1 }, false);
  expect(reply.length).toBe(134);
  expect(decodeExportNameReply(reply)).toEqual({ size: 1, transmissionFlags: 1 });
});

it("reads the greeting of an oldstyle server", () => {
  const wire = new Uint8Array(152);
  wire.set(bytes('"NBDMAGIC" 0000420281861253 0000000000010000 0000 0003'));
  expect(decodeGreeting(wire)).toEqual({ style: "oldstyle", size: 65536, transmissionFlags: 3 });
});

it("tells where the data of a data chunk belongs", () => {
  expect(decodeOffsetData(bytes("0000000000001000 ab"))).toEqual({ offset: 4096, length: 1 });
});

it("reads the number and message of an error chunk of unknown type", () => {
  expect(decodeErrorChunk(0x9999, bytes('00000005 0001 "x" ffff'))).toEqual({
    error: 5,
    message: "x",
    offset: undefined,
  });
});

it("cuts a message for people between characters", () => {
  const reply = encodeOptionError(1, NbdOptionReply.ERR_POLICY, `${"a".repeat(4095)}é`);
  expect(reply.length).toBe(20 + 4095);
});

it.each([
  [2 ** 53 - 1, "001fffffffffffff", 2 ** 53 - 1],
  [2 ** 53, "0020000000000000", Number.POSITIVE_INFINITY],
  [2 ** 64, "ffffffffffffffff", Number.POSITIVE_INFINITY],
])("never rounds a 64-bit field near %d", (_value, field, expected) => {
  const wire = bytes(`21e41c71 0000 0004 00000000 00000000 ${field} ${field}`);
  expect(decodeRequest(wire, true)).toMatchObject({ offset: expected, length: expected });
});
