import {
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
  decodeStatus,
  decodeStatusFilter,
  encodeExportName,
  encodeInfo,
  encodeMetaContextRequest,
  encodeOffsetHole,
  encodeRequest,
  encodeStatus,
  NbdChunk,
} from "@blocklayer/nbd-protocol";
import { expect, it } from "vitest";
import { bytes, failure } from "./bytes.ts";

const header = { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
const counted = (length: number): Uint8Array => {
  const wire = new Uint8Array(4 + length).fill(0x61);
  wire.set([0, 0, length >> 8, length & 255]);
  return wire;
};

it.each<[string, () => unknown, string, string]>([
  [
    "a server that is none",
    () => decodeGreeting(bytes('"HTTP/1.1 400 Bad "')),
    "EPROTO",
    "greeting magic",
  ],
  [
    "an unknown handshake",
    () => decodeGreeting(bytes('"NBDMAGIC" 0123456789abcdef')),
    "EPROTO",
    "handshake magic",
  ],
  ["a short greeting", () => decodeGreeting(bytes('"NBDMAGIC"')), "EINVAL", "greeting"],
  ["an unknown client flag", () => decodeClientFlags(bytes("00000007")), "EPROTO", "client flags"],
  ["a name with NUL", () => decodeExportName(bytes('"a" 00')), "EINVAL", "export name"],
  ["a name that is not UTF-8", () => decodeExportName(bytes("ff")), "EINVAL", "export name"],
  ["a name to send with NUL", () => encodeExportName("a\0"), "EINVAL", "export name"],
  [
    "a name to send with half a character",
    () => encodeExportName("\ud800"),
    "EINVAL",
    "export name",
  ],
  ["a long name to send", () => encodeExportName("é".repeat(2049)), "EINVAL", "export name"],
  [
    "a name longer than its message",
    () => decodeInfoRequest(bytes("00000009 61")),
    "EINVAL",
    "export name",
  ],
  ["no name at all", () => decodeInfoRequest(bytes("0000")), "EINVAL", "length of export name"],
  [
    "no information count",
    () => decodeInfoRequest(bytes("00000000 00")),
    "EINVAL",
    "information count",
  ],
  [
    "too few information ids",
    () => decodeInfoRequest(bytes("00000000 0002 0001")),
    "EINVAL",
    "information count",
  ],
  [
    "bytes after the information ids",
    () => decodeInfoRequest(bytes("00000000 0000 00")),
    "EINVAL",
    "information count",
  ],
  [
    "a missing query",
    () => decodeMetaContextRequest(bytes("00000000 00000001")),
    "EINVAL",
    "length of query",
  ],
  [
    "bytes after the queries",
    () => decodeMetaContextRequest(bytes("00000000 00000000 00")),
    "EINVAL",
    "queries",
  ],
  [
    "2^32 - 1 queries",
    () => decodeMetaContextRequest(bytes("00000000 ffffffff")),
    "EINVAL",
    "query count",
  ],
  [
    "a short server entry",
    () => decodeServerEntry(bytes("000000")),
    "EINVAL",
    "length of export name",
  ],
  ["a short meta context", () => decodeMetaContext(bytes("000000")), "EINVAL", "context id"],
  ["a short information", () => decodeInfo(bytes("00")), "EINVAL", "information type"],
  [
    "a long export information",
    () => decodeInfo(new Uint8Array(13)),
    "EINVAL",
    "export information",
  ],
  [
    "an export of 2^53 bytes",
    () => decodeInfo(bytes("0000 0020000000000000 0001")),
    "EFBIG",
    "export size",
  ],
  [
    "an export of 2^53 bytes by name",
    () => decodeExportNameReply(bytes("0020000000000000 0001")),
    "EFBIG",
    "export size",
  ],
  [
    "a short export name reply",
    () => decodeExportNameReply(bytes("00")),
    "EINVAL",
    "export name reply",
  ],
  [
    "a short block size",
    () => decodeInfo(bytes("0003 00000001")),
    "EINVAL",
    "block size information",
  ],
  [
    "minimum 0",
    () => decodeInfo(bytes("0003 00000000 00000200 ffffffff")),
    "EINVAL",
    "minimum block size",
  ],
  [
    "minimum 131072",
    () => decodeInfo(bytes("0003 00020000 00020000 ffffffff")),
    "EINVAL",
    "minimum block size",
  ],
  [
    "preferred 256",
    () => decodeInfo(bytes("0003 00000001 00000100 ffffffff")),
    "EINVAL",
    "preferred block size",
  ],
  [
    "preferred below minimum",
    () => decodeInfo(bytes("0003 00001000 00000200 ffffffff")),
    "EINVAL",
    "preferred block size",
  ],
  [
    "maximum below preferred",
    () => decodeInfo(bytes("0003 00000001 00001000 00000200")),
    "EINVAL",
    "maximum block size",
  ],
  [
    "a bad block size to send",
    () => encodeInfo({ kind: "block-size", minimum: 3, preferred: 512, maximum: 512 }),
    "EINVAL",
    "minimum block size",
  ],
  ["a short request", () => decodeRequest(bytes("25609513"), false), "EPROTO", "request"],
  [
    "a request of another kind",
    () => decodeRequest(encodeRequest(header, true), false),
    "EPROTO",
    "request magic",
  ],
  [
    "a short status filter",
    () => decodeStatusFilter(bytes("00")),
    "EINVAL",
    "block status payload",
  ],
  [
    "an uneven status filter",
    () => decodeStatusFilter(new Uint8Array(11)),
    "EINVAL",
    "block status payload",
  ],
  ["a context named twice", () => decodeStatusFilter(new Uint8Array(16)), "EINVAL", "context id"],
  ["an empty data chunk", () => decodeOffsetData(new Uint8Array(8)), "EINVAL", "data chunk"],
  ["a long hole chunk", () => decodeOffsetHole(new Uint8Array(13)), "EINVAL", "hole chunk"],
  ["an empty hole", () => decodeOffsetHole(new Uint8Array(12)), "EINVAL", "hole length"],
  [
    "an error of success",
    () => decodeErrorChunk(NbdChunk.ERROR, new Uint8Array(6)),
    "EINVAL",
    "error number",
  ],
  [
    "a short error chunk",
    () => decodeErrorChunk(NbdChunk.ERROR, new Uint8Array(5)),
    "EINVAL",
    "error chunk",
  ],
  [
    "an error without its message",
    () => decodeErrorChunk(NbdChunk.ERROR, bytes("00000005 0001")),
    "EINVAL",
    "error chunk",
  ],
  [
    "an error with more than its message",
    () => decodeErrorChunk(NbdChunk.ERROR, bytes("00000005 0000 00")),
    "EINVAL",
    "error chunk",
  ],
  [
    "an error without its offset",
    () => decodeErrorChunk(NbdChunk.ERROR_OFFSET, bytes("00000005 0000")),
    "EINVAL",
    "error chunk",
  ],
  [
    "a long error message",
    () => decodeErrorChunk(NbdChunk.ERROR, bytes("00000005 1001")),
    "EINVAL",
    "error message",
  ],
  [
    "a status without extents",
    () => decodeStatus(bytes("00000001"), false),
    "EINVAL",
    "block status chunk",
  ],
  [
    "a status with half an extent",
    () => decodeStatus(bytes("00000001 00000001"), false),
    "EINVAL",
    "block status chunk",
  ],
  [
    "a wrong count of extents",
    () => decodeStatus(bytes("00000001 00000002 0000000000000001 0000000000000000"), true),
    "EINVAL",
    "extent count",
  ],
  [
    "an empty extent",
    () => decodeStatus(bytes("00000001 00000000 00000000"), false),
    "EINVAL",
    "extent length",
  ],
  [
    "an extent of 2^53 bytes",
    () => decodeStatus(bytes("00000001 00000001 0020000000000000 0000000000000000"), true),
    "EINVAL",
    "extent length",
  ],
])("reports %s", (_name, run, code, field) => {
  expect(failure(run)).toMatchObject({ code, field, operation: "nbd" });
});

it.each<[string, number, (count: number) => unknown, Record<string, unknown>]>([
  [
    "bytes of a name",
    4096,
    (count) => decodeInfoRequest(new Uint8Array([...counted(count), 0, 0])),
    { field: "export name" },
  ],
  [
    "bytes of a name to send",
    4096,
    (count) => encodeExportName("a".repeat(count)),
    { field: "export name" },
  ],
  [
    "queries",
    64,
    (count) =>
      decodeMetaContextRequest(
        encodeMetaContextRequest({
          exportName: "",
          queries: Array.from({ length: count }, () => "q"),
        }),
      ),
    { field: "query count" },
  ],
  [
    "contexts of a filter",
    64,
    (count) => {
      const wire = new Uint8Array(8 + 4 * count);
      for (let index = 0; index < count; index += 1) wire[8 + 4 * index + 3] = index;
      return decodeStatusFilter(wire);
    },
    { field: "context count" },
  ],
  [
    "extents",
    10,
    (count) =>
      decodeStatus(
        encodeStatus(
          { contextId: 0, extents: Array.from({ length: count }, () => ({ length: 1, flags: 0 })) },
          false,
        ),
        false,
        10,
      ),
    { field: "extent count" },
  ],
])("takes up to the limit of %s", (_name, limit, run, context) => {
  run(limit - 1);
  run(limit);
  expect(failure(() => run(limit + 1))).toMatchObject({
    code: "EINVAL",
    limit,
    value: limit + 1,
    ...context,
  });
});

it.each<[string, () => unknown, string]>([
  [
    "a length of 2^32 in a compact request",
    () => encodeRequest({ ...header, length: 2 ** 32 }, false),
    "length of a compact request 4294967296 does not fit 32 bits",
  ],
  [
    "a hole of 2^32",
    () => encodeOffsetHole(0, 2 ** 32),
    "length of a hole 4294967296 does not fit 32 bits",
  ],
  [
    "an offset that is no integer",
    () => encodeRequest({ ...header, offset: 0.5 }, false),
    "0.5 does not fit a 64-bit field exactly",
  ],
  [
    "no extent",
    () => encodeStatus({ contextId: 0, extents: [] }, false),
    "a block status has at least one extent",
  ],
  [
    "a long extent in a structured reply",
    () => encodeStatus({ contextId: 0, extents: [{ length: 2 ** 32, flags: 0 }] }, false),
    "length of an extent 4294967296 does not fit 32 bits",
  ],
])("refuses to encode %s", (_name, run, message) => {
  expect(run).toThrow(new RangeError(message));
});
