import { RequestFlag } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { NbdCommand, NbdCommandFlag, NbdErrno } from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { Loopback } from "./loopback.ts";
import { makeWorld, type RequestSketch, TestClient, type World } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const { READ, WRITE, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS } = NbdCommand;
const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN } = NbdCommandFlag;
const { SUCCESS, EPERM, EINVAL, ENOSPC, EIO, ENOTSUP, ENOMEM, ESHUTDOWN } = NbdErrno;
const SIZE = 65536;

async function connect(
  options: { writable?: boolean; disk?: TestDisk; wire?: Loopback } = {},
): Promise<{ client: TestClient; world: World }> {
  const disk = options.disk ?? new TestDisk(SIZE);
  const world = await makeWorld({}, { writable: options.writable ?? true }, disk);
  const client = new TestClient(world, options.wire);
  client.go();
  return { client, world };
}

const ask = async (client: TestClient, type: number, sketch: RequestSketch): Promise<number> => {
  client.send(type, sketch);
  await client.settle();
  const { error } = client.reply(type === READ ? (sketch.length ?? 0) : 0);
  expect(client.wire.unread).toBe(0);
  return error;
};

describe("what a request is answered", () => {
  it.each<[string, number, RequestSketch, number]>([
    ["READ of the last byte", READ, { offset: SIZE - 1, length: 1 }, SUCCESS],
    ["READ of nothing", READ, { offset: 5 }, SUCCESS],
    ["READ of nothing at the end", READ, { offset: SIZE }, SUCCESS],
    ["READ of nothing beyond the end", READ, { offset: SIZE + 1 }, EINVAL],
    ["READ across the end", READ, { offset: SIZE - 1, length: 2 }, EINVAL],
    ["READ at 2^53", READ, { offset: 2 ** 53 - 1, length: 1 }, EINVAL],
    ["READ with DF", READ, { length: 4, flags: DF }, EINVAL],
    ["READ with an unknown flag", READ, { length: 4, flags: 0x8000 }, EINVAL],
    ["WRITE of the last byte", WRITE, { offset: SIZE - 1, payload: new Uint8Array(1) }, SUCCESS],
    ["WRITE of nothing", WRITE, { offset: 5 }, SUCCESS],
    ["WRITE across the end", WRITE, { offset: SIZE - 1, payload: new Uint8Array(2) }, ENOSPC],
    [
      "WRITE far beyond the end",
      WRITE,
      { offset: 2 ** 53 - 1, payload: new Uint8Array(2) },
      ENOSPC,
    ],
    ["WRITE with NO_HOLE", WRITE, { payload: new Uint8Array(2), flags: NO_HOLE }, EINVAL],
    ["WRITE with PAYLOAD_LEN", WRITE, { payload: new Uint8Array(2), flags: PAYLOAD_LEN }, EINVAL],
    ["FLUSH", FLUSH, {}, SUCCESS],
    ["FLUSH with FUA", FLUSH, { flags: FUA }, SUCCESS],
    ["TRIM of everything", TRIM, { length: SIZE }, SUCCESS],
    ["TRIM across the end", TRIM, { length: SIZE + 1 }, EINVAL],
    ["WRITE_ZEROES of everything", WRITE_ZEROES, { length: SIZE }, SUCCESS],
    ["WRITE_ZEROES of 4 GiB", WRITE_ZEROES, { length: 2 ** 32 - 1 }, ENOSPC],
    ["WRITE_ZEROES with REQ_ONE", WRITE_ZEROES, { length: 1, flags: REQ_ONE }, EINVAL],
    ["CACHE", CACHE, { length: 4096 }, SUCCESS],
    ["CACHE across the end", CACHE, { offset: 1, length: SIZE }, EINVAL],
    ["BLOCK_STATUS without contexts", BLOCK_STATUS, { length: 4096 }, EINVAL],
    ["RESIZE", NbdCommand.RESIZE, { length: 4096 }, EINVAL],
    ["an unknown command", 99, { length: 4 }, EINVAL],
  ])("%s: %#", async (_, type, sketch, error) => {
    const { client } = await connect();
    expect(await ask(client, type, sketch)).toBe(error);
    // The stream is in step afterwards.
    client.read(8, 4);
    expect(client.reply(4).data.length).toBe(4);
  });

  it.each([
    ["WRITE", WRITE, { payload: new Uint8Array(8) }],
    ["WRITE beyond the end", WRITE, { offset: SIZE, payload: new Uint8Array(8) }],
    ["WRITE_ZEROES", WRITE_ZEROES, { length: 8 }],
    ["TRIM", TRIM, { length: 8 }],
  ])("%s of a read-only export is EPERM, and reaches no disk", async (_, type, sketch) => {
    const { client, world } = await connect({ writable: false });
    expect(await ask(client, type, sketch)).toBe(EPERM);
    expect(world.disk.calls).toEqual([]);
  });

  it.each([
    [33_554_432, SUCCESS],
    [33_554_433, EINVAL],
  ])("READ of %d bytes: %d", async (length, error) => {
    const disk = new TestDisk(1);
    const large = Object.defineProperty(disk, "size", { value: 2 ** 40 });
    const { client } = await connect({ disk: large });
    client.read(0, length);
    await client.settle();
    expect(client.reply(error === SUCCESS ? length : 0).error).toBe(error);
    expect(client.wire.unread).toBe(0);
  });

  it.each([
    ["EIO", EIO],
    ["EROFS", EPERM],
    ["EFBIG", ENOSPC],
    ["ENOMEM", ENOMEM],
    ["ESHUTDOWN", ESHUTDOWN],
    ["ENOMEDIUM", EINVAL],
    ["ENOTSUP", EINVAL],
  ])("a disk's %s becomes %d", async (code, error) => {
    const { client, world } = await connect();
    world.disk.error = new BlockError(code, "made up");
    for (const [type, sketch] of [
      [READ, { length: 8 }],
      [READ, { length: 65536 - 8 }],
      [WRITE, { payload: new Uint8Array(8) }],
      [FLUSH, {}],
      [TRIM, { length: 8 }],
      [WRITE_ZEROES, { length: 8 }],
      [CACHE, { length: 8 }],
    ] as const) {
      expect(await ask(client, type, sketch)).toBe(error);
    }
    world.disk.error = undefined;
    expect(await ask(client, READ, { length: 8 })).toBe(SUCCESS);
    expect(world.server.heldBytes).toBe(0);
  });

  it("only a fast zero may be answered ENOTSUP", async () => {
    const { client, world } = await connect();
    world.disk.error = new BlockError("ENOTSUP", "made up");
    expect(await ask(client, WRITE_ZEROES, { length: 8, flags: FAST_ZERO })).toBe(ENOTSUP);
    expect(await ask(client, WRITE_ZEROES, { length: 8 })).toBe(EINVAL);
  });

  it("an error that is none of ours becomes EIO", async () => {
    const { client, world } = await connect();
    world.disk.error = new TypeError("made up");
    expect(await ask(client, READ, { length: 8 })).toBe(EIO);
  });
});

