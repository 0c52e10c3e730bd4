import { completed } from "@blocklayer/driver";
import {
  encodeInfoRequest,
  encodeOption,
  NbdCommand,
  NbdOption,
  NbdOptionReply,
} from "@blocklayer/nbd-protocol";
import { NBD_SERVER_LIMITS } from "@blocklayer/nbd-server";
import { describe, expect, it } from "vitest";
import { Loopback } from "./loopback.ts";
import { expectNothingLeft, makeWorld, TestClient, type World } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const { READ, WRITE } = NbdCommand;

function watchFailures(world: World): string[] {
  const messages: string[] = [];
  world.server.events.on("failed", ({ error }) => messages.push((error as Error).message));
  return messages;
}

it("the defaults are those that are published", () => {
  expect(NBD_SERVER_LIMITS).toEqual({
    connections: 100,
    connectionsPerAddress: 20,
    handshakeMs: 10_000,
    messageMs: 5_000,
    options: 32,
    optionPayload: 65_536,
    requests: 256,
    requestBytes: 67_108_864,
    bufferBytes: 268_435_456,
    unreadBytes: 67_108_864,
    unreadMs: 30_000,
    payload: 33_554_432,
    payloadMs: 30_000,
    lingerMs: 2_000,
  });
});

describe("connections", () => {
  it("the hundredth is served, the next is closed without a word", async () => {
    const world = await makeWorld();
    const refused: string[] = [];
    world.server.events.on("refused", ({ reason }) => refused.push(reason));
    const clients = Array.from({ length: 101 }, () => new TestClient(world));
    await clients[0]?.settle();
    expect(clients[99]?.wire.unread).toBe(18);
    expect(clients[100]?.wire.unread).toBe(0);
    expect(clients[100]?.wire.isClosed).toBe(true);
    expect(refused).toEqual(["there are 100 connections"]);
    clients[5]?.wire.destroy();
    expect(new TestClient(world).wire.unread).toBe(18);
    for (const client of clients) client.wire.destroy();
  });

  it("the twenty-first of an address is closed, other addresses are served", async () => {
    const world = await makeWorld();
    const from = (address: string): Loopback =>
      new TestClient(world, new Loopback({ address })).wire;
    const wires = Array.from({ length: 21 }, () => from("192.0.2.1"));
    expect(wires.map((wire) => wire.unread)).toEqual([...Array(20).fill(18), 0]);
    expect(from("192.0.2.2").unread).toBe(18);
  });
});

