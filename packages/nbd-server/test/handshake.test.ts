import {
  decodeMessage,
  encodeInfoRequest,
  encodeMetaContextRequest,
  encodeOption,
  NbdCommand,
  NbdOption,
  NbdOptionReply,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { expectNothingLeft, makeWorld, TestClient } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const { ACK, SERVER, INFO } = NbdOptionReply;
const text = new TextEncoder();
const go = (exportName: string, infos: number[] = []): Uint8Array =>
  encodeInfoRequest({ exportName, infos });
const bytesOf = (payload: Uint8Array = new Uint8Array(0)): number[] => [...payload];
const messageOf = (payload: Uint8Array = new Uint8Array(0)): string =>
  decodeMessage(payload, 0, payload.length);

describe("options and their answers", () => {
  it.each([
    ["LIST", NbdOption.LIST, undefined, [SERVER, ACK], undefined],
    [
      "LIST with data",
      NbdOption.LIST,
      "x",
      [NbdOptionReply.ERR_INVALID],
      "option 'list' has unexpected length",
    ],
    ["STARTTLS", NbdOption.STARTTLS, undefined, [NbdOptionReply.ERR_POLICY], "TLS not configured"],
    [
      "STARTTLS with data",
      NbdOption.STARTTLS,
      "x",
      [NbdOptionReply.ERR_INVALID],
      "option 'starttls' has unexpected length",
    ],
    [
      "PEEK_EXPORT",
      NbdOption.PEEK_EXPORT,
      undefined,
      [NbdOptionReply.ERR_UNSUP],
      "Unsupported option 4 (<unknown>)",
    ],
    [
      "STRUCTURED_REPLY",
      NbdOption.STRUCTURED_REPLY,
      undefined,
      [NbdOptionReply.ERR_UNSUP],
      "Unsupported option 8 (structured reply)",
    ],
    [
      "EXTENDED_HEADERS",
      NbdOption.EXTENDED_HEADERS,
      undefined,
      [NbdOptionReply.ERR_UNSUP],
      "Unsupported option 11 (extended headers)",
    ],
    [
      "an unknown option",
      99,
      undefined,
      [NbdOptionReply.ERR_UNSUP],
      "Unsupported option 99 (<unknown>)",
    ],
    [
      "an unknown option with data",
      99,
      "abc",
      [NbdOptionReply.ERR_UNSUP],
      "Unsupported option 99 (<unknown>)",
    ],
    [
      "INFO without data",
      NbdOption.INFO,
      undefined,
      [NbdOptionReply.ERR_INVALID],
      "Inconsistent lengths in option info",
    ],
    [
      "GO without data",
      NbdOption.GO,
      undefined,
      [NbdOptionReply.ERR_INVALID],
      "Inconsistent lengths in option go",
    ],
    [
      "INFO with a NUL in the name",
      NbdOption.INFO,
      "\0\0\0\x02a\0\0\0",
      [NbdOptionReply.ERR_INVALID],
      "export name contains a NUL character",
    ],
  ])("%s", async (_, option, data, types, message) => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    const replies = client.option(option, data === undefined ? undefined : text.encode(data));
    expect(replies.map((reply) => reply.type)).toEqual(types);
    expect(replies.every((reply) => reply.option === option)).toBe(true);
    if (message !== undefined) expect(messageOf(replies[0]?.payload)).toBe(message);
    // The haggling goes on after every one of them.
    expect(client.option(NbdOption.GO, go("disk")).at(-1)?.type).toBe(ACK);
  });

  it.each([
    [
      "a name longer than the data",
      new Uint8Array([0, 0, 0, 9, 65, 0, 0]),
      "Inconsistent lengths in option info",
    ],
    [
      "fewer numbers than counted",
      new Uint8Array([0, 0, 0, 1, 65, 0, 2, 0, 3]),
      "option 'info' has unexpected length",
    ],
    [
      "bytes behind the end",
      new Uint8Array([0, 0, 0, 1, 65, 0, 0, 9]),
      "option 'info' has unexpected length",
    ],
    ["a name of 5000 bytes", go("x".repeat(4096)).fill(0x13, 2, 4), "Invalid name length: 4883"],
    [
      "a name that is not UTF-8",
      new Uint8Array([0, 0, 0, 1, 255, 0, 0]),
      "export name is not UTF-8",
    ],
  ])("INFO with %s is invalid", async (_, payload, message) => {
    const client = new TestClient(await makeWorld());
    client.greet();
    const [reply] = client.option(NbdOption.INFO, payload);
    expect(reply?.type).toBe(NbdOptionReply.ERR_INVALID);
    expect(messageOf(reply?.payload)).toBe(message);
  });

  it.each([
    ["LIST_META_CONTEXT", NbdOption.LIST_META_CONTEXT],
    ["SET_META_CONTEXT", NbdOption.SET_META_CONTEXT],
  ])("%s is not supported", async (_, option) => {
    const client = new TestClient(await makeWorld());
    client.greet();
    const payload = encodeMetaContextRequest({ exportName: "disk", queries: ["base:allocation"] });
    expect(client.option(option, payload).map((reply) => reply.type)).toEqual([
      NbdOptionReply.ERR_UNSUP,
    ]);
  });

  it.each([
    [0, "n"],
    [255, "n"],
    [256, "n"],
    [4095, "n"],
    [4096, "n"],
  ])("an unknown name of %d bytes is answered with its beginning", async (length, letter) => {
    const client = new TestClient(await makeWorld());
    client.greet();
    const [reply] = client.option(NbdOption.GO, go(letter.repeat(length)));
    expect(reply?.type).toBe(NbdOptionReply.ERR_UNKNOWN);
    const shown = length <= 80 ? letter.repeat(length) : `${letter.repeat(80)}...`;
    expect(messageOf(reply?.payload)).toBe(`export '${shown}' not present`);
  });

  it("ABORT is acknowledged, with data too, and ends the connection", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    expect(client.option(NbdOption.ABORT, text.encode("why")).map(({ type }) => type)).toEqual([
      ACK,
    ]);
    expect(client.wire.isEndedByServer).toBe(true);
    client.wire.end();
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("several options in one chunk are answered in order, and the requests behind GO too", async () => {
    const client = new TestClient(await makeWorld());
    client.greet();
    const list = encodeOption(NbdOption.LIST);
    const chosen = encodeOption(NbdOption.GO, go("disk"));
    const request = client.request(NbdCommand.READ, { offset: 4, length: 8 });
    const glued = new Uint8Array(list.length + chosen.length + request.length);
    glued.set(list);
    glued.set(chosen, list.length);
    glued.set(request, list.length + chosen.length);
    client.wire.send(glued);
    const bytes = client.wire.read();
    expect(bytes.slice(-24, -20)).toEqual(new Uint8Array([0x67, 0x44, 0x66, 0x98]));
    expect(bytes.slice(-8)).toEqual(new TestDisk().bytes.slice(4, 12));
  });
});

describe("information about an export", () => {
  const blockSize = (minimum: number): number[] => [
    0,
    3,
    ...bytes32(minimum),
    ...bytes32(Math.max(4096, minimum)),
    2,
    0,
    0,
    0,
  ];
  const bytes32 = (value: number): number[] => [
    value >>> 24,
    (value >>> 16) & 255,
    (value >>> 8) & 255,
    value & 255,
  ];
  const writable = [0x0d, 0x6d];
  const exported = (flags: number[]): number[] =>
    [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, ...flags].slice(0, 10);

  it("tells size, flags and block sizes unasked, name and description as the case may be", async () => {
    const client = new TestClient(await makeWorld({}, { description: "the disk" }));
    client.greet();
    const replies = client.option(NbdOption.INFO, go("disk", [1, 7]));
    expect(replies.map(({ type }) => type)).toEqual([INFO, INFO, INFO, INFO, ACK]);
    expect(messageOf(replies[0]?.payload.slice(2))).toBe("disk");
    expect(messageOf(replies[1]?.payload.slice(2))).toBe("the disk");
    expect(bytesOf(replies[2]?.payload)).toEqual(blockSize(1));
    expect(bytesOf(replies[3]?.payload)).toEqual([...exported([]), ...writable]);
  });

  it.each([
    ["INFO that asks", NbdOption.INFO, [3], 512, [INFO, INFO, ACK]],
    [
      "INFO that does not ask",
      NbdOption.INFO,
      [],
      512,
      [INFO, INFO, NbdOptionReply.ERR_BLOCK_SIZE_REQD],
    ],
    ["GO that asks", NbdOption.GO, [3], 512, [INFO, INFO, ACK]],
    ["GO that does not ask", NbdOption.GO, [], 1, [INFO, INFO, ACK]],
  ])("a disk of 512-byte blocks and %s", async (_, option, infos, minimum, types) => {
    const disk = new TestDisk();
    disk.limits = { ...disk.limits, requestAlignment: 512 };
    const client = new TestClient(await makeWorld({}, {}, disk));
    client.greet();
    const replies = client.option(option, go("disk", infos));
    expect(replies.map(({ type }) => type)).toEqual(types);
    expect(bytesOf(replies[0]?.payload)).toEqual(blockSize(minimum));
  });

  it("the longest payload is that of the disk if it is shorter", async () => {
    const disk = new TestDisk();
    disk.limits = { ...disk.limits, requestAlignment: 512, maxTransfer: 1024 * 1024 + 5 };
    const client = new TestClient(await makeWorld({}, {}, disk));
    client.greet();
    const [sizes] = client.option(NbdOption.GO, go("disk", [3]));
    expect(bytesOf(sizes?.payload.slice(10))).toEqual(bytes32(1024 * 1024));
  });

  it.each([
    ["less than is preferred elsewhere", 1000, 1, [1, 512, 1000]],
    ["a block of the disk", 1000, 512, [512, 512, 512]],
    ["less than a block of the disk", 1000, 4096, [512, 512, 512]],
    ["a little more than one block", 4097, 4096, [4096, 4096, 4096]],
    ["the least there is", 512, 1, [1, 512, 512]],
  ])("nothing is announced that the server does not take: %s", async (_, payload, block, sizes) => {
    const disk = new TestDisk();
    disk.limits = { ...disk.limits, requestAlignment: block };
    const client = new TestClient(await makeWorld({ limits: { payload } }, {}, disk));
    client.greet();
    const [told] = client.option(NbdOption.GO, go("disk", [3]));
    expect(bytesOf(told?.payload.slice(2))).toEqual(sizes.flatMap(bytes32));
  });

  it("a server that takes less than can be announced is not made", async () => {
    await expect(makeWorld({ limits: { payload: 511 } })).rejects.toThrow(
      new RangeError("limits.payload of 511 bytes is less than 512"),
    );
  });

  it("the longest payload is the one that the server takes", async () => {
    const client = new TestClient(await makeWorld({ limits: { payload: 65536 } }));
    client.greet();
    const [sizes] = client.option(NbdOption.GO, go("disk", [3]));
    expect(bytesOf(sizes?.payload.slice(10))).toEqual(bytes32(65536));
  });

  it.each([
    ["writable", { writable: true }, 0x0d6d],
    ["read-only", { writable: false }, 0x050f],
    ["for one connection", { writable: true, multiConnection: false }, 0x0c6d],
  ])("flags of an export that is %s", async (_, options, flags) => {
    const client = new TestClient(await makeWorld({}, options));
    expect(client.exportName()).toEqual({ size: 65536, transmissionFlags: flags });
  });

  it("the size is exact, not rounded to sectors", async () => {
    const client = new TestClient(await makeWorld({}, {}, new TestDisk(1001)));
    expect(client.exportName().size).toBe(1001);
  });

  it("INFO does not choose: another export may follow", async () => {
    const world = await makeWorld();
    await world.server.addExport({ name: "other", backend: new TestDisk(512) });
    const client = new TestClient(world);
    client.greet();
    expect(client.option(NbdOption.INFO, go("disk")).at(-1)?.type).toBe(ACK);
    expect(client.option(NbdOption.GO, go("other")).at(-1)?.type).toBe(ACK);
    expect(world.server.connections[0]?.exportName).toBe("other");
  });

  it("no disk is asked for anything before an export is chosen", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    client.option(NbdOption.LIST);
    client.option(NbdOption.INFO, go("disk"));
    expect(world.disk.calls).toEqual([]);
  });
});

