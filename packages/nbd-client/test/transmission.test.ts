import { type ManualEnv, manualEnv, settleTurn } from "@blocklayer/env";
import { NbdConnection, type NbdConnectionOptions } from "@blocklayer/nbd-client";
import {
  decodeRequest,
  encodeSimpleReply,
  NbdCommand,
  NbdErrno,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { rejection, watch } from "./expectations.ts";
import { ALL_FLAGS, type FakeExport, FakeServer } from "./fake-server.ts";
import type { StreamOptions } from "./memory-stream.ts";

interface Opened {
  readonly server: FakeServer;
  readonly connection: NbdConnection;
  readonly env: ManualEnv;
}

async function open(
  facts: FakeExport = {},
  options: NbdConnectionOptions = {},
  streamOptions: StreamOptions = {},
): Promise<Opened> {
  const server = new FakeServer(streamOptions);
  const env = manualEnv();
  const opening = NbdConnection.open(server.client, { env, ...options });
  await server.accept(facts);
  return { server, connection: await opening, env };
}

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

describe("requests", () => {
  it.each([
    {
      title: "read",
      send: (c: NbdConnection) => c.read(512, bytes(8, 0)),
      type: NbdCommand.READ,
      flags: 0,
    },
    {
      title: "write",
      send: (c: NbdConnection) => c.write(512, bytes(8, 7)),
      type: NbdCommand.WRITE,
      flags: 0,
    },
    {
      title: "write with FUA",
      send: (c: NbdConnection) => c.write(512, bytes(8, 7), { fua: true }),
      type: NbdCommand.WRITE,
      flags: 1,
    },
    {
      title: "write-zeroes",
      send: (c: NbdConnection) => c.writeZeroes(512, 8),
      type: NbdCommand.WRITE_ZEROES,
      flags: 0,
    },
    {
      title: "write-zeroes with everything",
      send: (c: NbdConnection) =>
        c.writeZeroes(512, 8, { fua: true, noHole: true, fastZero: true }),
      type: NbdCommand.WRITE_ZEROES,
      flags: 19,
    },
    { title: "trim", send: (c: NbdConnection) => c.trim(512, 8), type: NbdCommand.TRIM, flags: 0 },
    {
      title: "trim with FUA",
      send: (c: NbdConnection) => c.trim(512, 8, { fua: true }),
      type: NbdCommand.TRIM,
      flags: 1,
    },
    {
      title: "cache",
      send: (c: NbdConnection) => c.cache(512, 8),
      type: NbdCommand.CACHE,
      flags: 0,
    },
  ])("$title is sent as it is meant", async ({ send, type, flags }) => {
    const { server, connection } = await open();
    const work = send(connection);
    const request = await server.request();
    expect(request).toMatchObject({ type, flags, offset: 512, length: 8 });
    if (type === NbdCommand.WRITE) expect(request.payload).toEqual(bytes(8, 7));
    server.reply(request, 0, type === NbdCommand.READ ? bytes(8, 9) : undefined);
    await work;
    expect(connection.inFlight).toBe(0);
  });

  it("flush has neither offset nor length", async () => {
    const { server, connection } = await open();
    const work = connection.flush();
    const request = await server.request();
    expect(request).toMatchObject({ type: NbdCommand.FLUSH, offset: 0, length: 0, flags: 0 });
    server.reply(request);
    await work;
  });

  it("of one turn leave in one burst, payloads from where they lie", async () => {
    const { server, connection } = await open();
    const before = server.client.writeCount;
    const [first, second] = [bytes(16, 1), bytes(32, 2)];
    const work = [
      connection.read(0, bytes(8, 0)),
      connection.read(8, bytes(8, 0)),
      connection.write(512, first),
      connection.write(1024, second),
      connection.flush(),
    ];
    const requests = await server.requests(5);
    expect(server.client.writeCount).toBe(before + 1);
    const { lastWrite } = server.client;
    expect(lastWrite.map((chunk) => chunk.length)).toEqual([84, 16, 28, 32, 28]);
    expect([lastWrite[1] === first, lastWrite[3] === second]).toEqual([true, true]);
    for (const request of requests) {
      server.reply(request, 0, request.type === NbdCommand.READ ? bytes(8, 3) : undefined);
    }
    await Promise.all(work);
  });

  it("that answers bring about leave together", async () => {
    const { server, connection } = await open();
    const chain = async (offset: number): Promise<void> => {
      await connection.read(offset, bytes(1, 0));
      await Promise.resolve();
      await connection.read(offset, bytes(1, 0));
    };
    const work = [chain(0), chain(1), chain(2)];
    const before = server.client.writeCount;
    for (const request of await server.requests(3)) server.reply(request, 0, bytes(1, 0));
    const again = await server.requests(3);
    expect(server.client.writeCount - before).toBeLessThanOrEqual(4);
    for (const request of again) server.reply(request, 0, bytes(1, 0));
    await Promise.all(work);
  });

  it("are answered in any order, in chunks of any size", async () => {
    for (const chunkSize of [1, 3, 17, 1000]) {
      const { server, connection } = await open({}, {}, { chunkSize });
      const buffers = [0, 1, 2, 3].map(() => bytes(64, 0));
      const work = buffers.map((buffer, index) => connection.read(index * 64, buffer));
      const requests = await server.requests(4);
      for (const request of requests.toReversed()) {
        server.reply(request, 0, bytes(64, 1 + request.offset / 64));
      }
      await Promise.all(work);
      expect(buffers).toEqual([1, 2, 3, 4].map((value) => bytes(64, value)));
    }
  });

  it("beyond the number in flight wait, in order", async () => {
    const { server, connection } = await open({}, { requestsMax: 2 });
    const work = [0, 1, 2, 3, 4].map((offset) => connection.trim(offset, 1));
    const [first, second] = await server.requests(2);
    await settleTurn();
    expect([server.receivedLength, connection.inFlight]).toEqual([0, 2]);
    if (second !== undefined) server.reply(second);
    const third = await server.request();
    expect(third.offset).toBe(2);
    server.reply(third);
    if (first !== undefined) server.reply(first);
    for (const request of await server.requests(2)) server.reply(request);
    await Promise.all(work);
  });

  it("that wait are dropped by their signal, those in flight are not", async () => {
    const { server, connection } = await open({}, { requestsMax: 1 });
    const controller = new AbortController();
    const { signal } = controller;
    const sent = connection.write(0, bytes(4, 1), { signal });
    const waiting = connection.write(4, bytes(4, 2), { signal });
    const request = await server.request();
    const reason = new Error("changed my mind");
    controller.abort(reason);
    await expect(waiting).rejects.toBe(reason);
    await expect(connection.read(0, bytes(1, 0), { signal })).rejects.toBe(reason);
    const state = watch(sent);
    await settleTurn();
    expect(state.isSettled).toBe(false);
    server.reply(request);
    await sent;
    expect(server.receivedLength).toBe(0);
  });

  it("end only when their payload is not needed any more", async () => {
    const { server, connection } = await open();
    server.client.isFull = true;
    const payload = bytes(16, 5);
    const write = connection.write(0, payload);
    const read = connection.read(64, bytes(4, 0));
    await settleTurn();
    const header = decodeRequest(server.client.lastWrite[0] ?? bytes(0, 0), false);
    const readHeader = decodeRequest(server.client.lastWrite[2] ?? bytes(0, 0), false);
    server.reply({ ...header, payload });
    server.reply({ ...readHeader, payload }, 0, bytes(4, 1));
    await read;
    const state = watch(write);
    const later = connection.read(0, bytes(1, 0));
    await settleTurn();
    expect(state.isSettled).toBe(false);
    server.client.release();
    await write;
    server.takeReceived();
    await settleTurn();
    const [request] = [decodeRequest(server.client.lastWrite[0] ?? bytes(0, 0), false)];
    server.reply({ ...request, payload }, 0, bytes(1, 1));
    await later;
  });
});

describe("errors of single requests", () => {
  it.each([
    ["EPERM", NbdErrno.EPERM],
    ["EIO", NbdErrno.EIO],
    ["ENOMEM", NbdErrno.ENOMEM],
    ["EINVAL", NbdErrno.EINVAL],
    ["ENOSPC", NbdErrno.ENOSPC],
    ["EOVERFLOW", NbdErrno.EOVERFLOW],
    ["ENOTSUP", NbdErrno.ENOTSUP],
    ["EINVAL", 4711],
  ])("%s (%i) leaves the connection usable", async (code, error) => {
    const { server, connection } = await open();
    const work = connection.writeZeroes(4096, 512);
    const read = connection.read(0, bytes(4, 0));
    const [zero, other] = await server.requests(2);
    if (zero !== undefined) server.reply(zero, error);
    const failure = await rejection(work, code, "writeZeroes of 512 bytes at 4096 failed: ");
    expect(failure.context).toEqual({ operation: "writeZeroes", offset: 4096, length: 512 });
    if (other !== undefined) server.reply(other, 0, bytes(4, 1));
    await read;
    expect(connection.failure).toBeUndefined();
  });

  it("a failed read brings no data", async () => {
    const { server, connection } = await open();
    const buffer = bytes(4, 9);
    const work = connection.read(0, buffer);
    server.reply(await server.request(), NbdErrno.EIO);
    await rejection(work, "EIO", "read of 4 bytes at 0 failed: Input/output error");
    expect(buffer).toEqual(bytes(4, 9));
    const again = connection.read(0, buffer);
    server.reply(await server.request(), 0, bytes(4, 1));
    await again;
  });
});

describe("arguments", () => {
  const { READ_ONLY, HAS_FLAGS } = NbdTransmissionFlag;
  it.each([
    {
      title: "a write to a read-only export",
      flags: ALL_FLAGS | READ_ONLY,
      send: (c: NbdConnection) => c.write(0, bytes(1, 0)),
      code: "EROFS",
    },
    {
      title: "a trim that is not offered",
      flags: HAS_FLAGS,
      send: (c: NbdConnection) => c.trim(0, 1),
      code: "ENOTSUP",
    },
    {
      title: "zeroes that are not offered",
      flags: HAS_FLAGS,
      send: (c: NbdConnection) => c.writeZeroes(0, 1),
      code: "ENOTSUP",
    },
    {
      title: "a flush that is not offered",
      flags: HAS_FLAGS,
      send: (c: NbdConnection) => c.flush(),
      code: "ENOTSUP",
    },
    {
      title: "a cache that is not offered",
      flags: HAS_FLAGS,
      send: (c: NbdConnection) => c.cache(0, 1),
      code: "ENOTSUP",
    },
    {
      title: "FUA that is not offered",
      flags: HAS_FLAGS,
      send: (c: NbdConnection) => c.write(0, bytes(1, 0), { fua: true }),
      code: "ENOTSUP",
    },
    {
      title: "fast zeroes that are not offered",
      flags: HAS_FLAGS | NbdTransmissionFlag.SEND_WRITE_ZEROES,
      send: (c: NbdConnection) => c.writeZeroes(0, 1, { fastZero: true }),
      code: "ENOTSUP",
    },
    {
      title: "a read beyond the end",
      flags: ALL_FLAGS,
      send: (c: NbdConnection) => c.read(65535, bytes(2, 0)),
      code: "EINVAL",
    },
    {
      title: "a read longer than the server takes",
      flags: ALL_FLAGS,
      send: (c: NbdConnection) => c.read(0, bytes(8193, 0)),
      code: "EINVAL",
    },
  ])("$title is refused with $code before it is sent", async ({ flags, send, code }) => {
    const blockSize = { minimum: 1, preferred: 512, maximum: 8192 };
    const { server, connection } = await open({ flags, blockSize });
    await rejection(send(connection), code);
    expect(server.receivedLength).toBe(0);
  });

  it.each([
    [-1, 1],
    [0.5, 1],
    [Number.NaN, 1],
    [2 ** 53, 1],
    [0, -1],
  ])("offset %d and length %d are a RangeError", async (offset, length) => {
    const { connection } = await open();
    expect(() => connection.trim(offset, length)).toThrow(RangeError);
  });
});

describe("a server that breaks the protocol", () => {
  const cookie = (cookieHigh: number, cookieLow: number): Uint8Array =>
    encodeSimpleReply({ error: 0, cookieHigh, cookieLow });
  it.each([
    { title: "an unknown cookie", reply: () => cookie(1, 63), field: "cookie" },
    { title: "a cookie of another time", reply: () => cookie(9, 0), field: "cookie" },
    { title: "a wrong magic number", reply: () => bytes(16, 0xaa), field: "reply magic" },
    {
      title: "a structured reply",
      reply: () => Uint8Array.of(0x66, 0x8e, 0x33, 0xef),
      field: "reply magic",
    },
    {
      title: "a second answer",
      reply: () => Uint8Array.from([...cookie(1, 0), ...bytes(8, 1), ...cookie(1, 0)]),
      field: "cookie",
    },
  ])("by $title is left, and everything in flight fails naming it", async ({ reply, field }) => {
    const { server, connection, env } = await open({}, { requestsMax: 2 });
    const first = connection.read(0, bytes(8, 0));
    const second = connection.write(8, bytes(8, 0));
    const waiting = connection.flush();
    await server.requests(2);
    const states = [first, second, waiting].map((work) => watch(work));
    server.send(reply());
    const error = await rejection(second, "EPROTO");
    expect(error.context).toMatchObject({ field });
    expect(await rejection(waiting, "EPROTO")).toBe(error);
    await settleTurn();
    expect(states.every(({ isSettled }) => isSettled)).toBe(true);
    expect([connection.failure, server.isDestroyed]).toEqual([error, true]);
    await rejection(connection.read(0, bytes(1, 0)), "ESHUTDOWN", "the connection was closed");
    await connection.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("by answering what was not sent yet is left before it learns the data", async () => {
    const { server, connection } = await open();
    server.client.isFull = true;
    const first = connection.read(0, bytes(1, 0));
    await settleTurn();
    const second = connection.write(0, bytes(8, 0));
    await settleTurn();
    server.send(cookie(2, 1));
    await rejection(second, "EPROTO", "not sent yet");
    await rejection(first, "EPROTO");
  });

  it.each([...Array(24).keys()])(
    "or ends after %i bytes of an answer fails the read",
    async (length) => {
      const { server, connection } = await open();
      const work = connection.read(0, bytes(8, 0));
      const { cookieHigh, cookieLow } = await server.request();
      const answer = Uint8Array.from([...cookie(cookieHigh, cookieLow), ...bytes(8, 1)]);
      server.send(answer.subarray(0, length));
      if (length % 2 === 0) server.end();
      else server.cut(new Error("read ECONNRESET"));
      await rejection(work, "ECONNRESET", "server closed the connection with 1 requests in flight");
      expect(server.isDestroyed).toBe(true);
    },
  );
});

describe("time", () => {
  it("a server that stops answering is given up after the request time-out", async () => {
    const { server, connection, env } = await open({}, { requestTimeoutMs: 5000 });
    const work = connection.read(0, bytes(4, 0));
    const other = connection.trim(0, 4);
    const [read] = await server.requests(2);
    await env.clock.advance(4999);
    if (read !== undefined) server.reply(read, 0, bytes(4, 0));
    await work;
    const state = watch(other);
    await env.clock.advance(5000);
    expect(state.isSettled).toBe(false);
    await env.clock.advance(5000);
    await rejection(other, "ETIMEDOUT", "server did not answer 1 requests for 5 s");
    expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
  });

  it("the watch ends when nothing is in flight", async () => {
    const { server, connection, env } = await open({}, { requestTimeoutMs: 5000 });
    const work = connection.flush();
    server.reply(await server.request());
    await work;
    await env.clock.advance(20_000);
    expect([connection.failure, env.clock.sleeping]).toEqual([undefined, 0]);
  });
});

describe("close", () => {
  it("waits for what is in flight and what waits, says goodbye and leaves nothing", async () => {
    const { server, connection, env } = await open({}, { requestsMax: 1 });
    const work = [connection.trim(0, 1), connection.trim(1, 1)];
    const closing = connection.close();
    const state = watch(closing);
    await rejection(connection.flush(), "ESHUTDOWN");
    server.reply(await server.request());
    server.reply(await server.request());
    await Promise.all(work);
    expect(await server.request()).toMatchObject({ type: NbdCommand.DISC });
    await settleTurn();
    expect([state.isSettled, server.isEnded, server.isDestroyed]).toEqual([false, true, false]);
    server.end();
    await closing;
    await connection.close();
    await connection[Symbol.asyncDispose]();
    expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
  });

  it("cuts the connection of a server that does not close within 10 seconds", async () => {
    const { server, connection, env } = await open();
    const closing = connection.close();
    await server.request();
    await env.clock.advance(10_000);
    await closing;
    expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
  });

  it("ends too when the server breaks the connection meanwhile", async () => {
    const { server, connection } = await open();
    const work = connection.trim(0, 1);
    const closing = connection.close();
    server.cut(new Error("read ECONNRESET"));
    await rejection(work, "ECONNRESET", "in flight: read ECONNRESET");
    await closing;
  });

  it("waits with the goodbye until the last burst was taken", async () => {
    const { server, connection } = await open();
    server.client.isFull = true;
    const work = connection.write(0, bytes(4, 1));
    await settleTurn();
    const closing = connection.close();
    server.client.release();
    server.reply(await server.request());
    await work;
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    server.cut();
    await closing;
  });
});

describe("a server that shuts down", () => {
  it("is left softly when everything else was answered", async () => {
    const { server, connection } = await open();
    const refused = connection.read(0, bytes(4, 0));
    const work = connection.trim(0, 4);
    const [first, second] = await server.requests(2);
    if (first !== undefined) server.reply(first, NbdErrno.ESHUTDOWN);
    await settleTurn();
    const late = connection.flush();
    if (second !== undefined) server.reply(second);
    await work;
    await rejection(refused, "ESHUTDOWN", "server is shutting down");
    await rejection(late, "ESHUTDOWN", "server is shutting down");
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    expect(server.isDestroyed).toBe(true);
  });
});
