import {
  encodeOption,
  encodeRequest,
  NbdCommand,
  NbdCommandFlag,
  NbdOption,
  type NbdRequest,
  OptionReader,
  RequestReader,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { bytes, failure, join, readAll, split, volatileSplit } from "./bytes.ts";

const header = { flags: 0, type: 0, cookieHigh: 1, cookieLow: 2, offset: 4096, length: 0 };
const keep = (request: NbdRequest): NbdRequest => ({
  ...request,
  payload: request.payload.slice(),
});
const { WRITE, READ, TRIM, BLOCK_STATUS, WRITE_ZEROES, FLUSH } = NbdCommand;
const { PAYLOAD_LEN } = NbdCommandFlag;

describe("requests", () => {
  const stream = join(
    encodeRequest({ ...header, type: READ, length: 512 }, false),
    encodeRequest({ ...header, type: WRITE, cookieLow: 3, length: 3 }, false, bytes("0a0b0c")),
    encodeRequest({ ...header, type: WRITE, cookieLow: 4, length: 0 }, false),
    encodeRequest({ ...header, type: FLUSH, cookieLow: 5, offset: 0 }, false),
  );
  const empty = new Uint8Array(0);
  const expected = [
    { ...header, type: READ, length: 512, payload: empty, fault: 0 },
    { ...header, type: WRITE, cookieLow: 3, length: 3, payload: bytes("0a0b0c"), fault: 0 },
    { ...header, type: WRITE, cookieLow: 4, payload: empty, fault: 0 },
    { ...header, type: FLUSH, cookieLow: 5, offset: 0, payload: empty, fault: 0 },
  ];

  it("are all read from one chunk, with payloads that are parts of it", () => {
    const payloads: Uint8Array[] = [];
    const all = readAll(new RequestReader({ extended: false }), [stream], (request) => {
      if (request.payload.length > 0) payloads.push(request.payload);
      return keep(request);
    });
    expect(all).toEqual(expected);
    expect(payloads.map(({ buffer }) => buffer === stream.buffer)).toEqual([true]);
  });

  it("are read wherever the stream is cut, also when the memory of chunks changes", () => {
    for (let cut = 0; cut <= stream.length; cut += 1) {
      for (let second = cut; second <= stream.length; second += 7) {
        const cuts = [cut, second];
        const plain = new RequestReader({ extended: false });
        expect(readAll(plain, split(stream, cuts), keep)).toEqual(expected);
        const payloads: Uint8Array[] = [];
        const reader = new RequestReader({ extended: false, volatile: true });
        readAll(reader, volatileSplit(stream, cuts), ({ payload }) => payloads.push(payload));
        expect(payloads[1]).toEqual(bytes("0a0b0c"));
      }
    }
  });

  it("gather a payload that spans chunks in one buffer of its length, from the caller", () => {
    const asked: number[] = [];
    const allocate = (length: number): Uint8Array => {
      asked.push(length);
      return new Uint8Array(length);
    };
    const reader = new RequestReader({ extended: false, allocate });
    const all = readAll(
      reader,
      split(stream, [57, 58]),
      ({ payload }) => payload.buffer.byteLength,
    );
    expect(asked).toEqual([3]);
    expect(all[1]).toBe(3);
  });

  it("give away what was not read yet", () => {
    const reader = new RequestReader({ extended: false });
    reader.push(stream);
    reader.next();
    expect(reader.takeRest()).toEqual(stream.subarray(28));
    expect(reader.next()).toBeUndefined();
  });

  it("are read to the end before the next chunk", () => {
    const reader = new RequestReader({ extended: false });
    reader.push(stream);
    expect(() => reader.push(stream)).toThrow("the last chunk is read to its end");
  });

  it("give no rest away inside of a request", () => {
    const reader = new RequestReader({ extended: false });
    readAll(reader, [stream.subarray(0, 5)], keep);
    expect(() => reader.takeRest()).toThrow("the rest is taken between two frames");
  });

  it("refuse a buffer of another length from the allocator", () => {
    const reader = new RequestReader({ extended: false, allocate: () => new Uint8Array(1) });
    reader.push(stream.subarray(28, 57));
    expect(() => reader.next()).toThrow("the allocator gave a buffer of the length asked for");
  });
});

describe("extended requests", () => {
  it.each<[string, number, number, Uint8Array, Partial<NbdRequest>]>([
    ["write", WRITE, PAYLOAD_LEN, bytes("abcd"), { payload: bytes("abcd"), fault: 0 }],
    ["status filter", BLOCK_STATUS, PAYLOAD_LEN, new Uint8Array(12), { fault: 0, length: 12 }],
    [
      "status filter for too many contexts",
      BLOCK_STATUS,
      PAYLOAD_LEN,
      new Uint8Array(268),
      { fault: 22, payload: bytes("") },
    ],
    [
      "payload that does not belong there",
      TRIM,
      PAYLOAD_LEN,
      bytes("abcd"),
      { fault: 22, payload: bytes("") },
    ],
  ])("%s", (_name, type, flags, payload, expected) => {
    const stream = join(
      encodeRequest({ ...header, type, flags, length: payload.length }, true, payload),
      encodeRequest({ ...header, type: TRIM, cookieLow: 9, length: 2 ** 40 }, true),
    );
    for (let cut = 0; cut <= stream.length; cut += 5) {
      const all = readAll(new RequestReader({ extended: true }), split(stream, [cut]), keep);
      expect(all).toMatchObject([expected, { cookieLow: 9, length: 2 ** 40, fault: 0 }]);
    }
  });

  it.each([
    ["offset of a read", READ, "0020000000000000", "0000000000000001", 22],
    ["offset of a write of zeroes", WRITE_ZEROES, "ffffffffffffffff", "0000000000000001", 28],
    ["length of a trim", TRIM, "0000000000000000", "0020000000000000", 75],
    ["offset and length of a trim", TRIM, "0020000000000000", "0020000000000000", 22],
  ])("answer 2^53 and more with an error: %s", (_name, type, offset, length, fault) => {
    const wire = bytes(`21e41c71 0000 000${type} 00000001 00000002 ${offset} ${length}`);
    const [request] = readAll(new RequestReader({ extended: true }), [wire], keep);
    expect(request).toMatchObject({ type, fault, cookieHigh: 1, cookieLow: 2 });
    expect([request?.offset, request?.length]).toContain(Number.POSITIVE_INFINITY);
  });
});

it("drops the data of a compact write at 2^53 and reads on", () => {
  const wire = bytes("25609513 0000 0001 00000001 00000002 0020000000000000 00000002 abcd");
  const stream = join(wire, encodeRequest({ ...header, type: READ }, false));
  const all = readAll(new RequestReader({ extended: false }), split(stream, [29]), keep);
  expect(all).toMatchObject([
    { fault: 28, payload: bytes("") },
    { type: READ, fault: 0 },
  ]);
});

describe("the payload limit", () => {
  const limit = 1000;
  const run = (extended: boolean, type: number, length: number): unknown[] => {
    const flags = extended ? PAYLOAD_LEN : 0;
    const wire = encodeRequest(
      { ...header, type, flags, length },
      extended,
      new Uint8Array(length),
    );
    return readAll(new RequestReader({ extended, maxPayload: limit }), [wire], keep);
  };

  it.each([
    ["compact", false, WRITE],
    ["extended", true, WRITE],
    ["extended, of another command", true, TRIM],
  ])("%s", (_name, extended, type) => {
    expect(run(extended, type, limit - 1).length).toBe(1);
    expect(run(extended, type, limit).length).toBe(1);
    expect(failure(() => run(extended, type, limit + 1))).toMatchObject({
      code: "EPROTO",
      message: "payload of 1001 bytes is longer than 1000",
      field: "payload length",
      value: 1001,
      limit,
      cookieHigh: 1,
      cookieLow: 2,
      type,
    });
  });

  it("is 32 MiB, and no memory is taken for more", () => {
    const allocate = (): Uint8Array => {
      throw new Error("memory was taken");
    };
    const reader = new RequestReader({ extended: false, allocate });
    reader.push(encodeRequest({ ...header, type: WRITE, length: 2 ** 25 + 1 }, false));
    expect(failure(() => reader.next())).toMatchObject({ code: "EPROTO", limit: 2 ** 25 });
  });
});

it.each([
  ["compact", false, "21e41c71", "25609513"],
  ["extended", true, "25609513", "21e41c71"],
])("closes after a wrong magic number: %s", (_name, extended, value, limit) => {
  const reader = new RequestReader({ extended });
  reader.push(join(bytes(value), new Uint8Array(60)));
  const expected = { code: "EPROTO", field: "request magic", value, limit };
  expect(failure(() => reader.next())).toMatchObject(expected);
  expect(failure(() => reader.next())).toMatchObject(expected);
});

it("closes after an extended write that does not say whether data follows", () => {
  const reader = new RequestReader({ extended: true });
  reader.push(encodeRequest({ ...header, type: WRITE, length: 4 }, true, bytes("00000000")));
  expect(failure(() => reader.next())).toMatchObject({
    code: "EPROTO",
    message: "write request lacks the flag PAYLOAD_LEN",
    cookieLow: 2,
  });
});

describe("options", () => {
  const flags = bytes("00000003");
  const go = encodeOption(NbdOption.GO, bytes("00000000 0000"));
  const stream = join(flags, encodeOption(NbdOption.LIST), go);

  it("are read wherever the stream is cut", () => {
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const reader = new OptionReader();
      expect(reader.clientFlags).toBe(-1);
      const all = readAll(reader, volatileSplit(stream, [cut]), (option) => option);
      expect(all).toEqual([
        { option: 3, length: 0, payload: bytes(""), isOversize: false },
        { option: 7, length: 6, payload: bytes("00000000 0000"), isOversize: false },
      ]);
      expect([reader.clientFlags, reader.count]).toEqual([3, 2]);
    }
  });

  it("leave the rest to the transmission phase", () => {
    const reader = new OptionReader({ clientFlags: false });
    reader.push(join(go, bytes("25609513")));
    expect(reader.next()?.option).toBe(NbdOption.GO);
    expect(reader.takeRest()).toEqual(bytes("25609513"));
  });

  it("are reported before their data is there when it is too long, and skipped", () => {
    const limit = 65536;
    for (const [length, isOversize] of [
      [limit - 1, false],
      [limit, false],
      [limit + 1, true],
    ] as const) {
      const reader = new OptionReader({ clientFlags: false });
      const wire = join(encodeOption(42, new Uint8Array(length)), go);
      reader.push(wire.slice(0, 16));
      expect(reader.next()?.isOversize).toBe(isOversize ? true : undefined);
      const all = readAll(reader, split(wire.slice(16), [1000, 3000]), (option) => option);
      expect(all.map(({ option, payload }) => [option, payload.length])).toEqual(
        isOversize
          ? [[7, 6]]
          : [
              [42, length],
              [7, 6],
            ],
      );
    }
  });

  it("close when too long to be skipped", () => {
    const wire = (length: number): Uint8Array =>
      join(encodeOption(42).subarray(0, 12), Uint8Array.of(0, 0, length >> 8, length & 255));
    const run = (length: number): boolean | undefined => {
      const reader = new OptionReader({ clientFlags: false, maxPayload: 10, maxSkip: 1000 });
      reader.push(wire(length));
      return reader.next()?.isOversize;
    };
    expect([run(999), run(1000)]).toEqual([true, true]);
    expect(failure(() => run(1001))).toMatchObject({
      code: "EPROTO",
      field: "option length",
      value: 1001,
      limit: 1000,
      message: "option 42 with 1001 bytes of data is longer than 1000",
    });
  });

  it("are 32 at most", () => {
    const run = (count: number): number => {
      const chunks = Array.from({ length: count }, () => encodeOption(NbdOption.LIST));
      return readAll(new OptionReader({ clientFlags: false }), chunks, () => 0).length;
    };
    expect([run(31), run(32)]).toEqual([31, 32]);
    expect(failure(() => run(33))).toMatchObject({
      code: "EPROTO",
      field: "option count",
      value: 33,
      limit: 32,
    });
  });

  it.each([
    ["unknown client flags", bytes("00000004"), "client flags"],
    ["a wrong magic number", join(flags, bytes('"HAVEIOPT" 00000003 00000000')), "option magic"],
  ])("close after %s", (_name, wire, field) => {
    const reader = new OptionReader();
    reader.push(wire);
    expect(failure(() => reader.next())).toMatchObject({ code: "EPROTO", field });
    expect(failure(() => reader.next())).toMatchObject({ code: "EPROTO", field });
  });
});
