import {
  encodeClientFlags,
  encodeInfoRequest,
  encodeOption,
  NbdCommand,
  NbdErrno,
  NbdOption,
} from "@blocklayer/nbd-protocol";
import { NbdServer } from "@blocklayer/nbd-server";
import { describe, expect, it } from "vitest";
import { expectNothingLeft, makeWorld, TestClient } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const { READ, WRITE, DISC, FLUSH } = NbdCommand;

/** Everything that a client says from the first byte to a write and a read. */
function conversation(client: TestClient): Uint8Array {
  const parts = [
    encodeClientFlags(3),
    encodeOption(NbdOption.LIST),
    encodeOption(99, new Uint8Array(20)),
    encodeOption(NbdOption.GO, encodeInfoRequest({ exportName: "disk", infos: [3] })),
    client.request(WRITE, { offset: 64, payload: new Uint8Array(40).fill(9) }),
    client.request(READ, { offset: 64, length: 40 }),
  ];
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

const LENGTH = 4 + 16 + 36 + 16 + 12 + 28 + 40 + 28;

describe("a client that vanishes", () => {
  it("leaves nothing behind, at whatever byte, and other clients go on", async () => {
    const world = await makeWorld();
    const other = new TestClient(world);
    other.go();
    for (let cut = 0; cut <= LENGTH; cut += 1) {
      for (const isSoft of [true, false]) {
        const client = new TestClient(world);
        client.wire.send(conversation(client).slice(0, cut));
        if (isSoft) client.wire.end();
        else client.wire.destroy();
        await client.settle();
        expect(client.wire.isClosed || client.wire.isEndedByServer).toBe(true);
        expect(world.server.connections.length).toBe(1);
        expect(world.server.heldBytes).toBe(0);
        expect(world.env.clock.sleeping).toBe(0);
      }
    }
    other.read(64, 40);
    expect(other.reply(40).data).toEqual(new Uint8Array(40).fill(9));
    other.wire.destroy();
    await expectNothingLeft(world);
  });

  it("while its requests are at the disk keeps its memory until they end", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    client.read(0, 100);
    client.send(WRITE, { payload: new Uint8Array(200) });
    client.send(WRITE, { payload: new Uint8Array(50_000) });
    client.send(FLUSH);
    client.wire.destroy();
    await client.settle();
    expect(world.server.connections).toMatchObject([{ stage: "closed", inFlight: 4 }]);
    expect(world.server.heldBytes).toBeGreaterThan(300);
    world.disk.release(2);
    world.disk.release(2, new Error("made up"));
    await expectNothingLeft(world);
  });

  it.each([
    ["a wrong magic number", new Uint8Array(28)],
    [
      "a request of extended headers",
      new Uint8Array([0x21, 0xe4, 0x1c, 0x71, ...new Array(24).fill(0)]),
    ],
    ["text", new TextEncoder().encode("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")],
  ])("or sends %s in the transmission phase loses only its own connection", async (_, bytes) => {
    const world = await makeWorld();
    const failures: unknown[] = [];
    world.server.events.on("failed", ({ error }) => failures.push(error));
    const other = new TestClient(world);
    other.go();
    const client = new TestClient(world);
    client.go();
    client.wire.send(bytes);
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    expect(failures).toMatchObject([{ code: "EPROTO" }]);
    other.read(0, 8);
    expect(other.reply(8).error).toBe(0);
    other.wire.destroy();
    await expectNothingLeft(world);
  });
});

