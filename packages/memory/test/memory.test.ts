import { type BlockDriver, completed, RequestFlag, Role, StatusFlag } from "@blocklayer/driver";
import {
  patternBytes,
  ReferenceDisk,
  readAll,
  ScriptedDriver,
  TestHost,
} from "@blocklayer/driver-tests";
import { MemoryDriver, memory } from "@blocklayer/memory";
import { describe, expect, it } from "vitest";

const CLUSTER = 4096;
const SIZE = 8 * CLUSTER;
const { data, zero } = StatusFlag;

interface Opened {
  readonly host: TestHost;
  readonly driver: MemoryDriver;
}

async function open(
  options: object = {},
  backing?: ReferenceDisk | ScriptedDriver,
): Promise<Opened> {
  const host = await TestHost.open(memory, {
    options: { size: SIZE, "cluster-size": CLUSTER, ...options },
    ...(backing === undefined ? {} : { children: { backing } }),
  });
  return { host, driver: host.driver as MemoryDriver };
}

function filled(size: number = SIZE): ReferenceDisk {
  const disk = new ReferenceDisk({ size });
  disk.bytes.fill(0xbb);
  return disk;
}

async function read(driver: MemoryDriver, offset: number, length: number): Promise<number[]> {
  const buffer = new Uint8Array(length).fill(0xa5);
  await driver.pread(offset, buffer);
  return [...buffer];
}

/** The status of the whole disk: flags and number of clusters. */
async function runs(driver: MemoryDriver): Promise<[flags: number, clusters: number][]> {
  const found: [number, number][] = [];
  for (let offset = 0; offset < driver.size; ) {
    const { flags, length } = await driver.blockStatus(offset, driver.size - offset);
    found.push([flags, length / CLUSTER]);
    offset += length;
  }
  return found;
}

describe("opening", () => {
  it.each([
    [{}, { message: "Parameter 'size' is missing", context: { node: "test" } }],
    [{ size: 512, "cluster-size": 1000 }, { message: expect.stringContaining("power of two") }],
    [{ size: 512, "cluster-size": 256 }, { message: expect.stringContaining("cluster-size") }],
    [{ size: -1 }, { message: expect.stringContaining("size") }],
    [
      { size: 512, fail: [{ operation: "sneeze" }] },
      { message: expect.stringContaining("sneeze") },
    ],
  ])("with %j is EINVAL", async (options, error) => {
    await expect(TestHost.open(memory, { options })).rejects.toMatchObject({
      code: "EINVAL",
      ...error,
    });
  });

  it("takes the size of its backing disk when it has none of its own", async () => {
    const host = await TestHost.open(memory, { children: { backing: filled(777) } });
    expect(host.driver.size).toBe(777);
    expect(host.children.get("backing")?.role).toBe(Role.cow);
  });

  it.each<[string, (driver: BlockDriver) => Promise<void> | undefined]>([
    ["pwrite", (driver) => driver.pwrite?.(3000, new Uint8Array(1000).fill(5))],
    ["pwritev", (driver) => driver.pwritev?.(3000, [new Uint8Array(1000).fill(5)])],
    ["pwriteZeroes", (driver) => driver.pwriteZeroes?.(3000, 1000)],
  ])("becomes longer by a %s beyond its end", async (operation, write) => {
    const host = await TestHost.open(memory, { options: { size: 1024, "cluster-size": 512 } });
    await write(host.driver);
    expect(host.driver.size).toBe(4000);
    const expected = new Uint8Array(4000);
    if (operation !== "pwriteZeroes") expected.fill(5, 3000);
    expect(await readAll(host.driver)).toEqual(expected);
  });

  it("becomes longer by a write only where its backing disk has ended", async () => {
    const host = await TestHost.open(memory, {
      options: { size: 1024, "cluster-size": 512 },
      children: { backing: filled(2048) },
    });
    await expect(host.driver.pwrite?.(4096, new Uint8Array(512))).rejects.toMatchObject({
      code: "ENOSPC",
      message:
        "512 bytes at 4096 end beyond the 1024 bytes of a disk that is shorter than its backing disk",
      hint: "truncate grows it, with zeroes",
      context: { node: "test", offset: 4096, length: 512, size: 1024 },
    });
    expect(host.driver.size).toBe(1024);
    await host.driver.truncate?.(2048, { zero: true });
    await host.driver.pwrite?.(4096, new Uint8Array(512));
    expect(host.driver.size).toBe(4608);
  });

  it("has no backing disk where the options say so", async () => {
    const host = await TestHost.open(memory, {
      options: { size: 512 },
      children: { backing: null },
    });
    expect(host.children.size).toBe(0);
  });

  it("has clusters of 64 KiB unless told otherwise", async () => {
    const host = await TestHost.open(memory, { options: { size: 1024 } });
    expect(await host.driver.getInfo?.()).toEqual({ clusterSize: 65536 });
  });

  it("takes no memory for a disk of 4 PiB, and little for a byte at its end", async () => {
    const size = 2 ** 52;
    const { driver } = await open({ size });
    await driver.pwrite(size - 1, new Uint8Array([7]));
    expect(await read(driver, size - 2, 2)).toEqual([0, 7]);
    expect(await driver.allocatedSize()).toBe(CLUSTER);
    expect(await driver.blockStatus(0, size)).toEqual({ flags: 0, length: size - CLUSTER });
    expect(await driver.blockStatus(size - 1, 1)).toEqual({ flags: data, length: 1 });
  });

  it("limits what one write-zeroes or discard does within the call", async () => {
    const { driver } = await open();
    const longest = 16384 * CLUSTER;
    expect(driver.limits).toEqual({
      pdiscardAlignment: CLUSTER,
      maxPdiscard: longest,
      maxPwriteZeroes: longest,
    });
  });
});

