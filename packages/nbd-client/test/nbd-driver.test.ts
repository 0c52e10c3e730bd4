import { type BlockDriver, completed, RequestFlag } from "@blocklayer/driver";
import { TestHost, type TestHostOptions } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import { nbdDefinition } from "@blocklayer/nbd-client";
import { NbdCommand, NbdErrno, NbdTransmissionFlag } from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";
import { ALL_FLAGS, type FakeExport, FakeServer } from "./fake-server.ts";

const flag = NbdTransmissionFlag;
const { fua, mayUnmap, noFallback, prefetch } = RequestFlag;

async function open(
  facts: FakeExport = {},
  settings: TestHostOptions & { options?: object } = {},
): Promise<{ host: TestHost; server: FakeServer; driver: Required<BlockDriver> }> {
  const server = new FakeServer();
  const definition = nbdDefinition({ connect: () => Promise.resolve(server.client) });
  const opening = TestHost.open(definition, {
    ...settings,
    options: { path: "/nbd", ...settings.options },
  });
  await server.accept(facts);
  const host = await opening;
  return { host, server, driver: host.driver as Required<BlockDriver> };
}

const bytes = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

describe("what reaches the server", () => {
  it.each([
    {
      title: "pread",
      send: (d: Required<BlockDriver>) => d.pread(512, bytes(512, 0)),
      type: NbdCommand.READ,
      flags: 0,
    },
    {
      title: "pread to prefetch",
      send: (d: Required<BlockDriver>) => d.pread(512, bytes(512, 0), { flags: prefetch }),
      type: NbdCommand.CACHE,
      flags: 0,
    },
    {
      title: "pwrite",
      send: (d: Required<BlockDriver>) => d.pwrite(512, bytes(512, 1)),
      type: NbdCommand.WRITE,
      flags: 0,
    },
    {
      title: "pwrite with FUA",
      send: (d: Required<BlockDriver>) => d.pwrite(512, bytes(512, 1), { flags: fua }),
      type: NbdCommand.WRITE,
      flags: 1,
    },
    {
      title: "pwritev",
      send: (d: Required<BlockDriver>) => d.pwritev(512, [bytes(100, 1), bytes(412, 1)]),
      type: NbdCommand.WRITE,
      flags: 0,
    },
    {
      title: "pwriteZeroes keeps the range allocated",
      send: (d: Required<BlockDriver>) => d.pwriteZeroes(512, 512),
      type: NbdCommand.WRITE_ZEROES,
      flags: 2,
    },
    {
      title: "pwriteZeroes that may unmap",
      send: (d: Required<BlockDriver>) => d.pwriteZeroes(512, 512, { flags: mayUnmap }),
      type: NbdCommand.WRITE_ZEROES,
      flags: 0,
    },
    {
      title: "pwriteZeroes without fallback and with FUA",
      send: (d: Required<BlockDriver>) =>
        d.pwriteZeroes(512, 512, { flags: fua | mayUnmap | noFallback }),
      type: NbdCommand.WRITE_ZEROES,
      flags: 17,
    },
    {
      title: "pdiscard",
      send: (d: Required<BlockDriver>) => d.pdiscard(512, 512),
      type: NbdCommand.TRIM,
      flags: 0,
    },
  ])("$title", async ({ send, type, flags }) => {
    const { server, driver } = await open();
    const work = send(driver);
    const request = await server.request();
    expect(request).toMatchObject({ type, flags, offset: 512, length: 512 });
    if (type === NbdCommand.WRITE) expect(request.payload).toEqual(bytes(512, 1));
    server.reply(request, 0, type === NbdCommand.READ ? bytes(512, 1) : undefined);
    await work;
  });

  it("payloads of pwritev are sent from where they lie", async () => {
    const { server, driver } = await open();
    const buffers = [bytes(100, 1), bytes(412, 2)];
    const work = driver.pwritev(0, buffers);
    const request = await server.request();
    expect(server.client.lastWrite.slice(1)).toEqual(buffers);
    expect(server.client.lastWrite[1]).toBe(buffers[0]);
    server.reply(request);
    await work;
  });

  it("an error of the server is the request's", async () => {
    const { server, driver } = await open();
    const work = driver.pwriteZeroes(0, 512, { flags: noFallback });
    server.reply(await server.request(), NbdErrno.ENOTSUP);
    const error = await rejection(work, "ENOTSUP", "pwriteZeroes of 512 bytes at 0 failed");
    expect(error.context).toEqual({
      node: "test",
      operation: "pwriteZeroes",
      offset: 0,
      length: 512,
    });
  });
});

