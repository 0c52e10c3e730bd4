import type { BlockDriver } from "@blocklayer/driver";
import { TestHost } from "@blocklayer/driver-tests";
import { type ManualEnv, manualEnv, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { nbdDefinition } from "@blocklayer/nbd-client";
import { NbdCommand, NbdErrno, NbdTransmissionFlag } from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { rejection, watch } from "./expectations.ts";
import { ALL_FLAGS, type FakeExport, type FakeServer, FakeServers } from "./fake-server.ts";

const { CAN_MULTI_CONN, READ_ONLY, SEND_FLUSH, SEND_TRIM } = NbdTransmissionFlag;
const REFUSED = new BlockError("ECONNREFUSED", "Failed to connect: Connection refused");

interface World {
  readonly servers: FakeServers;
  readonly env: ManualEnv;
  readonly host: TestHost;
  readonly driver: Required<Pick<BlockDriver, "pread" | "pwrite" | "pdiscard" | "flush">> &
    BlockDriver;
  readonly server: FakeServer;
}

async function open(delay: number, facts: FakeExport = {}, options: object = {}): Promise<World> {
  const servers = new FakeServers();
  const env = manualEnv();
  const definition = nbdDefinition({ connect: servers.connect });
  const opening = TestHost.open(definition, {
    env,
    options: { path: "/nbd", "reconnect-delay": delay, ...options },
  });
  const server = await servers.server(0);
  await server.accept(facts);
  const host = await opening;
  return { servers, env, host, server, driver: host.driver as World["driver"] };
}

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

/** Carries a write or a flush out. */
async function acknowledge(server: FakeServer, work: Promise<void>): Promise<void> {
  server.reply(await server.request());
  await work;
}

/** Answers the goodbye. */
async function closeSoftly({ host }: World, server: FakeServer): Promise<void> {
  const closing = host.close();
  const request = await server.request();
  expect(request.type).toBe(NbdCommand.DISC);
  server.end();
  await closing;
}

describe("a lost connection, with a delay", () => {
  it("repeats what has no answer, and sends what waited", async () => {
    const world = await open(10);
    const { driver, server, servers, env } = world;
    const buffer = bytes(512, 0);
    const work = [
      driver.pread(0, buffer),
      driver.pwrite(512, bytes(512, 7), { flags: 16 }),
      driver.pdiscard(1024, 512),
      driver.flush(),
    ];
    await server.requests(4);
    server.cut();
    await settleTurn();
    const late = driver.pread(2048, bytes(512, 0));
    const next = await servers.server(1);
    await next.accept();
    const requests = await next.requests(5);
    expect(requests.map(({ type, offset, flags }) => [type, offset, flags])).toEqual([
      [NbdCommand.READ, 0, 0],
      [NbdCommand.WRITE, 512, 1],
      [NbdCommand.TRIM, 1024, 0],
      [NbdCommand.FLUSH, 0, 0],
      [NbdCommand.READ, 2048, 0],
    ]);
    expect(requests[1]?.payload).toEqual(bytes(512, 7));
    for (const request of requests) {
      next.reply(request, 0, request.type === NbdCommand.READ ? bytes(512, 3) : undefined);
    }
    await Promise.all([...work, late]);
    expect(buffer).toEqual(bytes(512, 3));
    const flushing = driver.flush();
    await acknowledge(next, flushing);
    await closeSoftly(world, next);
    expect(env.clock.sleeping).toBe(0);
  });

  it("tries at once, then after 1, 2, 4, 8, 16, 16 seconds", async () => {
    const { driver, server, servers, env, host } = await open(1000);
    servers.refusals.push(...Array(7).fill(REFUSED));
    const work = driver.pread(0, bytes(512, 0));
    const state = watch(work);
    await server.request();
    server.cut();
    const attemptTimes: number[] = [];
    for (let second = 0; second < 48; second += 1) {
      const before = servers.attempts;
      await env.clock.advance(second === 0 ? 0 : 1000);
      if (servers.attempts > before) attemptTimes.push(second);
    }
    expect(attemptTimes).toEqual([0, 1, 3, 7, 15, 31, 47]);
    expect(state.isSettled).toBe(false);
    await host.close();
    await rejection(work, "EIO");
    expect(env.clock.sleeping).toBe(0);
  });

  it("fails what waits when the delay is over, and what comes then at once, until there is a server", async () => {
    const { driver, server, servers, env, host } = await open(5);
    servers.refusals.push(...Array(3).fill(REFUSED));
    const sent = driver.pread(0, bytes(512, 0));
    await server.request();
    server.cut(new Error("read ECONNRESET"));
    await settleTurn();
    const waiting = driver.pread(512, bytes(512, 0));
    const [one, two] = [watch(sent), watch(waiting)];
    await env.clock.advance(4999);
    expect([one.isSettled, two.isSettled]).toEqual([false, false]);
    await env.clock.advance(1);
    const error = await rejection(sent, "EIO", "pread of 512 bytes at 0 failed: Failed to connect");
    expect(error.context).toEqual({ node: "test", operation: "pread", offset: 0, length: 512 });
    expect(error.cause).toBe(REFUSED);
    await rejection(waiting, "EIO");
    await rejection(driver.pread(0, bytes(512, 0)), "EIO");
    await env.clock.advance(2000);
    const next = await servers.server(1);
    await next.accept();
    await settleTurn();
    const again = driver.pread(0, bytes(512, 0));
    next.reply(await next.request(), 0, bytes(512, 1));
    await again;
    const closing = host.close();
    await next.request();
    next.end();
    await closing;
    expect(env.clock.sleeping).toBe(0);
  });

  it("cancelInFlight fails what waits", async () => {
    const { driver, server, servers, host, env } = await open(60);
    servers.refusals.push(REFUSED, REFUSED);
    const work = driver.pread(0, bytes(512, 0));
    await server.request();
    driver.cancelInFlight?.();
    server.cut();
    await settleTurn();
    driver.cancelInFlight?.();
    await rejection(work, "EIO");
    await rejection(driver.pread(0, bytes(512, 0)), "EIO");
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("a signal ends the wait, also of what was sent", async () => {
    const { driver, server, servers, host } = await open(60);
    servers.refusals.push(REFUSED);
    const controller = new AbortController();
    const work = driver.pwrite(0, bytes(512, 0), { signal: controller.signal });
    await server.request();
    server.cut();
    await settleTurn();
    const reason = new Error("enough");
    controller.abort(reason);
    await expect(work).rejects.toBe(reason);
    await host.close();
  });

  it("is not prolonged by servers that accept and do not answer", async () => {
    const { driver, server, servers, env, host } = await open(5);
    const work = driver.pread(0, bytes(512, 0));
    const state = watch(work);
    await server.request();
    server.cut();
    for (let index = 1; index <= 3; index += 1) {
      const next = await servers.server(index);
      await next.accept();
      await next.request();
      next.cut();
      await env.clock.advance(index === 1 ? 1000 : 2000);
    }
    expect(state.isSettled).toBe(true);
    await rejection(work, "EIO");
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("counts anew when the new connection lived for a while", async () => {
    const world = await open(5);
    const { driver, server, servers, env } = world;
    server.cut();
    const second = await servers.server(1);
    await second.accept();
    await env.clock.advance(20_000);
    second.cut();
    await settleTurn();
    const work = driver.pread(0, bytes(512, 0));
    const third = await servers.server(2);
    await third.accept();
    third.reply(await third.request(), 0, bytes(512, 0));
    await work;
    await closeSoftly(world, third);
  });

  it("counts anew when a connection is lost that had nothing to answer", async () => {
    const { driver, server, servers, env, host } = await open(5);
    server.cut();
    await settleTurn();
    const second = await servers.server(1);
    await second.accept();
    await env.clock.advance(10_000);
    servers.refusals.push(...Array(4).fill(REFUSED));
    second.cut();
    await settleTurn();
    const work = driver.pread(0, bytes(512, 0));
    const state = watch(work);
    await env.clock.advance(4999);
    expect(state.isSettled).toBe(false);
    await env.clock.advance(1);
    await rejection(work, "EIO");
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("repeats what a server that shuts down refused", async () => {
    const world = await open(5);
    const { driver, server, servers } = world;
    const work = driver.pread(0, bytes(512, 0));
    server.reply(await server.request(), NbdErrno.ESHUTDOWN);
    const next = await servers.server(1);
    await next.accept();
    next.reply(await next.request(), 0, bytes(512, 0));
    await work;
    await closeSoftly(world, next);
  });

  it("is given up for a half-open one by the request time-out", async () => {
    const world = await open(30, {}, { "x-blocklayer-request-timeout": 4 });
    const { driver, server, servers, env } = world;
    const work = driver.pread(0, bytes(512, 0));
    await server.request();
    await env.clock.advance(4000);
    expect(server.isDestroyed).toBe(true);
    const next = await servers.server(1);
    await next.accept();
    next.reply(await next.request(), 0, bytes(512, 0));
    await work;
    await closeSoftly(world, next);
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("a lost connection, without a delay", () => {
  it("fails everything at once, and works again with the next connection", async () => {
    const world = await open(0);
    const { driver, server, servers, env } = world;
    const work = driver.pwrite(0, bytes(512, 0));
    await server.request();
    server.send(bytes(16, 0xaa));
    const error = await rejection(work, "EIO", "reply magic is aaaaaaaa");
    expect(error.cause).toMatchObject({ code: "EPROTO", context: { field: "reply magic" } });
    await rejection(driver.flush(), "EIO");
    const next = await servers.server(1);
    await next.accept();
    await settleTurn();
    const again = driver.pread(0, bytes(512, 0));
    next.reply(await next.request(), 0, bytes(512, 0));
    await again;
    await closeSoftly(world, next);
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("changes without an answer", () => {
  const rows = [
    { title: "overlapped by a later acknowledged write", later: 768, outcome: "fails" },
    { title: "next to a later acknowledged write", later: 1024, outcome: "is repeated" },
  ];
  it.each(rows)("a write $title $outcome", async ({ later, outcome }) => {
    const { driver, server, servers, host } = await open(10, { flags: ALL_FLAGS | CAN_MULTI_CONN });
    const first = driver.pwrite(512, bytes(512, 1));
    const second = driver.pwrite(later, bytes(512, 2));
    const [, request] = await server.requests(2);
    if (request !== undefined) server.reply(request);
    await second;
    server.cut();
    const next = await servers.server(1);
    await next.accept({ flags: ALL_FLAGS | CAN_MULTI_CONN });
    if (outcome === "fails") {
      await rejection(first, "EIO", "repeating it could undo a later request");
    } else {
      next.reply(await next.request());
      await first;
    }
    await settleTurn();
    const closing = host.close();
    // Acknowledged and not flushed: the server vouches for all connections.
    next.reply(await next.request());
    expect((await next.request()).type).toBe(NbdCommand.DISC);
    next.end();
    await closing;
  });
});

describe("flushes and lost connections", () => {
  const flags = ALL_FLAGS;
  it.each([
    {
      title: "nothing was written",
      write: undefined,
      flush: false,
      exportFlags: flags,
      succeeds: true,
    },
    {
      title: "a write was not flushed",
      write: 0,
      flush: false,
      exportFlags: flags,
      succeeds: false,
    },
    { title: "the write was flushed", write: 0, flush: true, exportFlags: flags, succeeds: true },
    { title: "the write was stable", write: 16, flush: false, exportFlags: flags, succeeds: true },
    {
      title: "the server vouches for all connections",
      write: 0,
      flush: false,
      exportFlags: flags | CAN_MULTI_CONN,
      succeeds: true,
    },
  ])("a flush in flight when $title succeeds: $succeeds", async (row) => {
    const { driver, server, servers, host } = await open(10, { flags: row.exportFlags });
    if (row.write !== undefined) {
      await acknowledge(server, driver.pwrite(0, bytes(512, 1), { flags: row.write }));
    }
    if (row.flush) await acknowledge(server, driver.flush());
    const work = driver.flush();
    await server.request();
    server.cut();
    const next = await servers.server(1);
    await next.accept({ flags: row.exportFlags });
    if (row.succeeds) {
      next.reply(await next.request());
      await work;
    } else {
      await rejection(work, "EIO", "1 acknowledged changes that were not flushed");
      // No later flush can know better; reading and writing go on.
      const write = driver.pwrite(0, bytes(512, 1));
      await acknowledge(next, write);
      await rejection(driver.flush(), "EIO", "not flushed");
    }
    const closing = host.close();
    expect((await next.request()).type).toBe(NbdCommand.DISC);
    next.end();
    if (row.succeeds) await closing;
    else await rejection(closing, "EIO", "2 acknowledged changes are not known to be stable");
  });

  it("of a server without flush there is nothing to doubt", async () => {
    const exportFlags = ALL_FLAGS & ~SEND_FLUSH;
    const world = await open(10, { flags: exportFlags });
    const { driver, server, servers } = world;
    await acknowledge(server, driver.pwrite(0, bytes(512, 1)));
    server.cut();
    const next = await servers.server(1);
    await next.accept({ flags: exportFlags });
    await settleTurn();
    await driver.flush();
    await closeSoftly(world, next);
  });

  it("close without a connection tells of writes that may be lost", async () => {
    const { driver, server, servers, host, env } = await open(10, {
      flags: ALL_FLAGS | CAN_MULTI_CONN,
    });
    servers.refusals.push(REFUSED);
    await acknowledge(server, driver.pwrite(0, bytes(512, 1)));
    server.cut();
    await settleTurn();
    await rejection(host.close(), "EIO", "closed while 1 acknowledged changes");
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("another export after reconnecting", () => {
  it.each([
    {
      title: "of another size",
      after: { size: 32768 },
      reason: "its size is 32768 bytes, it was 65536",
    },
    {
      title: "that is read-only",
      after: { flags: ALL_FLAGS | READ_ONLY },
      reason: "it is read-only now",
    },
    {
      title: "without trim",
      after: { flags: ALL_FLAGS & ~SEND_TRIM },
      reason: "lost the ability canTrim",
    },
    {
      title: "with larger blocks",
      after: { blockSize: { minimum: 4096, preferred: 4096, maximum: 2 ** 25 } },
      reason: "minimum block is 4096 bytes, it was 512",
    },
    {
      title: "with shorter transfers",
      after: { blockSize: { minimum: 512, preferred: 512, maximum: 65536 } },
      reason: "longest transfer is 65536 bytes",
    },
  ])("$title is refused for good", async ({ after, reason }) => {
    const { driver, server, servers, host, env } = await open(10);
    const work = driver.pread(0, bytes(512, 0));
    await server.request();
    server.cut();
    const next = await servers.server(1);
    await next.accept(after);
    await rejection(work, "EIO", reason);
    const error = await rejection(driver.pwrite(0, bytes(512, 0)), "EIO", reason);
    expect((error.cause as BlockError).hint).toBe("close the node and open it again");
    expect([next.isDestroyed, servers.attempts]).toEqual([true, 2]);
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("with more abilities is taken", async () => {
    const world = await open(10, { flags: ALL_FLAGS & ~SEND_TRIM });
    world.server.cut();
    const next = await world.servers.server(1);
    await next.accept();
    await settleTurn();
    await closeSoftly(world, next);
  });
});

describe("open-timeout", () => {
  async function opening(
    timeout: number,
    refusals: unknown[],
  ): Promise<World & { work: Promise<TestHost> }> {
    const servers = new FakeServers();
    servers.refusals.push(...refusals);
    const env = manualEnv();
    const definition = nbdDefinition({ connect: servers.connect });
    const work = TestHost.open(definition, {
      env,
      options: { path: "/nbd", "open-timeout": timeout },
    });
    work.catch(() => undefined);
    await settleTurn();
    return { servers, env, work } as World & { work: Promise<TestHost> };
  }

  it("0 tries once", async () => {
    const { servers, work, env } = await opening(0, [REFUSED, REFUSED]);
    await rejection(work, "ECONNREFUSED");
    expect([servers.attempts, env.clock.sleeping]).toEqual([1, 0]);
  });

  it("tries until a server is there", async () => {
    const { servers, work, env } = await opening(10, [REFUSED, REFUSED]);
    await env.clock.advance(3000);
    const server = await servers.server(0);
    await server.accept();
    const host = await work;
    const closing = host.close();
    await server.request();
    server.end();
    await closing;
    expect([servers.attempts, env.clock.sleeping]).toEqual([3, 0]);
  });

  it("gives up at its end with the last error", async () => {
    const { servers, work, env } = await opening(10, Array(9).fill(REFUSED));
    await env.clock.advance(9999);
    expect(servers.attempts).toBe(4);
    await env.clock.advance(1);
    await rejection(work, "ECONNREFUSED");
    expect(env.clock.sleeping).toBe(0);
  });

  it("does not try again what no time can mend", async () => {
    const { servers, work, env } = await opening(10, []);
    const server = await servers.server(0);
    server.send(bytes(100, 1));
    await rejection(work, "EPROTO");
    expect([servers.attempts, env.clock.sleeping]).toEqual([1, 0]);
  });
});