describe("the handshake", () => {
  it.each([["nothing is sent", 4_999, 1, "client took too long for the handshake"]])(
    "%s within 5 s",
    async (_, before, more, message) => {
      const world = await makeWorld();
      const failures = watchFailures(world);
      const client = new TestClient(world);
      await world.env.clock.advance(before);
      expect(client.wire.isClosed).toBe(false);
      await world.env.clock.advance(more);
      await client.settle();
      expect(client.wire.isClosed).toBe(true);
      expect(failures).toEqual([message]);
      await expectNothingLeft(world);
    },
  );

  it("one that sends options all the time is cut after 10 s", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    for (let second = 0; second < 9; second += 1) {
      await world.env.clock.advance(1_000);
      client.option(NbdOption.LIST);
    }
    await world.env.clock.advance(999);
    expect(client.wire.isClosed).toBe(false);
    await world.env.clock.advance(1);
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("one that drips bytes is cut like one that sends none", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    const option = encodeOption(NbdOption.LIST);
    for (let index = 0; index < 5; index += 1) {
      await world.env.clock.advance(1_000);
      client.wire.send(option.slice(index, index + 1));
    }
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
  });

  it("time does not matter any more once an export is chosen", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    await world.env.clock.advance(3_600_000);
    client.read(0, 4);
    expect(client.reply(4).error).toBe(0);
    expect(world.env.clock.sleeping).toBe(0);
  });

  it.each([
    [31, false],
    [32, false],
    [33, true],
  ])("%d options: closed %s", async (count, isClosed) => {
    const world = await makeWorld();
    const failures = watchFailures(world);
    const client = new TestClient(world);
    client.greet();
    for (let index = 0; index < count; index += 1) client.wire.send(encodeOption(99));
    await client.settle();
    expect(client.wire.isClosed).toBe(isClosed);
    expect(failures).toEqual(isClosed ? ["client sent more than 32 options"] : []);
  });

  it.each([
    [65_535, NbdOptionReply.ERR_UNSUP, false],
    [65_536, NbdOptionReply.ERR_UNSUP, false],
    [65_537, NbdOptionReply.ERR_TOO_BIG, true],
  ])("an option with %d bytes of data", async (length, type, isEnded) => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.greet();
    expect(client.option(99, new Uint8Array(length)).map((reply) => reply.type)).toEqual([type]);
    expect(client.wire.isEndedByServer).toBe(isEnded);
    if (!isEnded) return;
    // A client that lingers is cut.
    await world.env.clock.advance(2_000);
    await client.settle();
    await expectNothingLeft(world);
  });

  it("who does not read the answers is not read", async () => {
    const world = await makeWorld();
    const client = new TestClient(world, new Loopback({ capacity: 30 }));
    client.greet();
    for (let index = 0; index < 20; index += 1) client.wire.send(encodeOption(NbdOption.LIST));
    expect(client.wire.isPaused).toBe(true);
    expect(client.wire.unread).toBe(30);
    const all: number[] = [];
    for (let turn = 0; turn < 1000 && all.length < 20 * 48; turn += 1) {
      all.push(...client.wire.read());
      await client.settle();
    }
    expect(all.length).toBe(20 * (28 + 20));
    client.wire.send(
      encodeOption(NbdOption.GO, encodeInfoRequest({ exportName: "disk", infos: [] })),
    );
    expect(client.wire.unread).toBe(30);
    client.wire.destroy();
    await expectNothingLeft(world);
  });
});