describe("what the disk is asked", () => {
  it.each<[string, number, RequestSketch, [string, number][]]>([
    ["WRITE", WRITE, { payload: new Uint8Array(4) }, [["write", 0]]],
    [
      "WRITE with FUA",
      WRITE,
      { payload: new Uint8Array(4), flags: FUA },
      [["write", RequestFlag.fua]],
    ],
    ["READ", READ, { length: 4 }, [["read", 0]]],
    [
      "READ with FUA",
      READ,
      { length: 4, flags: FUA },
      [
        ["flush", 0],
        ["read", 0],
      ],
    ],
    ["TRIM", TRIM, { length: 4 }, [["discard", 0]]],
    [
      "TRIM with FUA",
      TRIM,
      { length: 4, flags: FUA },
      [
        ["discard", 0],
        ["flush", 0],
      ],
    ],
    ["CACHE", CACHE, { length: 4 }, [["read", RequestFlag.prefetch | RequestFlag.copyOnRead]]],
    ["WRITE_ZEROES", WRITE_ZEROES, { length: 4 }, [["writeZeroes", RequestFlag.mayUnmap]]],
    [
      "WRITE_ZEROES with NO_HOLE",
      WRITE_ZEROES,
      { length: 4, flags: NO_HOLE },
      [["writeZeroes", 0]],
    ],
    [
      "WRITE_ZEROES with FAST_ZERO",
      WRITE_ZEROES,
      { length: 4, flags: FAST_ZERO },
      [["writeZeroes", RequestFlag.mayUnmap | RequestFlag.noFallback]],
    ],
    [
      "WRITE_ZEROES with FUA",
      WRITE_ZEROES,
      { length: 4, flags: FUA },
      [["writeZeroes", RequestFlag.mayUnmap | RequestFlag.fua]],
    ],
  ])("%s", async (_, type, sketch, calls) => {
    const { client, world } = await connect();
    expect(await ask(client, type, sketch)).toBe(SUCCESS);
    expect(world.disk.calls.map(({ operation, flags }) => [operation, flags])).toEqual(calls);
  });
});

