import {
  type ExpectedReply,
  encodeChunk,
  encodeErrorChunk,
  encodeOffsetData,
  encodeOffsetHole,
  encodeSimpleReply,
  encodeStatus,
  NbdChunk,
  NbdCommand,
  NbdCommandFlag,
  type NbdReply,
  type ReplyMode,
  ReplyReader,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { bytes, failure, join, readAll, volatileSplit } from "./bytes.ts";

const OFFSET = 4096;
const LENGTH = 8;
const DONE = 1;
const { READ, BLOCK_STATUS, TRIM, WRITE } = NbdCommand;

function chunk(mode: ReplyMode, flags: number, type: number, payload: Uint8Array): Uint8Array {
  const header = { flags, type, cookieHigh: 7, cookieLow: 1, offset: OFFSET };
  return encodeChunk(header, mode === "extended", payload);
}
const data = (offset: number, content: string): Uint8Array =>
  encodeOffsetData(OFFSET + offset, bytes(content));
const hole = (offset: number, length: number): Uint8Array =>
  encodeOffsetHole(OFFSET + offset, length);
const status = (mode: ReplyMode, id: number, ...lengths: number[]): Uint8Array =>
  encodeStatus(
    { contextId: id, extents: lengths.map((length) => ({ length, flags: 3 })) },
    mode === "extended",
  );
const statusType = (mode: ReplyMode): number => (mode === "extended" ? 6 : 5);
const EMPTY = new Uint8Array(0);

function reader(
  mode: ReplyMode,
  expected: Partial<ExpectedReply<string>> = {},
): {
  readonly read: ReplyReader<string>;
  readonly buffer: Uint8Array;
} {
  const read = new ReplyReader<string>({ mode });
  const buffer = new Uint8Array(LENGTH).fill(0xcc);
  read.expect(7, 1, { type: READ, offset: OFFSET, length: LENGTH, buffer, tag: "t", ...expected });
  return { read, buffer };
}

function run(
  mode: ReplyMode,
  wire: Uint8Array,
  expected: Partial<ExpectedReply<string>> = {},
): NbdReply<string>[] {
  return readAll(reader(mode, expected).read, [wire], (reply) => reply);
}

const success = {
  cookieHigh: 7,
  cookieLow: 1,
  error: 0,
  message: "",
  errorOffset: undefined,
  statuses: [],
  tag: "t",
};
const modes = ["structured", "extended"] as const;

describe("simple replies", () => {
  const header = { error: 0, cookieHigh: 7, cookieLow: 1 };

  it("put the data of a read into its buffer, wherever the stream is cut", () => {
    const wire = join(
      encodeSimpleReply(header, bytes("0102030405060708")),
      encodeSimpleReply({ error: 5, cookieHigh: 7, cookieLow: 2 }),
    );
    for (let cut = 0; cut <= wire.length; cut += 1) {
      const { read, buffer } = reader("simple");
      read.expect(7, 2, { type: WRITE, offset: 0, length: 512, tag: "w" });
      const all = readAll(read, volatileSplit(wire, [cut, cut + 3]), (reply) => reply);
      expect(all).toEqual([success, { ...success, cookieLow: 2, error: 5, tag: "w" }]);
      expect(buffer).toEqual(bytes("0102030405060708"));
      expect(read.pending).toBe(0);
    }
  });

  it("carry no data after an error or for a read of nothing", () => {
    expect(run("simple", encodeSimpleReply({ ...header, error: 22 }))).toEqual([
      { ...success, error: 22 },
    ]);
    expect(run("simple", encodeSimpleReply(header), { length: 0, buffer: EMPTY })).toEqual([
      success,
    ]);
  });

  it("are taken in structured mode where nothing is ambiguous", () => {
    expect(run("structured", encodeSimpleReply(header), { type: TRIM })).toEqual([success]);
    expect(run("structured", encodeSimpleReply({ ...header, error: 5 }))).toEqual([
      { ...success, error: 5 },
    ]);
  });

  it.each([
    ["structured", READ, "command"],
    ["structured", BLOCK_STATUS, "command"],
    ["simple", BLOCK_STATUS, "context count"],
    ["extended", TRIM, "extended reply magic"],
  ] as const)("do not answer: %s, command %d", (mode, type, field) => {
    const wire = join(encodeSimpleReply(header), new Uint8Array(16));
    expect(failure(() => run(mode, wire, { type }))).toMatchObject({ code: "EPROTO", field });
  });
});

describe.each(modes)("chunks, %s", (mode) => {
  it("put data and holes in their places, in any order, wherever the stream is cut", () => {
    const wire = join(
      chunk(mode, 0, NbdChunk.OFFSET_DATA, data(6, "0708")),
      chunk(mode, 0, NbdChunk.OFFSET_HOLE, hole(0, 3)),
      chunk(mode, 0, NbdChunk.OFFSET_DATA, data(5, "06")),
      chunk(mode, 0, NbdChunk.OFFSET_DATA, data(3, "0405")),
      chunk(mode, DONE, NbdChunk.NONE, EMPTY),
    );
    for (let cut = 0; cut <= wire.length; cut += 1) {
      const { read, buffer } = reader(mode);
      const all = readAll(read, volatileSplit(wire, [cut, cut + 5]), (reply) => reply);
      expect(all).toEqual([success]);
      expect(buffer).toEqual(bytes("0000000405060708"));
    }
  });

  it("tell the status of each context, wherever the stream is cut", () => {
    const wire = join(
      chunk(mode, 0, statusType(mode), status(mode, 2, 4, 100)),
      chunk(mode, DONE, statusType(mode), status(mode, 1, 8)),
    );
    const extent = { flags: 3, flagsHigh: 0 };
    const statuses = [
      {
        contextId: 2,
        extents: [
          { ...extent, length: 4 },
          { ...extent, length: 100 },
        ],
      },
      { contextId: 1, extents: [{ ...extent, length: 8 }] },
    ];
    for (let cut = 0; cut <= wire.length; cut += 1) {
      const { read } = reader(mode, { type: BLOCK_STATUS, contextIds: [1, 2] });
      const all = readAll(read, volatileSplit(wire, [cut]), (reply) => reply);
      expect(all).toEqual([{ ...success, statuses }]);
    }
  });

  it("tell the first error, and need not be complete then", () => {
    const wire = join(
      chunk(mode, 0, NbdChunk.OFFSET_DATA, data(0, "01")),
      chunk(mode, 0, NbdChunk.ERROR_OFFSET, encodeErrorChunk(5, "bad", OFFSET + 1)),
      chunk(mode, DONE, 0x8fff, encodeErrorChunk(28, "unknown kind")),
    );
    expect(run(mode, wire)).toEqual([
      { ...success, error: 5, message: "bad", errorOffset: OFFSET + 1 },
    ]);
  });

  it("may be fragmented only without DF", () => {
    const wire = join(
      chunk(mode, 0, NbdChunk.OFFSET_DATA, data(0, "01020304")),
      chunk(mode, DONE, NbdChunk.OFFSET_DATA, data(4, "05060708")),
    );
    expect(run(mode, wire)).toEqual([success]);
    expect(failure(() => run(mode, wire, { flags: NbdCommandFlag.DF }))).toMatchObject({
      code: "EPROTO",
      field: "chunk count",
    });
    const whole = chunk(mode, DONE, NbdChunk.OFFSET_DATA, data(0, "0102030405060708"));
    expect(run(mode, whole, { flags: NbdCommandFlag.DF })).toEqual([success]);
  });

  it("answer a command without data by one of nothing", () => {
    expect(run(mode, chunk(mode, DONE, NbdChunk.NONE, EMPTY), { type: TRIM })).toEqual([success]);
    expect(
      run(mode, chunk(mode, DONE, NbdChunk.NONE, EMPTY), { length: 0, buffer: EMPTY }),
    ).toEqual([success]);
  });

  it.each<[string, string, Partial<ExpectedReply<string>>, () => Uint8Array]>([
    ["data before the request", "chunk range", {}, () => chunk(mode, 0, 1, data(-1, "01"))],
    ["data after the request", "chunk range", {}, () => chunk(mode, 0, 1, data(7, "0102"))],
    ["data at 2^53", "chunk range", {}, () => chunk(mode, 0, 1, bytes("0020000000000000 01"))],
    ["a hole beyond the request", "chunk range", {}, () => chunk(mode, 0, 2, hole(4, 5))],
    [
      "a byte twice",
      "chunk range",
      {},
      () => join(chunk(mode, 0, 1, data(0, "01")), chunk(mode, 0, 2, hole(0, 8))),
    ],
    ["a byte never", "read coverage", {}, () => chunk(mode, DONE, 1, data(0, "01020304050607"))],
    ["no data at all", "read coverage", {}, () => chunk(mode, DONE, 0, EMPTY)],
    [
      "more data than asked for",
      "chunk length",
      {},
      () => chunk(mode, 0, 1, data(0, "010203040506070809")),
    ],
    ["an empty data chunk", "chunk length", {}, () => chunk(mode, 0, 1, new Uint8Array(8))],
    ["a short hole", "chunk length", {}, () => chunk(mode, 0, 2, new Uint8Array(11))],
    ["an empty hole", "hole length", {}, () => chunk(mode, 0, 2, hole(0, 0))],
    ["an end with a payload", "chunk length", {}, () => chunk(mode, DONE, 0, new Uint8Array(1))],
    ["an end that is none", "chunk flags", {}, () => chunk(mode, 0, 0, EMPTY)],
    ["an unknown kind", "chunk type", {}, () => chunk(mode, 0, 99, EMPTY)],
    ["data for a trim", "chunk type", { type: TRIM }, () => chunk(mode, 0, 1, data(0, "01"))],
    [
      "a status for a read",
      "chunk type",
      {},
      () => chunk(mode, 0, statusType(mode), status(mode, 0, 8)),
    ],
    [
      "the status of the other kind of header",
      "chunk type",
      { type: BLOCK_STATUS },
      () => chunk(mode, 0, 11 - statusType(mode), new Uint8Array(24)),
    ],
    [
      "a status without an extent",
      "chunk length",
      { type: BLOCK_STATUS },
      () => chunk(mode, 0, statusType(mode), new Uint8Array(4)),
    ],
    [
      "a status with an empty extent",
      "extent length",
      { type: BLOCK_STATUS },
      () => chunk(mode, 0, statusType(mode), status(mode, 0, 0)),
    ],
    [
      "a context that was not selected",
      "context id",
      { type: BLOCK_STATUS, contextIds: [1] },
      () => chunk(mode, 0, statusType(mode), status(mode, 2, 8)),
    ],
    [
      "a context twice",
      "context id",
      { type: BLOCK_STATUS },
      () =>
        join(
          chunk(mode, 0, statusType(mode), status(mode, 2, 8)),
          chunk(mode, 0, statusType(mode), status(mode, 2, 8)),
        ),
    ],
    [
      "a context too few",
      "context count",
      { type: BLOCK_STATUS, contextIds: [1, 2] },
      () => chunk(mode, DONE, statusType(mode), status(mode, 2, 8)),
    ],
    [
      "no context at all",
      "context count",
      { type: BLOCK_STATUS },
      () => chunk(mode, DONE, 0, EMPTY),
    ],
    [
      "two extents where one was asked for",
      "extent count",
      { type: BLOCK_STATUS, flags: NbdCommandFlag.REQ_ONE },
      () => chunk(mode, 0, statusType(mode), status(mode, 2, 4, 4)),
    ],
    ["error number 0", "error number", {}, () => chunk(mode, 0, NbdChunk.ERROR, new Uint8Array(6))],
    ["a short error", "chunk length", {}, () => chunk(mode, 0, NbdChunk.ERROR, new Uint8Array(5))],
    [
      "a long error",
      "chunk length",
      {},
      () => chunk(mode, 0, NbdChunk.ERROR, new Uint8Array(4111)),
    ],
    [
      "a long message",
      "error message",
      {},
      () => chunk(mode, 0, NbdChunk.ERROR, bytes("00000005 1001")),
    ],
    [
      "garbage",
      mode === "extended" ? "extended reply magic" : "reply magic",
      {},
      () => new Uint8Array(32),
    ],
  ])("close after %s, and stay closed", (_name, field, expected, wire) => {
    const { read } = reader(mode, expected);
    read.push(wire());
    const next = (): void => {
      while (read.next() !== undefined);
    };
    expect(failure(next)).toMatchObject({ code: "EPROTO", operation: "nbd", field });
    expect(failure(next)).toMatchObject({ code: "EPROTO", field });
    expect(read.abandon()).toEqual(["t"]);
    expect(read.pending).toBe(0);
  });

  it.each([
    ["lower", { cookieHigh: 7, cookieLow: 2 }],
    ["upper", { cookieHigh: 8, cookieLow: 1 }],
  ])("close after an unknown %s half of the cookie", (_half, cookie) => {
    const header = { flags: DONE, type: 0, offset: OFFSET, ...cookie };
    expect(failure(() => run(mode, encodeChunk(header, mode === "extended")))).toMatchObject({
      code: "EPROTO",
      field: "cookie",
      message: "reply carries an unknown cookie",
      ...cookie,
    });
  });

  it("take up to the limit of extents, before memory is taken", () => {
    const one = (count: number): Uint8Array =>
      chunk(
        mode,
        DONE,
        statusType(mode),
        status(mode, 0, ...Array.from({ length: count }, () => 1)),
      );
    const extents = (count: number): number | undefined => {
      const read = new ReplyReader<number>({ mode, maxExtents: 10 });
      read.expect(7, 1, { type: BLOCK_STATUS, offset: OFFSET, length: 100, tag: 0 });
      read.push(one(count).subarray(0, count > 10 ? 32 : undefined));
      return read.next()?.statuses[0]?.extents.length;
    };
    expect([extents(9), extents(10)]).toEqual([9, 10]);
    expect(failure(() => extents(11))).toMatchObject({ code: "EPROTO", field: "chunk length" });
  });
});

it("closes after an extended reply at another offset", () => {
  const header = { flags: DONE, type: 0, cookieHigh: 7, cookieLow: 1, offset: 0 };
  expect(failure(() => run("extended", encodeChunk(header, true)))).toMatchObject({
    code: "EPROTO",
    field: "reply offset",
    value: 0,
    limit: OFFSET,
  });
});

it("takes 64 contexts when none were named, and not one more", () => {
  const statuses = Array.from({ length: 65 }, (_value, id) =>
    chunk("structured", 0, 5, status("structured", id, 8)),
  );
  const end = chunk("structured", DONE, 0, EMPTY);
  const [reply] = run("structured", join(...statuses.slice(0, 64), end), { type: BLOCK_STATUS });
  expect(reply?.statuses.length).toBe(64);
  expect(failure(() => run("structured", join(...statuses), { type: BLOCK_STATUS }))).toMatchObject(
    {
      code: "EPROTO",
      field: "context count",
      value: 65,
      limit: 64,
    },
  );
});

it("bounds the pieces of a read that comes out of order", () => {
  const pieces = (count: number): number => {
    const length = 4 * 8192;
    const { read } = reader("structured", { length, buffer: new Uint8Array(length) });
    const chunks = Array.from({ length: count }, (_value, index) =>
      chunk("structured", 0, 1, data(2 * index, "01")),
    );
    readAll(read, chunks, () => 0);
    return count;
  };
  expect([pieces(8191), pieces(8192)]).toEqual([8191, 8192]);
  expect(failure(() => pieces(8193))).toMatchObject({
    code: "EPROTO",
    field: "piece count",
    value: 8193,
    limit: 8192,
  });
});

describe("requests", () => {
  it("are told apart by the lower half of the cookie", () => {
    const { read } = reader("simple");
    expect(() => read.expect(8, 1, { type: TRIM, offset: 0, length: 0, tag: "" })).toThrow(
      "the lower half of a cookie in flight is not used again",
    );
  });

  it("to read need a buffer of their length", () => {
    const read = new ReplyReader<number>({ mode: "simple" });
    const expected = { type: READ, offset: 0, length: 2, buffer: new Uint8Array(3), tag: 0 };
    expect(() => read.expect(0, 0, expected)).toThrow(
      new RangeError("buffer of 3 bytes for a read of 2"),
    );
    const { buffer: _buffer, ...without } = expected;
    expect(() => read.expect(0, 0, without)).toThrow(
      new RangeError("buffer of 0 bytes for a read of 2"),
    );
  });

  it("may take their buffer back while data arrives; the reply is still read", () => {
    const wire = join(
      chunk("structured", 0, 1, data(0, "01020304")),
      chunk("structured", DONE, 2, hole(4, 4)),
    );
    const { read, buffer } = reader("structured");
    read.push(wire.subarray(0, 30));
    expect(read.next()).toBeUndefined();
    expect([read.releaseBuffer(1), read.releaseBuffer(2)]).toEqual([true, false]);
    read.push(wire.subarray(30));
    expect(read.next()).toEqual(success);
    expect(buffer).toEqual(bytes("0102cccccccccccc"));
  });

  it("are given back in the order of sending when the connection is lost", () => {
    const read = new ReplyReader<number>({ mode: "simple" });
    for (const tag of [3, 1, 2]) read.expect(0, tag, { type: TRIM, offset: 0, length: 1, tag });
    expect([read.pending, read.abandon(), read.pending]).toEqual([3, [3, 1, 2], 0]);
  });
});
