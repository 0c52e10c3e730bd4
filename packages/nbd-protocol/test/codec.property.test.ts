import { BlockError } from "@blocklayer/errors";
import {
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
  encodeChunk,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOffsetData,
  encodeOffsetHole,
  encodeRequest,
  encodeServerEntry,
  encodeStatus,
  encodeStatusFilter,
  GreetingReader,
  NbdCommandFlag,
  type NbdRequest,
  OptionReader,
  OptionReplyReader,
  type ReplyMode,
  ReplyReader,
  RequestReader,
} from "@blocklayer/nbd-protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bytes, join, readAll, split, volatileSplit } from "./bytes.ts";

const runs = { numRuns: 200 };
const u16 = fc.integer({ min: 0, max: 2 ** 16 - 1 });
const u32 = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const u53 = fc.maxSafeNat();
const text = fc
  .string({ unit: "grapheme", maxLength: 20 })
  .filter((value) => !value.includes("\0"));
const cuts = fc.array(fc.nat(), { maxLength: 6 });
const header = fc.record({ flags: u16, type: u16, cookieHigh: u32, cookieLow: u32, offset: u53 });

describe("what is encoded is decoded", () => {
  it("requests", () => {
    fc.assert(
      fc.property(header, u32, u53, (start, length, long) => {
        const compact = { ...start, length };
        const extended = { ...start, length: long };
        expect(decodeRequest(encodeRequest(compact, false), false)).toEqual(compact);
        expect(decodeRequest(encodeRequest(extended, true), true)).toEqual(extended);
      }),
      runs,
    );
  });

  it("option data", () => {
    fc.assert(
      fc.property(
        text,
        fc.array(u16),
        fc.array(text, { maxLength: 5 }),
        (exportName, infos, queries) => {
          const info = { exportName, infos };
          const contexts = { exportName, queries };
          const entry = { exportName, description: queries.join("") };
          expect(decodeInfoRequest(encodeInfoRequest(info))).toEqual(info);
          expect(decodeMetaContextRequest(encodeMetaContextRequest(contexts))).toEqual(contexts);
          expect(decodeServerEntry(encodeServerEntry(entry))).toEqual(entry);
        },
      ),
      runs,
    );
  });

  it("block status", () => {
    const extent = fc.record({
      length: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
      flags: u32,
      flagsHigh: u32,
    });
    const extents = fc.array(extent, { minLength: 1, maxLength: 9 });
    fc.assert(
      fc.property(u32, extents, fc.uniqueArray(u32), (contextId, list, contextIds) => {
        const status = { contextId, extents: list };
        expect(decodeStatus(encodeStatus(status, true), true)).toEqual(status);
        const low = { contextId, extents: list.map((one) => ({ ...one, flagsHigh: 0 })) };
        expect(decodeStatus(encodeStatus(status, false), false)).toEqual(low);
        const filter = { effectLength: contextId, contextIds };
        expect(decodeStatusFilter(encodeStatusFilter(filter))).toEqual(filter);
      }),
      runs,
    );
  });
});

const request = fc.record({
  header,
  kind: fc.constantFrom(0, 1, 4, 6, 7),
  payload: fc.uint8Array({ maxLength: 40 }),
});
const keep = (value: NbdRequest): NbdRequest => ({
  ...value,
  payload: Uint8Array.from(value.payload),
});

it("reads the same requests however the stream is cut and whoever owns the chunks", () => {
  fc.assert(
    fc.property(fc.array(request, { maxLength: 8 }), fc.boolean(), cuts, (list, extended, at) => {
      const stream = join(
        ...list.map(({ header: start, kind: type, payload }) => {
          const data = type === 1 ? payload : new Uint8Array(0);
          const flags = type === 1 && extended ? NbdCommandFlag.PAYLOAD_LEN : 0;
          return encodeRequest({ ...start, type, flags, length: data.length }, extended, data);
        }),
      );
      const whole = readAll(new RequestReader({ extended }), [stream], keep);
      expect(whole.map(({ cookieLow }) => cookieLow)).toEqual(
        list.map((one) => one.header.cookieLow),
      );
      expect(readAll(new RequestReader({ extended }), split(stream, at), keep)).toEqual(whole);
      const payloads: Uint8Array[] = [];
      const reader = new RequestReader({ extended, volatile: true });
      readAll(reader, volatileSplit(stream, at), ({ payload }) => payloads.push(payload));
      expect(payloads).toEqual(whole.map(({ payload }) => payload));
    }),
    runs,
  );
});