describe("completion", () => {
  it("is within the call for everything that needs no backing disk", async () => {
    const { driver } = await open();
    const buffer = new Uint8Array(CLUSTER + 1);
    expect(driver.pwrite(1, buffer)).toBe(completed);
    expect(driver.pwritev(1, [buffer, buffer])).toBe(completed);
    expect(driver.pread(0, buffer)).toBe(completed);
    expect(driver.pwriteZeroes(1, CLUSTER)).toBe(completed);
    expect(driver.pdiscard(0, SIZE)).toBe(completed);
    expect(driver.flushToDisk()).toBe(completed);
    expect(driver.truncate(SIZE * 2)).toBe(completed);
  });

  it("is within the call over a backing disk where this layer has the data", async () => {
    const { driver } = await open({}, filled());
    const buffer = new Uint8Array(CLUSTER);
    expect(driver.pwrite(CLUSTER, buffer)).toBe(completed);
    expect(driver.pwrite(CLUSTER + 1, buffer.subarray(1))).toBe(completed);
    expect(driver.pread(CLUSTER, buffer)).toBe(completed);
    expect(driver.pwriteZeroes(0, CLUSTER)).toBe(completed);
  });
});

describe("states of a cluster", () => {
  const whole = [CLUSTER, CLUSTER] as const;
  const part = [CLUSTER + 100, 50] as const;
  it.each<[string, readonly [number, number], (d: MemoryDriver) => Promise<void>, number, number]>([
    ["a write of all of it", whole, (d) => d.pwrite(CLUSTER, new Uint8Array(CLUSTER)), data, data],
    ["a write of a part", part, (d) => d.pwrite(CLUSTER + 100, new Uint8Array(50)), data, data],
    ["write-zeroes of all of it", whole, (d) => d.pwriteZeroes(...whole), zero, zero],
    ["write-zeroes of a part", part, (d) => d.pwriteZeroes(...part), zero, data],
    [
      "write-zeroes of all of it that may unmap",
      whole,
      (d) => d.pwriteZeroes(...whole, { flags: RequestFlag.mayUnmap }),
      0,
      zero,
    ],
    ["a discard of all of it", whole, (d) => d.pdiscard(...whole), 0, zero],
    ["a discard of a part", part, (d) => d.pdiscard(...part), 0, 0],
  ])("%s (%j) leaves it so", async (_title, _range, work, alone, overlaid) => {
    for (const [backing, expected] of [
      [undefined, alone],
      [filled(), overlaid],
    ] as const) {
      const { driver } = await open({}, backing);
      await work(driver);
      expect((await driver.blockStatus(CLUSTER, CLUSTER)).flags).toBe(expected);
      expect((await driver.blockStatus(0, CLUSTER)).flags).toBe(0);
      expect((await driver.blockStatus(2 * CLUSTER, SIZE)).flags).toBe(0);
    }
  });

  it("makes runs of neighbours in the same state, cut where the question ends", async () => {
    const { driver } = await open();
    await driver.pwrite(CLUSTER, new Uint8Array(2 * CLUSTER).fill(1));
    await driver.pwriteZeroes(4 * CLUSTER, CLUSTER);
    expect(await runs(driver)).toEqual([
      [0, 1],
      [data, 2],
      [0, 1],
      [zero, 1],
      [0, 3],
    ]);
    expect(await driver.blockStatus(CLUSTER + 10, 100)).toEqual({ flags: data, length: 100 });
  });

  it("takes and gives back memory by the cluster", async () => {
    const { driver } = await open();
    const sizes: (number | undefined)[] = [];
    const note = async (work: Promise<void>): Promise<void> => {
      await work;
      sizes.push(await driver.allocatedSize());
    };
    await note(driver.pwrite(10, new Uint8Array(CLUSTER)));
    await note(driver.pwrite(10, new Uint8Array(CLUSTER)));
    await note(driver.pwriteZeroes(0, CLUSTER));
    await note(driver.pdiscard(0, SIZE));
    await note(driver.pwrite(0, new Uint8Array(SIZE)));
    await note(driver.truncate(CLUSTER + 1));
    await note(driver.makeEmpty());
    expect(sizes.map((size = 0) => size / CLUSTER)).toEqual([2, 2, 1, 0, 8, 2, 0]);
  });

  it("discards whole clusters alone, and the last one when the disk ends within it", async () => {
    const { driver } = await open({ size: SIZE - 100 });
    await driver.pwrite(0, new Uint8Array(SIZE - 100).fill(1));
    await driver.pdiscard(100, SIZE - 200);
    expect(await read(driver, CLUSTER - 1, 2)).toEqual([1, 0]);
    expect((await driver.blockStatus(SIZE - CLUSTER, CLUSTER)).flags).toBe(0);
  });

  it("keeps zeroes that were written before a backing disk was attached", async () => {
    const host = await TestHost.open(memory, {
      options: { size: SIZE, "cluster-size": CLUSTER },
      nodes: { base: filled() },
    });
    const driver = host.driver as MemoryDriver;
    await driver.pwriteZeroes(100, 10);
    await host.attachChild("backing", Role.cow, "base");
    expect(await read(driver, 100, 2)).toEqual([0, 0]);
    expect(await read(driver, CLUSTER, 1)).toEqual([0xbb]);
    await host.detachChild("backing");
    expect(await read(driver, CLUSTER, 1)).toEqual([0]);
  });
});