describe("the end of a connection", () => {
  it("DISC is not answered, but requests before it are", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    client.read(0, 8);
    client.send(DISC);
    client.read(0, 8);
    await client.settle();
    expect(client.wire.isEndedByServer).toBe(false);
    world.disk.release();
    await client.settle();
    expect(client.reply(8).cookie).toBe(1);
    expect(client.wire.unread).toBe(0);
    expect(client.wire.isEndedByServer).toBe(true);
    client.wire.end();
    await expectNothingLeft(world);
  });

  it("an end without DISC is treated alike", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    client.read(0, 8);
    client.wire.end();
    await client.settle();
    world.disk.release();
    await client.settle();
    expect(client.reply(8).error).toBe(0);
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("a client that stays after the end is cut after 2 s", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    client.send(DISC);
    await world.env.clock.advance(1_999);
    expect(client.wire.isClosed).toBe(false);
    await world.env.clock.advance(1);
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("a defect of the backend costs one connection and is reported", async () => {
    const world = await makeWorld();
    const failures: unknown[] = [];
    world.server.events.on("failed", ({ error }) => failures.push(error));
    world.disk.read = () => {
      throw new TypeError("a defect");
    };
    const client = new TestClient(world);
    client.go();
    client.read(0, 8);
    await client.settle();
    expect(failures).toEqual([new TypeError("a defect")]);
    expect(client.wire.isClosed).toBe(true);
    expect(world.server.connections).toEqual([]);
  });
});

describe("stop", () => {
  it("at every byte of a conversation leaves nothing behind", async () => {
    for (let cut = 0; cut <= LENGTH; cut += 1) {
      const world = await makeWorld();
      const client = new TestClient(world);
      client.wire.send(conversation(client).slice(0, cut));
      const stopped = world.server.stop();
      await client.settle();
      expect(client.wire.isClosed || client.wire.isEndedByServer).toBe(true);
      client.wire.destroy();
      await stopped;
      expect(world.disk.isClosed).toBe(true);
      expect([cut, world.server.heldBytes]).toEqual([cut, 0]);
      await expectNothingLeft(world);
    }
  });

  it("lets requests in flight end, answers later ones ESHUTDOWN, then says goodbye", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    const first = client.read(0, 8);
    const stopped = world.server.stop();
    const late = client.read(0, 8);
    client.send(WRITE, { payload: new Uint8Array(16) });
    await client.settle();
    expect(client.reply()).toMatchObject({ cookie: late, error: NbdErrno.ESHUTDOWN });
    expect(client.reply()).toMatchObject({ error: NbdErrno.ESHUTDOWN });
    expect(client.wire.isEndedByServer).toBe(false);
    expect(world.disk.isClosed).toBe(false);
    world.disk.release();
    await client.settle();
    expect(client.reply(8)).toMatchObject({ cookie: first, error: 0 });
    expect(client.wire.isEndedByServer).toBe(true);
    client.wire.end();
    await stopped;
    expect(world.disk.isClosed).toBe(true);
    await expectNothingLeft(world);
  });

  it("does not answer after the end what waited for memory until then", async () => {
    const world = await makeWorld({ limits: { bufferBytes: 4096, connections: 2 } });
    const [first, second] = [new TestClient(world), new TestClient(world)];
    first.go();
    second.go();
    world.disk.isHolding = true;
    first.read(0, 4096);
    second.read(0, 4096);
    expect(world.disk.held).toHaveLength(1);
    const stopped = world.server.stop();
    expect(second.wire.isEndedByServer).toBe(true);
    const { writes } = second.wire;
    world.disk.release();
    await second.settle();
    expect(first.reply(4096)).toMatchObject({ error: 0 });
    expect(second.wire.writes).toBe(writes);
    first.wire.end();
    second.wire.end();
    await stopped;
    await expectNothingLeft(world);
  });

  it("cuts who is left after the grace, and waits for the disk", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    world.disk.isHolding = true;
    client.read(0, 8);
    let isStopped = false;
    const stopped = world.server.stop(500).then(() => {
      isStopped = true;
    });
    await world.env.clock.advance(499);
    expect(client.wire.isClosed).toBe(false);
    await world.env.clock.advance(1);
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    expect(isStopped).toBe(false);
    world.disk.release();
    await stopped;
    await expectNothingLeft(world);
  });

  it("lets nobody in any more, and may be called again", async () => {
    const world = await makeWorld();
    const stopped = world.server.stop();
    expect(world.server.stop()).toBe(stopped);
    const client = new TestClient(world);
    await stopped;
    expect(client.wire.unread).toBe(0);
    expect(client.wire.isClosed).toBe(true);
    const disk = new TestDisk();
    await expect(world.server.addExport({ name: "late", backend: disk })).rejects.toMatchObject({
      code: "ESHUTDOWN",
      message: "NBD server not running",
    });
    // Its owner still has it.
    expect(disk.isClosed).toBe(false);
    await expectNothingLeft(world);
  });
});