it("a probe sees every request begin and end", async () => {
  const seen: number[][] = [];
  const probe = {
    started: (command: number, length: number): number => seen.push([command, length]),
    ended: (token: number, error: number): void => void seen[token - 1]?.push(error),
  };
  const world = await makeWorld({ probe });
  const client = new TestClient(world);
  client.go();
  client.read(0, 512);
  client.read(SIZE, 1);
  client.read(0, SIZE);
  client.send(WRITE, { payload: new Uint8Array(3) });
  client.send(FLUSH);
  world.disk.isHolding = true;
  client.read(0, 7);
  client.read(0, 8);
  world.disk.release(1);
  world.disk.release(1, new BlockError("EIO", "made up"));
  await client.settle();
  expect(seen).toEqual([
    [READ, 512, SUCCESS],
    [READ, 1, EINVAL],
    [READ, SIZE, SUCCESS],
    [WRITE, 3, SUCCESS],
    [FLUSH, 0, SUCCESS],
    [READ, 7, SUCCESS],
    [READ, 8, EIO],
  ]);
});

describe("bursts", () => {
  it("all requests of a chunk are answered with one write", async () => {
    const { client } = await connect();
    const before = client.wire.writes;
    const requests = Array.from({ length: 32 }, (_, index) =>
      client.request(READ, { offset: index * 64, length: 64 }),
    );
    client.wire.send(join(requests));
    expect(client.wire.writes - before).toBe(1);
    for (let index = 0; index < 32; index += 1) {
      const { cookie, data } = client.reply(64);
      expect(cookie).toBe(index + 1);
      expect(data).toEqual(new TestDisk(SIZE).bytes.slice(index * 64, index * 64 + 64));
    }
  });

  it("requests that end in the same turn are answered with one write", async () => {
    const { client, world } = await connect();
    world.disk.isHolding = true;
    for (let index = 0; index < 8; index += 1) client.read(index, 16);
    const before = client.wire.writes;
    world.disk.release();
    await client.settle();
    expect(client.wire.writes - before).toBe(1);
    expect(client.wire.unread).toBe(8 * 32);
  });

  it("a slow request holds up no other, and its reply carries its own data", async () => {
    const { client, world } = await connect();
    world.disk.isHolding = true;
    const slow = client.read(100, 8);
    world.disk.isHolding = false;
    const quick = client.read(200, 8);
    expect(client.reply(8)).toMatchObject({ cookie: quick });
    world.disk.release();
    await client.settle();
    const { cookie, data } = client.reply(8);
    expect(cookie).toBe(slow);
    expect(data).toEqual(world.disk.bytes.slice(100, 108));
  });

  it.each([[true], [false]])(
    "data of held writes stays as it was sent (lent memory: %s)",
    async (lendsMemory) => {
      const { client, world } = await connect({ wire: new Loopback({ lendsMemory }) });
      world.disk.isHolding = true;
      for (let index = 0; index < 200; index += 1) {
        client.send(WRITE, { offset: index * 256, payload: new Uint8Array(256).fill(index + 1) });
      }
      // Many more bytes pass through the same memory meanwhile.
      world.disk.isHolding = false;
      for (let index = 0; index < 20; index += 1) {
        client.send(WRITE, { offset: 0, payload: new Uint8Array(60_000).fill(255) });
      }
      await client.settle();
      world.disk.release();
      await client.settle();
      for (let index = 0; index < 200; index += 1) {
        expect(world.disk.bytes[index * 256 + 255]).toBe(index + 1);
      }
      client.wire.destroy();
      await client.settle();
      expect(world.server.heldBytes).toBe(0);
    },
  );

  it.each([[1], [7], [28], [4096]])("requests may arrive in pieces of %d bytes", async (piece) => {
    const { client, world } = await connect();
    const payload = Uint8Array.from({ length: 300 }, (_, index) => index & 0xff);
    const bytes = join([
      client.request(WRITE, { offset: 1000, payload }),
      client.request(READ, { offset: 1000, length: 300 }),
    ]);
    for (let at = 0; at < bytes.length; at += piece) client.wire.send(bytes.slice(at, at + piece));
    expect(client.reply()).toMatchObject({ error: 0 });
    expect(client.reply(300).data).toEqual(payload);
    expect(world.server.connections[0]).toMatchObject({
      requests: 2,
      errors: 0,
      bytesRead: 300,
      bytesWritten: 300,
    });
  });

  it("a client that keeps everybody busy lets others in between", async () => {
    const { client, world } = await connect();
    const other = new TestClient(world);
    other.go();
    const many = Array.from({ length: 2000 }, () => client.request(READ, { length: 16 }));
    client.wire.send(join(many));
    // Not all were done in one go.
    expect(client.wire.unread).toBeLessThan(2000 * 32);
    other.read(0, 8);
    expect(other.reply(8).error).toBe(0);
    await client.settle();
    expect(client.wire.unread).toBe(2000 * 32);
  });
});

function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