describe("over a backing disk", () => {
  it("shows it until something is written, and beyond its end zeroes", async () => {
    const { driver } = await open({}, filled(CLUSTER + 10));
    expect(await read(driver, CLUSTER + 8, 4)).toEqual([0xbb, 0xbb, 0, 0]);
    expect(await read(driver, 4 * CLUSTER, 1)).toEqual([0]);
  });

  it("completes a cluster from it for a part of a write", async () => {
    const { driver } = await open({}, filled());
    await driver.pwrite(CLUSTER + 1, new Uint8Array([1, 2]));
    await driver.pwriteZeroes(2 * CLUSTER + 1, 1);
    expect(await read(driver, CLUSTER, 4)).toEqual([0xbb, 1, 2, 0xbb]);
    expect(await read(driver, 2 * CLUSTER, 3)).toEqual([0xbb, 0, 0xbb]);
  });

  it("reads neighbouring clusters from it in one request", async () => {
    const { driver, host } = await open({}, filled());
    await driver.pwrite(2 * CLUSTER, new Uint8Array(CLUSTER));
    host.gate.reset();
    await read(driver, 100, SIZE - 200);
    expect(host.gate.log.map(({ offset, length }) => [offset, length])).toEqual([
      [100, 2 * CLUSTER - 100],
      [3 * CLUSTER, 5 * CLUSTER - 100],
    ]);
  });

  it("never shows again what was discarded or emptied by zeroes", async () => {
    const { driver } = await open({}, filled());
    await driver.pwrite(0, new Uint8Array(2 * CLUSTER).fill(1));
    await driver.pdiscard(0, CLUSTER);
    await driver.pwriteZeroes(CLUSTER, CLUSTER, { flags: RequestFlag.mayUnmap });
    expect(await read(driver, CLUSTER - 1, 2)).toEqual([0, 0]);
  });

  it("shows it again when the layer was emptied", async () => {
    const { driver } = await open({}, filled());
    await driver.pwrite(0, new Uint8Array(SIZE));
    await driver.makeEmpty();
    expect(await read(driver, 0, 1)).toEqual([0xbb]);
  });

  it.each([
    [true, 0],
    [false, 0xbb],
  ])("with zero %s a truncate makes the new area read %i", async (isZero, byte) => {
    const { driver } = await open({ size: CLUSTER + 10 }, filled());
    await driver.truncate(SIZE, { zero: isZero });
    expect(await read(driver, CLUSTER + 9, 2)).toEqual([0xbb, byte]);
    expect(await read(driver, SIZE - 1, 1)).toEqual([byte]);
  });

  it("keeps its length when the new area can not be cleared", async () => {
    const { driver, host } = await open({ size: CLUSTER + 10 }, filled());
    host.gate.failAt({ at: 1, code: "ENOMEDIUM" });
    const work = driver.truncate(SIZE, { zero: true });
    await expect(work).rejects.toMatchObject({ code: "ENOMEDIUM" });
    expect(driver.size).toBe(CLUSTER + 10);
    expect(await read(driver, CLUSTER, 1)).toEqual([0xbb]);
  });
});