describe("exports", () => {
  it.each([
    [
      "a second of the same name",
      { name: "disk" },
      "EEXIST",
      "NBD server already has export named 'disk'",
    ],
    [
      "a name of 4097 bytes",
      { name: "d".repeat(4097) },
      "EINVAL",
      `export name '${"d".repeat(4097)}' too long`,
    ],
    [
      "a description of 4097 bytes",
      { name: "x", description: "ü".repeat(2049) },
      "EINVAL",
      `description '${"ü".repeat(2049)}' too long`,
    ],
    ["a name with a NUL", { name: "a\0b" }, "EINVAL", "export name contains a NUL character"],
  ])("%s is refused", async (_, options, code, message) => {
    const world = await makeWorld();
    await expect(
      world.server.addExport({ backend: new TestDisk(), ...options }),
    ).rejects.toMatchObject({ code, message });
    expect(world.server.exports.map(({ name }) => name)).toEqual(["disk"]);
  });

  it("a writable export needs a backend that writes", async () => {
    const world = await makeWorld();
    const { size, limits, read, flush, close } = new TestDisk();
    const backend = { size, limits, read, flush, close };
    await expect(
      world.server.addExport({ name: "x", backend, writable: true }),
    ).rejects.toBeInstanceOf(TypeError);
  });

  it("an export needs a disk and a name", async () => {
    const server = new NbdServer({ env: (await makeWorld()).env });
    await expect(server.addExport({ name: "x" })).rejects.toThrow("needs a node or a backend");
    await expect(server.addExport({ backend: new TestDisk() })).rejects.toThrow("needs a name");
  });

  it("tell who comes and goes", async () => {
    const world = await makeWorld();
    const [exported] = world.server.exports;
    const events: string[] = [];
    exported?.events.on("connected", ({ id, stage }) => events.push(`connected ${id} ${stage}`));
    exported?.events.on("disconnected", ({ id, stage }) => events.push(`gone ${id} ${stage}`));
    const client = new TestClient(world);
    client.greet();
    expect(events).toEqual([]);
    client.option(NbdOption.GO, encodeInfoRequest({ exportName: "disk", infos: [] }));
    expect(exported?.connections).toMatchObject([{ id: 1, peer: "test", exportName: "disk" }]);
    client.wire.destroy();
    expect(events).toEqual(["connected 1 transmission", "gone 1 closed"]);
  });

  it("are removed safely only without clients", async () => {
    const world = await makeWorld();
    const client = new TestClient(world);
    client.go();
    await expect(world.server.removeExport("disk")).rejects.toMatchObject({
      code: "EBUSY",
      message: "export 'disk' still in use",
      hint: "Use mode='hard' to force client disconnect",
      context: { connections: 1 },
    });
    client.wire.destroy();
    await client.settle();
    await world.server.removeExport("disk");
    expect(world.disk.isClosed).toBe(true);
    await expect(world.server.removeExport("disk")).rejects.toMatchObject({
      code: "ENOENT",
      message: "Export 'disk' is not found",
    });
  });

  it("hard removal cuts the clients, waits for their requests, and leaves others alone", async () => {
    const world = await makeWorld();
    await world.server.addExport({ name: "other", backend: new TestDisk() });
    const client = new TestClient(world);
    client.go();
    const other = new TestClient(world);
    other.go("other");
    world.disk.isHolding = true;
    client.read(0, 8);
    const removed = world.server.removeExport("disk", "hard");
    await client.settle();
    expect(client.wire.isClosed).toBe(true);
    expect(world.disk.isClosed).toBe(false);
    // Its name is taken until it is gone.
    await expect(
      world.server.addExport({ name: "disk", backend: new TestDisk() }),
    ).rejects.toMatchObject({ code: "EEXIST" });
    world.disk.release();
    await removed;
    expect(world.disk.isClosed).toBe(true);
    other.read(0, 8);
    expect(other.reply(8).error).toBe(0);
    await world.server.addExport({ name: "disk", backend: new TestDisk() });
    expect(await world.server.disconnect(2)).toBe(true);
    expect(await world.server.disconnect(2)).toBe(false);
    await expectNothingLeft(world);
  });
});

describe("a disk that fails to close", () => {
  it("does not keep the server from ending, nor other disks from being given back", async () => {
    const world = await makeWorld();
    const bad = new TestDisk();
    bad.close = () => Promise.reject(new Error("made up"));
    const last = new TestDisk();
    await world.server.addExport({ name: "bad", backend: bad });
    await world.server.addExport({ name: "last", backend: last });
    const client = new TestClient(world);
    client.go("last");
    const stopping = world.server.stop();
    client.wire.end();
    await expect(stopping).rejects.toThrow("made up");
    expect(world.disk.isClosed).toBe(true);
    expect(last.isClosed).toBe(true);
    expect(world.server.exports).toEqual([]);
    await expectNothingLeft(world);
  });

  it("is waited for by stop when its export is being removed already", async () => {
    const world = await makeWorld();
    world.disk.isHolding = true;
    const client = new TestClient(world);
    client.go();
    client.read(0, 8);
    const removing = world.server.removeExport("disk", "hard");
    let isStopped = false;
    const stopping = world.server.stop().then(() => {
      isStopped = true;
    });
    await client.settle();
    expect(isStopped).toBe(false);
    world.disk.release();
    await stopping;
    expect(world.disk.isClosed).toBe(true);
    await removing;
    await expectNothingLeft(world);
  });

  it("is waited for by stop although no client is left", async () => {
    const world = await makeWorld();
    const { promise, resolve } = Promise.withResolvers<void>();
    world.disk.close = () => promise;
    const removing = world.server.removeExport("disk");
    let isStopped = false;
    const stopping = world.server.stop().then(() => {
      isStopped = true;
    });
    for (let turn = 0; turn < 4; turn += 1) await world.env.clock.advance(0);
    expect(isStopped).toBe(false);
    resolve();
    await Promise.all([removing, stopping]);
    await expectNothingLeft(world);
  });
});