describe("what the driver declares", () => {
  it("everything that the server offers", async () => {
    const { driver } = await open();
    expect(driver).toMatchObject({
      driverName: "nbd",
      size: 65536,
      zeroes: "native",
      flags: {
        read: prefetch,
        write: fua,
        zeroes: fua | mayUnmap | noFallback,
        truncateZero: false,
      },
    });
  });

  it("nothing that it does not", async () => {
    const { driver } = await open({ flags: flag.HAS_FLAGS });
    expect(driver).toMatchObject({
      zeroes: "emulated",
      flags: { read: 0, write: 0, zeroes: 0 },
    });
    expect([driver.pwriteZeroes, driver.pdiscard]).toEqual([undefined, undefined]);
    expect(driver.flush()).toBe(completed);
  });

  const EFFECT_MAX = 2 ** 31 - 65536;
  it.each([
    {
      title: "no block size",
      size: 65536,
      blockSize: undefined,
      align: 512,
      max: 2 ** 25,
      opt: 4096,
      seen: 65536,
    },
    {
      title: "no block size and an odd size",
      size: 65537,
      blockSize: undefined,
      align: 1,
      max: 2 ** 25,
      opt: 4096,
      seen: 65537,
    },
    {
      title: "blocks of 4 KiB",
      size: 65536,
      blockSize: { minimum: 4096, preferred: 8192, maximum: 2 ** 20 },
      align: 4096,
      max: 2 ** 20,
      opt: 8192,
      seen: 65536,
    },
    {
      title: "no maximum",
      size: 65536,
      blockSize: { minimum: 1, preferred: 512, maximum: 2 ** 32 - 1 },
      align: 1,
      max: 2 ** 25,
      opt: 512,
      seen: 65536,
    },
    {
      title: "a maximum between blocks",
      size: 65536,
      blockSize: { minimum: 4096, preferred: 4096, maximum: 10_000 },
      align: 4096,
      max: 8192,
      opt: 4096,
      seen: 65536,
    },
    {
      title: "a size between blocks",
      size: 65000,
      blockSize: { minimum: 4096, preferred: 4096, maximum: 65536 },
      align: 4096,
      max: 65536,
      opt: 4096,
      seen: 61440,
    },
  ])("limits of a server with $title", async (row) => {
    const { size, blockSize } = row;
    const facts = blockSize === undefined ? { size } : { size, blockSize };
    const { driver, host } = await open(facts);
    expect([driver.size, driver.limits]).toEqual([
      row.seen,
      {
        requestAlignment: row.align,
        maxTransfer: row.max,
        optTransfer: row.opt,
        maxPwriteZeroes: EFFECT_MAX,
        pwriteZeroesAlignment: row.align,
        maxPdiscard: EFFECT_MAX,
        pdiscardAlignment: row.align,
      },
    ]);
    expect(host.warnings).toHaveLength(row.seen === size ? 0 : 1);
  });
});