describe("truncate", () => {
  it("forgets what is cut off", async () => {
    const { driver } = await open();
    await driver.pwrite(0, patternBytes(SIZE, 1));
    await driver.truncate(100);
    await driver.truncate(SIZE);
    expect(await read(driver, 98, 4)).toEqual([...patternBytes(SIZE, 1).subarray(98, 100), 0, 0]);
    expect(await read(driver, SIZE - 1, 1)).toEqual([0]);
  });

  it("to nothing and back leaves nothing", async () => {
    const { driver } = await open();
    await driver.pwrite(0, new Uint8Array(SIZE).fill(1));
    await driver.truncate(0);
    await driver.truncate(1);
    expect(await read(driver, 0, 1)).toEqual([0]);
  });

  it.each(["metadata", "falloc", "full"] as const)(
    "with preallocation %s is refused",
    async (preallocation) => {
      const { driver } = await open();
      await expect(driver.truncate(2 * SIZE, { preallocation })).rejects.toMatchObject({
        code: "ENOTSUP",
        message: `memory disks are sparse: preallocation ${preallocation} is not supported`,
        context: { operation: "truncate", size: 2 * SIZE },
      });
    },
  );
});

describe("without memory", () => {
  const limited = (clusters: number, error: Error): MemoryDriver => {
    let left = clusters;
    const allocate = (length: number): Uint8Array => {
      left -= 1;
      if (left < 0) throw error;
      return new Uint8Array(length);
    };
    return new MemoryDriver(new TestHost(), { size: SIZE, clusterSize: CLUSTER, allocate });
  };

  it("a write is ENOMEM, and the disk goes on with what it has", async () => {
    const driver = limited(2, new RangeError("Array buffer allocation failed"));
    await driver.pwrite(0, new Uint8Array(CLUSTER).fill(1));
    await expect(driver.pwrite(CLUSTER, new Uint8Array(2 * CLUSTER))).rejects.toMatchObject({
      code: "ENOMEM",
      message: "no memory for another 4096 bytes beside 8192",
      context: { node: "test", length: CLUSTER },
    });
    await driver.pwrite(10, new Uint8Array([2]));
    expect(await read(driver, 9, 3)).toEqual([1, 2, 1]);
  });

  it("a defect of the allocator is not called a lack of memory", async () => {
    const error = new TypeError("of the test");
    await expect(limited(0, error).pwrite(0, new Uint8Array(1))).rejects.toBe(error);
  });
});

describe("after close", () => {
  it.each<[string, (driver: MemoryDriver) => Promise<unknown>]>([
    ["pread", (d) => d.pread(0, new Uint8Array(1))],
    ["pwrite", (d) => d.pwritev(0, [new Uint8Array(1)])],
    ["flush", (d) => d.flushToDisk()],
    ["blockStatus", (d) => d.blockStatus(0, 1)],
    ["makeEmpty", (d) => d.makeEmpty()],
    ["truncate", (d) => d.truncate(1)],
  ])("%s is ESHUTDOWN", async (operation, work) => {
    const { driver, host } = await open();
    await host.close();
    await expect(work(driver)).rejects.toMatchObject({
      code: "ESHUTDOWN",
      message: `${operation} after the disk was closed`,
      context: { node: "test", operation },
    });
  });

  it.each<[string, (driver: MemoryDriver) => Promise<unknown>]>([
    ["pread", (d) => d.pread(0, new Uint8Array(1))],
    ["pwrite", (d) => d.pwrite(0, new Uint8Array(1))],
    ["pwriteZeroes", (d) => d.pwriteZeroes(0, 1)],
  ])("%s that was on its way is ESHUTDOWN", async (_operation, work) => {
    const base = new ScriptedDriver({ size: SIZE, hold: true });
    const { driver } = await open({}, base);
    const request = work(driver);
    await driver.close();
    base.releaseAll();
    await expect(request).rejects.toMatchObject({ code: "ESHUTDOWN" });
    expect(await driver.allocatedSize()).toBe(0);
  });
});