describe("EXPORT_NAME", () => {
  it.each([
    [3, 10],
    [1, 134],
    [0, 134],
  ])("client flags %d give a reply of %d bytes", async (flags, length) => {
    const client = new TestClient(await makeWorld());
    client.greet(flags);
    client.wire.send(encodeOption(NbdOption.EXPORT_NAME, text.encode("disk")));
    expect(client.wire.unread).toBe(length);
    client.wire.read();
    client.read(0, 4);
    expect(client.reply(4).data).toEqual(new TestDisk().bytes.slice(0, 4));
  });

  it.each([
    ["unknown", text.encode("nope")],
    ["no UTF-8", new Uint8Array([255])],
    ["longer than 4096 bytes", new Uint8Array(4097).fill(97)],
    ["longer than the limit", new Uint8Array(65_537).fill(97)],
  ])("a name that is %s closes", async (_, name) => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    client.wire.send(encodeOption(NbdOption.EXPORT_NAME, name));
    await client.settle();
    expect(client.wire.unread).toBe(0);
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });
});

describe("names, list and default", () => {
  it("lists all exports in their order, with descriptions", async () => {
    const world = await makeWorld();
    await world.server.addExport({ name: "b", backend: new TestDisk(), description: "second" });
    const client = new TestClient(world);
    client.greet();
    const replies = client.option(NbdOption.LIST);
    expect(replies.slice(0, -1).map(({ payload }) => messageOf(payload.slice(4)))).toEqual([
      "disk",
      "bsecond",
    ]);
  });

  it("a server that does not list says so", async () => {
    const client = new TestClient(await makeWorld({ listExports: false }));
    client.greet();
    expect(client.option(NbdOption.LIST).map(({ type }) => type)).toEqual([
      NbdOptionReply.ERR_POLICY,
    ]);
  });

  it("the empty name means the default export, whose name can be asked for", async () => {
    const client = new TestClient(await makeWorld({ defaultExport: "disk" }));
    client.greet();
    const [name] = client.option(NbdOption.GO, go("", [1]));
    expect(messageOf(name?.payload.slice(2))).toBe("disk");
  });
});

describe("what closes a handshake", () => {
  it.each([
    ["unknown client flags", new Uint8Array([0, 0, 0, 4])],
    ["a wrong magic number", new Uint8Array([0, 0, 0, 3, ...text.encode("GET / HTTP/1.1\r\n")])],
    [
      "an option of 33 MiB",
      new Uint8Array([0, 0, 0, 3, ...text.encode("IHAVEOPT"), 0, 0, 0, 9, 2, 0, 0, 1]),
    ],
    [
      "an option but EXPORT_NAME without fixed newstyle",
      new Uint8Array([0, 0, 0, 0, ...encodeOption(NbdOption.LIST)]),
    ],
  ])("%s", async (_, bytes) => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.wire.read();
    client.wire.send(bytes);
    await client.settle();
    expect(client.wire.unread).toBe(0);
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });
});