describe("requests in flight", () => {
  it.each([
    [255, 255, false],
    [256, 256, true],
    [257, 256, true],
    [300, 256, true],
  ])("of %d requests %d reach the disk", async (sent, started, isPaused) => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    for (let index = 0; index < sent; index += 1) client.read(index, 16);
    await client.settle();
    expect(world.disk.held.length).toBe(started);
    expect(client.wire.isPaused).toBe(isPaused);
    expect(world.server.connections[0]?.inFlight).toBe(started);
    // All are served in the end.
    world.disk.isHolding = false;
    world.disk.release();
    await client.settle();
    expect(client.wire.unread).toBe(sent * 32);
    expect(world.server.connections[0]?.inFlight).toBe(0);
    client.wire.destroy();
    await expectNothingLeft(world);
  });

  const MIB = 1024 * 1024;
  it.each<[string, number, number, number, number]>([
    ["READ", READ, 16 * MIB, 4, 4],
    ["READ", READ, 16 * MIB, 5, 4],
    ["READ", READ, 16 * MIB - 1, 4, 4],
    ["WRITE", WRITE, 16 * MIB, 4, 4],
    ["WRITE", WRITE, 16 * MIB, 5, 4],
    ["READ", READ, 32 * MIB, 3, 2],
  ])("%s of %#", async (_, type, length, sent, started) => {
    const disk = Object.defineProperty(new TestDisk(1), "size", { value: 2 ** 40 });
    const world = await makeWorld({}, {}, disk);
    const client = new TestClient(world);
    client.go();
    disk.isHolding = true;
    const payload = new Uint8Array(type === WRITE ? length : 0);
    for (let index = 0; index < sent; index += 1) client.send(type, { length, payload });
    await client.settle();
    expect(disk.held.length).toBe(started);
    expect(world.server.heldBytes).toBe(started * length);
    expect(world.server.heldBytes).toBeLessThanOrEqual(64 * MIB);
    // The room of the first lets the next in.
    disk.release(1, new Error("made up"));
    await client.settle();
    client.wire.read();
    await client.settle();
    expect(disk.held.length).toBe(Math.min(sent - 1, started));
    client.wire.destroy();
    disk.release(disk.held.length, new Error("made up"));
    await client.settle();
    disk.release(disk.held.length, new Error("made up"));
    await expectNothingLeft(world);
  });

  it.each([
    [33_554_432, false],
    [33_554_433, true],
  ])("a WRITE of %d bytes: closed %s", async (length, isClosed) => {
    const world = await makeWorld();
    const failures = watchFailures(world);
    const client = new TestClient(world);
    client.go();
    client.send(WRITE, { length });
    await client.settle();
    expect(client.wire.isClosed).toBe(isClosed);
    expect(failures.length).toBe(isClosed ? 1 : 0);
    client.wire.destroy();
    await expectNothingLeft(world);
  });

  it("all clients together take no more than there is, and the small ones go on", async () => {
    const disk = Object.defineProperty(new TestDisk(1), "size", { value: 2 ** 40 });
    const world = await makeWorld({}, {}, disk);
    disk.isHolding = true;
    const greedy = Array.from({ length: 8 }, () => new TestClient(world));
    for (const client of greedy) {
      client.go();
      for (let index = 0; index < 4; index += 1) client.read(0, 16 * MIB);
    }
    await greedy[0]?.settle();
    expect(world.server.heldBytes).toBeLessThanOrEqual(256 * MIB);
    const started = disk.held.length;
    expect(started).toBeLessThan(16);
    const small = new TestClient(world);
    small.go();
    for (let index = 0; index < 100; index += 1) small.read(0, 4096);
    expect(disk.held.length).toBe(started + 100);
    // Who holds least comes first when something is given back.
    while (disk.held.length > 0) {
      disk.release(1, new Error("made up"));
      await greedy[0]?.settle();
      expect(world.server.heldBytes).toBeLessThanOrEqual(256 * MIB);
    }
    for (const client of greedy) expect(client.wire.read().length).toBe(4 * 16);
    for (const client of [...greedy, small]) client.wire.destroy();
    await expectNothingLeft(world);
  });
});

describe("replies that are not read", () => {
  it("stop the reading of requests", async () => {
    const world = await makeWorld({ limits: { requests: 4 } });
    const client = new TestClient(world);
    client.go();
    client.wire.capacity = 0;
    for (let index = 0; index < 10; index += 1) client.read(0, 16);
    await client.settle();
    expect(world.disk.calls.length).toBe(4);
    expect(client.wire.isPaused).toBe(true);
    client.wire.capacity = 10_000;
    client.wire.read(0);
    await client.settle();
    expect(client.wire.unread).toBe(320);
  });

  it("close after 30 s without progress, and not before", async () => {
    const world = await makeWorld();
    const failures = watchFailures(world);
    const client = new TestClient(world);
    client.go();
    client.wire.capacity = 8;
    client.read(0, 16);
    await world.env.clock.advance(29_999);
    expect(client.wire.isClosed).toBe(false);
    await world.env.clock.advance(1);
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    expect(failures).toEqual(["client took too long for reading replies"]);
    await expectNothingLeft(world);
  });

  it("do not close a slow client that makes progress", async () => {
    const disk = new TestDisk(4 * 1024 * 1024);
    const world = await makeWorld({}, {}, disk);
    const client = new TestClient(world);
    client.go();
    client.wire.capacity = 1024 * 1024;
    client.read(0, 4 * 1024 * 1024);
    let count = 0;
    for (let turn = 0; turn < 5; turn += 1) {
      await world.env.clock.advance(29_000);
      count += client.wire.read().length;
    }
    expect(count).toBe(4 * 1024 * 1024 + 16);
    expect(client.wire.isClosed).toBe(false);
  });

  it.each([
    [999, false],
    [1000, false],
    [1001, true],
  ])("of %d bytes where 1000 are allowed: closed %s", async (length, isClosed) => {
    const world = await makeWorld({ limits: { unreadBytes: 1000 } });
    const failures = watchFailures(world);
    const client = new TestClient(world);
    client.go();
    client.wire.capacity = 0;
    client.read(0, length);
    await client.settle();
    expect(client.wire.isClosed).toBe(isClosed);
    expect(failures).toEqual(isClosed ? ["client leaves 1001 bytes of replies unread"] : []);
    client.wire.destroy();
    await expectNothingLeft(world);
  });
});