describe("read-only exports", () => {
  const facts = { flags: ALL_FLAGS | flag.READ_ONLY };

  it("are refused to a writable node with EACCES, and the connection is closed", async () => {
    const server = new FakeServer();
    const definition = nbdDefinition({ connect: () => Promise.resolve(server.client) });
    const opening = TestHost.open(definition, { options: { path: "/nbd", export: "x" } });
    await server.accept(facts);
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    server.end();
    const error = await rejection(opening, "EACCES", "Could not open image: Permission denied");
    expect(error.context).toMatchObject({ node: "test", exportName: "x" });
    expect(error.hint).toContain("auto-read-only");
  });

  it("make a node with auto-read-only read-only", async () => {
    const { host, driver } = await open(facts, { autoReadOnly: true });
    expect(host.readOnlyReason).toContain("read-only");
    expect([driver.pwrite, driver.pwritev, driver.pwriteZeroes, driver.pdiscard]).toEqual(
      Array(4).fill(undefined),
    );
  });

  it("serve a read-only node, which can not be made writable", async () => {
    const { driver, host } = await open(facts, { generic: { readOnly: true } });
    const options = host.driverOptions;
    await rejection(driver.prepareReopen({ options, readOnly: false }), "EACCES");
    const prepared = await driver.prepareReopen({ options, readOnly: true });
    prepared.abort();
  });
});

describe("the rest of the contract", () => {
  it("everything is data", async () => {
    const { driver } = await open();
    expect(await driver.blockStatus(512, 1024)).toEqual({ flags: 5, length: 1024, offset: 512 });
    expect(await driver.blockStatus(65024, 1024)).toMatchObject({ length: 512 });
  });

  it.each([
    { size: 65536, exact: true, message: undefined },
    { size: 65536, exact: false, message: undefined },
    { size: 512, exact: false, message: undefined },
    { size: 512, exact: true, message: "Cannot resize NBD nodes" },
    { size: 131072, exact: true, message: "Cannot resize NBD nodes" },
    { size: 131072, exact: false, message: "Cannot grow NBD nodes" },
  ])("truncate to $size, exact $exact: $message", async ({ size, exact, message }) => {
    const { driver } = await open();
    const work = driver.truncate(size, { exact });
    if (message === undefined) await work;
    else await rejection(work, "ENOTSUP", message);
    expect(driver.size).toBe(65536);
  });

  it("everything after close is refused", async () => {
    const { driver, server } = await open({ flags: flag.HAS_FLAGS });
    const closing = driver.close();
    await server.request();
    server.end();
    await closing;
    for (const work of [
      driver.pread(0, bytes(512, 0)),
      driver.flush(),
      driver.truncate(512),
      driver.blockStatus(0, 512),
    ]) {
      const error = await rejection(work, "ESHUTDOWN", "failed: the node was closed");
      expect(error.context.node).toBe("test");
    }
  });

  it("close makes stable what was acknowledged, after what is in flight", async () => {
    const { driver, server, host } = await open();
    const first = driver.pwrite(0, bytes(512, 1));
    const request = await server.request();
    const closing = host.close();
    await settleTurn();
    expect(server.receivedLength).toBe(0);
    server.reply(request);
    await first;
    const flush = await server.request();
    expect(flush.type).toBe(NbdCommand.FLUSH);
    server.reply(flush);
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    server.end();
    await closing;
  });

  it("close tells of a flush that failed, once the connection has ended", async () => {
    const { driver, server, host } = await open();
    const first = driver.pwrite(0, bytes(512, 1));
    server.reply(await server.request());
    await first;
    const closing = host.close();
    server.reply(await server.request(), NbdErrno.EIO);
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    server.end();
    await rejection(closing, "EIO", "flush failed: Input/output error");
    expect(server.isDestroyed).toBe(true);
  });

  it("as many requests as the option says are in flight", async () => {
    const { driver, server } = await open({}, { options: { "x-blocklayer-requests-max": 3 } });
    const work = [0, 1, 2, 3, 4].map((index) => driver.pdiscard(index * 512, 512));
    const first = await server.requests(3);
    await settleTurn();
    expect(server.receivedLength).toBe(0);
    for (const request of first) server.reply(request);
    for (const request of await server.requests(2)) server.reply(request);
    await Promise.all(work);
  });

  it("a reopen changes the reconnect delay", async () => {
    const { driver, server, host } = await open();
    const options = { ...(host.driverOptions as object), "reconnect-delay": 7 };
    const prepared = await driver.prepareReopen({ options, readOnly: false });
    prepared.commit();
    const work = driver.pread(0, bytes(512, 0));
    await server.request();
    server.cut();
    await settleTurn();
    driver.cancelInFlight();
    await rejection(work, "EIO");
  });
});