it("puts a read together from any tiling, in any order, however the stream is cut", () => {
  const tiles = fc.array(
    fc.record({ length: fc.integer({ min: 1, max: 9 }), isHole: fc.boolean(), rank: fc.nat() }),
    { minLength: 1, maxLength: 12 },
  );
  fc.assert(
    fc.property(tiles, fc.boolean(), cuts, (list, extended, at) => {
      const offset = 2 ** 40;
      const length = list.reduce((sum, tile) => sum + tile.length, 0);
      const content = new Uint8Array(length);
      let position = 0;
      const placed = list.map((tile) => {
        const start = position;
        position += tile.length;
        if (!tile.isHole) content.fill(1 + (start % 255), start, position);
        return { ...tile, start };
      });
      placed.sort((a, b) => a.rank - b.rank);
      const stream = join(
        ...placed.map(({ start, length: size, isHole }, index) =>
          encodeChunk(
            {
              flags: index === placed.length - 1 ? 1 : 0,
              type: isHole ? 2 : 1,
              cookieHigh: 0,
              cookieLow: 0,
              offset,
            },
            extended,
            isHole
              ? encodeOffsetHole(offset + start, size)
              : encodeOffsetData(offset + start, content.subarray(start, start + size)),
          ),
        ),
      );
      const buffer = new Uint8Array(length).fill(0xff);
      const reader = new ReplyReader<number>({ mode: extended ? "extended" : "structured" });
      reader.expect(0, 0, { type: 0, offset, length, buffer, tag: 5 });
      const all = readAll(reader, volatileSplit(stream, at), (reply) => [reply.error, reply.tag]);
      expect(all).toEqual([[0, 5]]);
      expect(buffer).toEqual(content);
    }),
    runs,
  );
});

/** Runs `read` and returns what it throws, which must be nothing or a BlockError. */
function onlyBlockErrors(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    expect(["EPROTO", "EINVAL", "EFBIG"]).toContain(error.code);
    expect(error.context).toMatchObject({ field: expect.any(String) });
  }
}

const MAGICS = [
  bytes('"NBDMAGIC"'),
  bytes('"IHAVEOPT"'),
  bytes("0003e889045565a9"),
  ...["25609513", "21e41c71", "67446698", "668e33ef", "6e8a278c"].map((magic) => bytes(magic)),
];
/** Garbage that gets past the first checks: magic numbers and small numbers, and anything. */
const piece = fc.oneof(
  fc.constantFrom(...MAGICS),
  fc.uint8Array({ maxLength: 30 }),
  fc.nat(12).map((value) => Uint8Array.of(0, 0, 0, value)),
  fc.nat(12).map((value) => Uint8Array.of(0, value)),
  fc.constantFrom(new Uint8Array(8), new Uint8Array(20)),
);
const garbage = fc.array(piece, { maxLength: 20 }).map((parts) => join(...parts));

describe("garbage is answered with a BlockError or nothing", () => {
  const decoders: Record<string, (wire: Uint8Array) => unknown> = {
    greeting: decodeGreeting,
    exportName: decodeExportName,
    infoRequest: decodeInfoRequest,
    metaContextRequest: (wire) => decodeMetaContextRequest(wire),
    serverEntry: decodeServerEntry,
    metaContext: decodeMetaContext,
    info: decodeInfo,
    exportNameReply: (wire) => decodeExportNameReply(wire),
    statusFilter: (wire) => decodeStatusFilter(wire),
    hole: decodeOffsetHole,
    data: decodeOffsetData,
    error: (wire) => decodeErrorChunk(0x8001, wire),
    errorOffset: (wire) => decodeErrorChunk(0x8002, wire),
    status: (wire) => decodeStatus(wire, false),
    statusExtended: (wire) => decodeStatus(wire, true),
  };

  it.each(Object.entries(decoders))("decoder of %s", (_name, decode) => {
    fc.assert(
      fc.property(garbage, (wire) => onlyBlockErrors(() => decode(wire))),
      runs,
    );
  });

  const prefixed = (magic: Uint8Array): fc.Arbitrary<Uint8Array> =>
    garbage.map((wire) => join(magic, wire));
  const readers: Record<
    string,
    [fc.Arbitrary<Uint8Array>, () => { push(chunk: Uint8Array): void; next(): unknown }]
  > = {
    greeting: [prefixed(bytes('"NBDMAGIC"')), () => new GreetingReader()],
    options: [prefixed(bytes('00000003 "IHAVEOPT"')), () => new OptionReader()],
    optionReplies: [prefixed(bytes("0003e889045565a9")), () => new OptionReplyReader()],
    requests: [prefixed(bytes("25609513")), () => new RequestReader({ extended: false })],
    extendedRequests: [
      prefixed(bytes("21e41c71")),
      () => new RequestReader({ extended: true, volatile: true }),
    ],
    ...Object.fromEntries(
      (["simple", "structured", "extended"] as const).map((mode) => [
        `${mode} replies`,
        [
          prefixed(
            bytes(
              {
                simple: "67446698 00000000 00000000",
                structured: "668e33ef 0001",
                extended: "6e8a278c 0001",
              }[mode],
            ),
          ),
          () => pendingReader(mode),
        ],
      ]),
    ),
  };

  function pendingReader(mode: ReplyMode): ReplyReader<number> {
    const reader = new ReplyReader<number>({ mode });
    for (let cookie = 0; cookie < 12; cookie += 1) {
      const type = [0, 7, 1, 0][cookie % 4] ?? 0;
      reader.expect(0, cookie, {
        type,
        offset: 0,
        length: 12,
        buffer: new Uint8Array(12),
        tag: cookie,
      });
    }
    return reader;
  }

  it.each(Object.entries(readers))("reader of %s", (_name, [streams, make]) => {
    fc.assert(
      fc.property(streams, cuts, (stream, at) =>
        onlyBlockErrors(() => readAll(make(), volatileSplit(stream, at), () => 0)),
      ),
      runs,
    );
  });
});