describe("the data of a WRITE", () => {
  const MIB = 1024 * 1024;

  it("that stops arriving gives its memory back after 30 s, and not before", async () => {
    const disk = Object.defineProperty(new TestDisk(1), "size", { value: 2 ** 40 });
    const world = await makeWorld({}, {}, disk);
    const failures = watchFailures(world);
    disk.write = () => completed;
    const stalled = Array.from({ length: 5 }, () => new TestClient(world));
    for (const client of stalled) {
      client.go();
      client.send(WRITE, { length: 32 * MIB });
      client.wire.send(new Uint8Array(100));
    }
    const honest = new TestClient(world);
    honest.go();
    honest.send(WRITE, { payload: new Uint8Array(32 * MIB) });
    await world.env.clock.advance(29_999);
    expect(honest.wire.unread).toBe(0);
    expect(stalled.map(({ wire }) => wire.isClosed)).toEqual(new Array(5).fill(false));
    await world.env.clock.advance(1);
    await honest.settle();
    expect(stalled.map(({ wire }) => wire.isClosed)).toEqual(new Array(5).fill(true));
    expect(honest.reply().error).toBe(0);
    expect(failures).toEqual(
      Array.from({ length: 5 }, () => "client took too long for sending the data of a write"),
    );
    honest.wire.destroy();
    await expectNothingLeft(world);
  });

  it("may take its time while it goes on", async () => {
    const disk = new TestDisk(4 * MIB);
    const world = await makeWorld({}, {}, disk);
    const client = new TestClient(world);
    client.go();
    client.send(WRITE, { length: 4 * MIB });
    for (let part = 0; part < 8; part += 1) {
      client.wire.send(new Uint8Array(MIB / 2));
      await world.env.clock.advance(14_999);
    }
    expect(client.reply().error).toBe(0);
    await world.env.clock.advance(100_000);
    expect(client.wire.isClosed).toBe(false);
    client.wire.destroy();
    await expectNothingLeft(world);
  });

  it("that drips is not waited for", async () => {
    const world = await makeWorld({}, {}, new TestDisk(4 * MIB));
    const client = new TestClient(world);
    client.go();
    client.send(WRITE, { length: 4 * MIB });
    for (let second = 0; second < 30; second += 1) {
      expect(client.wire.isClosed).toBe(false);
      client.wire.send(new Uint8Array(1000));
      await world.env.clock.advance(1000);
    }
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("is not late while the server itself does not read", async () => {
    const disk = new TestDisk(4 * MIB);
    const world = await makeWorld({ limits: { requests: 1 } }, {}, disk);
    const client = new TestClient(world);
    client.go();
    disk.isHolding = true;
    client.read(0, 8);
    client.send(WRITE, { length: MIB });
    client.wire.send(new Uint8Array(MIB));
    await world.env.clock.advance(100_000);
    expect(client.wire.isClosed).toBe(false);
    disk.release();
    await client.settle();
    disk.release();
    await client.settle();
    expect(client.reply(8).error).toBe(0);
    expect(client.reply().error).toBe(0);
    client.wire.destroy();
    await expectNothingLeft(world);
  });
});
