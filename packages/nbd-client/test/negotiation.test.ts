import { manualEnv, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { NbdConnection } from "@blocklayer/nbd-client";
import {
  decodeExportName,
  decodeInfoRequest,
  encodeExportNameReply,
  encodeGreeting,
  encodeInfo,
  encodeOptionError,
  encodeOptionReply,
  NbdHandshakeFlag,
  NbdInfo,
  NbdOption,
  NbdOptionReply,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import { writeU16, writeU32, writeU64 } from "@blocklayer/offsets";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";
import { ALL_FLAGS, FakeServer, GREETING, goReplies } from "./fake-server.ts";

const { FIXED_NEWSTYLE, NO_ZEROES } = NbdHandshakeFlag;

/** The header of a reply to GO that announces so many bytes. */
function replyOfLength(length: number): Uint8Array {
  const bytes = encodeOptionReply(NbdOption.GO, NbdOptionReply.INFO);
  writeU32(bytes, 16, length);
  return bytes;
}

function open(server: FakeServer, exportName = "disk", env = manualEnv()): Promise<NbdConnection> {
  return NbdConnection.open(server.client, { exportName, env });
}

describe("NbdConnection.open", () => {
  it("asks for the export and its block size with GO", async () => {
    const server = new FakeServer();
    const opening = open(server);
    expect(await server.greet()).toBe(3);
    const { option, payload } = await server.option();
    expect(option).toBe(NbdOption.GO);
    expect(decodeInfoRequest(payload)).toEqual({
      exportName: "disk",
      infos: [NbdInfo.BLOCK_SIZE],
    });
    const unknown = encodeInfo({ kind: "unknown", type: 77, payload: Uint8Array.of(1, 2) });
    server.send(
      encodeOptionReply(option, NbdOptionReply.INFO, unknown),
      encodeOptionReply(
        option,
        NbdOptionReply.INFO,
        encodeInfo({ kind: "description", description: "a disk" }),
      ),
      ...goReplies({
        size: 12_345,
        blockSize: { minimum: 1, preferred: 4096, maximum: 2 ** 20 },
      }),
    );
    const { info } = await opening;
    expect(info).toMatchObject({
      exportName: "disk",
      description: "a disk",
      size: 12_345,
      isReadOnly: false,
      canFlush: true,
      canFua: true,
      canTrim: true,
      canWriteZeroes: true,
      canFastZero: true,
      canMultiConnection: false,
      blockSize: { minimum: 1, preferred: 4096, maximum: 2 ** 20 },
    });
  });

  it.each([
    { title: "fixed newstyle without GO, zeroes", flags: FIXED_NEWSTYLE, clientFlags: 1 },
    {
      title: "fixed newstyle without GO, no zeroes",
      flags: FIXED_NEWSTYLE | NO_ZEROES,
      clientFlags: 3,
    },
    { title: "newstyle that is not fixed", flags: 0, clientFlags: 0 },
    { title: "newstyle that is not fixed, no zeroes", flags: NO_ZEROES, clientFlags: 2 },
  ])("takes EXPORT_NAME with a server of $title", async ({ flags, clientFlags }) => {
    const server = new FakeServer({ chunkSize: 7 });
    const opening = open(server);
    expect(await server.greet(encodeGreeting(flags))).toBe(clientFlags);
    if ((flags & FIXED_NEWSTYLE) !== 0) {
      await server.option();
      server.send(encodeOptionError(NbdOption.GO, NbdOptionReply.ERR_UNSUP, "what?"));
    }
    const { option, payload } = await server.option();
    expect(option).toBe(NbdOption.EXPORT_NAME);
    expect(decodeExportName(payload)).toBe("disk");
    const facts = { size: 4096, transmissionFlags: ALL_FLAGS };
    server.send(encodeExportNameReply(facts, (flags & NO_ZEROES) !== 0));
    const { info } = await opening;
    expect(info).toMatchObject({ size: 4096, canFlush: true, blockSize: undefined });
  });

  it("takes an oldstyle server's only export", async () => {
    const server = new FakeServer();
    const greeting = new Uint8Array(152);
    greeting.set(GREETING.subarray(0, 8));
    writeU32(greeting, 8, 0x4202);
    writeU32(greeting, 12, 0x81861253);
    writeU64(greeting, 16, 8192);
    writeU16(greeting, 26, ALL_FLAGS);
    server.send(greeting);
    expect((await open(server, "")).info).toMatchObject({ size: 8192, canFua: true });
    const other = new FakeServer();
    other.send(greeting);
    await rejection(
      open(other, "disk"),
      "ENOENT",
      "Server does not support non-empty export names",
    );
  });

  it.each([
    { type: NbdOptionReply.ERR_UNKNOWN, code: "ENOENT", message: "Requested export not available" },
    { type: NbdOptionReply.ERR_POLICY, code: "EPERM", message: "Denied by server (GO)" },
    { type: NbdOptionReply.ERR_INVALID, code: "EINVAL", message: "finds the option invalid" },
    { type: NbdOptionReply.ERR_PLATFORM, code: "ENOTSUP", message: "lacks support" },
    { type: NbdOptionReply.ERR_TLS_REQD, code: "ENOTSUP", message: "TLS negotiation required" },
    { type: NbdOptionReply.ERR_SHUTDOWN, code: "ESHUTDOWN", message: "Server shutting down" },
    { type: NbdOptionReply.ERR_BLOCK_SIZE_REQD, code: "EINVAL", message: "block size" },
    { type: NbdOptionReply.ERR_TOO_BIG, code: "EINVAL", message: "too long" },
    { type: NbdOptionReply.ERR_EXT_HEADER_REQD, code: "ENOTSUP", message: "extended headers" },
    { type: 0x8000abcd, code: "EINVAL", message: "error 2147527629" },
  ])("rejects with $code when the server answers $type, and says goodbye", async (row) => {
    const server = new FakeServer();
    const opening = open(server);
    await server.greet();
    await server.option();
    server.send(encodeOptionError(NbdOption.GO, row.type, "no such thing"));
    expect((await server.option()).option).toBe(NbdOption.ABORT);
    server.send(encodeOptionReply(NbdOption.ABORT, NbdOptionReply.ACK));
    server.end();
    const error = await rejection(opening, row.code, row.message);
    expect(error.context).toMatchObject({ option: "GO", exportName: "disk" });
    const isTls = row.type === NbdOptionReply.ERR_TLS_REQD;
    expect(error.hint).toBe(
      isTls ? "this client does not speak TLS" : "server reported: no such thing",
    );
    expect(server.isDestroyed).toBe(true);
  });

  it("rejects with ENOENT when a server closes instead of answering EXPORT_NAME", async () => {
    const server = new FakeServer();
    const opening = open(server);
    await server.greet(encodeGreeting(0));
    await server.option();
    server.end();
    await rejection(opening, "ENOENT", "Requested export not available");
  });

  const go = NbdOption.GO;
  const exportInfo = encodeInfo({ kind: "export", size: 512, transmissionFlags: 1 });
  const tooLarge = exportInfo.slice();
  tooLarge.fill(0xff, 2, 10);
  const badBlocks = new Uint8Array(14);
  writeU16(badBlocks, 0, NbdInfo.BLOCK_SIZE);
  writeU32(badBlocks, 2, 3);
  it.each([
    {
      title: "answers another option",
      bytes: encodeOptionReply(6, NbdOptionReply.ACK),
      field: "option",
    },
    {
      title: "accepts without a size",
      bytes: encodeOptionReply(go, NbdOptionReply.ACK),
      field: "export information",
    },
    {
      title: "acknowledges with data",
      bytes: encodeOptionReply(go, NbdOptionReply.ACK, Uint8Array.of(1)),
      field: "option reply length",
    },
    {
      title: "sends a list",
      bytes: encodeOptionReply(go, NbdOptionReply.SERVER),
      field: "reply type",
    },
    {
      title: "sends short information",
      bytes: encodeOptionReply(go, NbdOptionReply.INFO, exportInfo.subarray(0, 11)),
      field: "export information",
    },
    {
      title: "has blocks of 3 bytes",
      bytes: encodeOptionReply(go, NbdOptionReply.INFO, badBlocks),
      field: "minimum block size",
    },
    { title: "has another magic number", bytes: new Uint8Array(20), field: "option reply magic" },
    {
      title: "announces 2^32 - 1 bytes",
      bytes: replyOfLength(2 ** 32 - 1),
      field: "option reply length",
    },
    {
      title: "announces one byte more than any reply has",
      bytes: replyOfLength(8197),
      field: "option reply length",
    },
  ])("rejects with EPROTO when the server $title", async ({ bytes, field }) => {
    const server = new FakeServer();
    const opening = open(server);
    await server.greet();
    await server.option();
    server.send(bytes);
    const error = await rejection(opening, "EPROTO");
    expect(error.context).toMatchObject({ field });
    expect(server.isDestroyed).toBe(true);
  });

  it("rejects with EFBIG an export that can not be counted", async () => {
    const server = new FakeServer();
    const opening = open(server);
    await server.greet();
    await server.option();
    server.send(encodeOptionReply(go, NbdOptionReply.INFO, tooLarge));
    await rejection(opening, "EFBIG");
  });

  it("rejects with EPROTO what is no NBD server", async () => {
    const server = new FakeServer();
    server.send(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await rejection(open(server), "EPROTO", "greeting magic is 48545450");
  });

  it("ends the connection when the server speaks before it is asked", async () => {
    const server = new FakeServer();
    const opening = open(server);
    await server.greet();
    await server.option();
    server.send(
      Uint8Array.from([...goReplies()].flatMap((reply) => [...reply]).concat([1, 2, 3, 4])),
    );
    const connection = await opening;
    await rejection(connection.read(0, new Uint8Array(1)), "ESHUTDOWN");
    expect(connection.failure?.code).toBe("EPROTO");
  });

  it("rejects with ETIMEDOUT a server that says nothing, and leaves nothing behind", async () => {
    const server = new FakeServer();
    const env = manualEnv();
    const opening = open(server, "", env);
    opening.catch(() => undefined);
    await env.clock.advance(29_999);
    expect(server.isDestroyed).toBe(false);
    await env.clock.advance(1);
    await rejection(opening, "ETIMEDOUT", "within 30 s");
    expect(server.isDestroyed).toBe(true);
    expect(env.clock.sleeping).toBe(0);
  });

  it("destroys a stream that arrives too late", async () => {
    const server = new FakeServer();
    const env = manualEnv();
    const { promise, resolve } = Promise.withResolvers<typeof server.client>();
    const opening = NbdConnection.open(() => promise, { env, negotiationTimeoutMs: 5 });
    opening.catch(() => undefined);
    await env.clock.advance(5);
    await rejection(opening, "ETIMEDOUT");
    resolve(server.client);
    await settleTurn();
    expect(server.isDestroyed).toBe(true);
  });

  it("stops with the reason of its signal", async () => {
    const server = new FakeServer();
    const controller = new AbortController();
    const env = manualEnv();
    const opening = NbdConnection.open(server.client, { env, signal: controller.signal });
    const reason = new Error("not wanted any more");
    controller.abort(reason);
    await expect(opening).rejects.toBe(reason);
    await expect(
      NbdConnection.open(server.client, { env, signal: controller.signal }),
    ).rejects.toBe(reason);
    expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
  });

  it("rejects names that can not be sent", async () => {
    const server = new FakeServer();
    const opening = open(server, "x".repeat(4097));
    await server.greet();
    await rejection(opening, "EINVAL", "longer than 4096");
  });

  it.each([0, -1, 1.5])("refuses %s requests in flight", async (requestsMax) => {
    const { client } = new FakeServer();
    await expect(NbdConnection.open(client, { requestsMax })).rejects.toThrow(RangeError);
  });

  it("believes READ_ONLY of a server without HAS_FLAGS, and nothing else", async () => {
    const server = new FakeServer();
    const opening = open(server);
    const { HAS_FLAGS, READ_ONLY } = NbdTransmissionFlag;
    await server.accept({ flags: (ALL_FLAGS & ~HAS_FLAGS) | READ_ONLY });
    expect((await opening).info).toMatchObject({
      isReadOnly: true,
      canFlush: false,
      canFua: false,
    });
  });
});

const SCRIPT = [
  GREETING,
  ...goReplies({ blockSize: { minimum: 1, preferred: 512, maximum: 512 } }),
];
const WHOLE = Uint8Array.from(SCRIPT.flatMap((part) => [...part]));

describe("a handshake", () => {
  it.each([...WHOLE.keys()])(
    "that is cut after %i bytes rejects and leaves nothing",
    async (length) => {
      const server = new FakeServer();
      const env = manualEnv();
      const opening = open(server, "disk", env);
      server.send(WHOLE.subarray(0, length));
      server.end();
      const error = await rejection(opening, "ECONNRESET", "during the negotiation");
      expect(error).toBeInstanceOf(BlockError);
      await settleTurn();
      expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
    },
  );

  it.each([...WHOLE.keys()])("that comes in two parts, split at %i, succeeds", async (length) => {
    const server = new FakeServer();
    const opening = open(server);
    server.send(WHOLE.subarray(0, length));
    await settleTurn();
    server.send(WHOLE.subarray(length));
    expect((await opening).info.size).toBe(65536);
  });

  it("that comes byte by byte succeeds", async () => {
    const server = new FakeServer({ chunkSize: 1 });
    server.send(WHOLE);
    expect((await open(server)).info.size).toBe(65536);
  });
});
