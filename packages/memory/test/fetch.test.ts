import { ScriptedDriver, TestHost } from "@blocklayer/driver-tests";
import { type MemoryDriver, memory } from "@blocklayer/memory";
import { describe, expect, it } from "vitest";

const CLUSTER = 4096;
const SIZE = 8 * CLUSTER;

interface Opened {
  readonly host: TestHost;
  readonly driver: MemoryDriver;
}

async function open(backing: ScriptedDriver): Promise<Opened> {
  const host = await TestHost.open(memory, {
    options: { size: SIZE, "cluster-size": CLUSTER },
    children: { backing },
  });
  return { host, driver: host.driver as MemoryDriver };
}

async function read(driver: MemoryDriver, offset: number, length: number): Promise<number[]> {
  const buffer = new Uint8Array(length).fill(0xa5);
  await driver.pread(offset, buffer);
  return [...buffer];
}

describe("while a cluster is fetched", () => {
  async function scripted(): Promise<Opened & { readonly base: ScriptedDriver }> {
    const base = new ScriptedDriver({ size: SIZE });
    base.bytes.fill(0xbb);
    base.hold();
    return { ...(await open(base)), base };
  }

  it("writes that need the same cluster share one fetch and lose nothing", async () => {
    const { driver, base } = await scripted();
    const works = [0, 1, 2].map((index) => driver.pwrite(index * 10, new Uint8Array([index + 1])));
    expect(base.log.length).toBe(1);
    base.releaseAll();
    await Promise.all(works);
    expect(base.log.length).toBe(1);
    expect([
      await read(driver, 0, 2),
      await read(driver, 10, 1),
      await read(driver, 20, 1),
    ]).toEqual([[1, 0xbb], [2], [3]]);
  });

  it.each<[string, (driver: MemoryDriver) => Promise<void>, number]>([
    ["a whole write", (d) => d.pwrite(0, new Uint8Array(CLUSTER).fill(0xcc)), 0xcc],
    ["write-zeroes", (d) => d.pwriteZeroes(0, CLUSTER), 0],
    ["a discard", (d) => d.pdiscard(0, CLUSTER), 0],
  ])("%s that comes in between stays, with the part on top", async (_title, work, byte) => {
    const { driver, base } = await scripted();
    const part = driver.pwrite(10, new Uint8Array([1]));
    await work(driver);
    base.releaseAll();
    await part;
    expect(await read(driver, 9, 3)).toEqual([byte, 1, byte]);
  });

  it("an emptied layer is not filled again by it", async () => {
    const { driver, base } = await scripted();
    const part = driver.pwrite(10, new Uint8Array([1]));
    await driver.makeEmpty();
    base.releaseAll();
    await part;
    expect(await read(driver, 9, 3)).toEqual([0xbb, 1, 0xbb]);
    expect(base.log.length).toBe(2);
  });

  it("a failed fetch fails those who waited and nobody after them", async () => {
    const { driver, base } = await scripted();
    const works = [driver.pwrite(1, new Uint8Array(1)), driver.pwriteZeroes(5, 1)];
    base.fail(0, "EIO");
    const ended = await Promise.allSettled(works);
    expect(ended.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    base.unhold();
    await driver.pwrite(1, new Uint8Array([1]));
    expect(await read(driver, 0, 2)).toEqual([0xbb, 1]);
  });

  it.each<[string, (driver: MemoryDriver) => Promise<void>]>([
    ["pwrite", (d) => d.pwrite(SIZE - 10, new Uint8Array(5))],
    ["pwriteZeroes", (d) => d.pwriteZeroes(SIZE - 10, 5)],
    ["pread", (d) => d.pread(SIZE - 10, new Uint8Array(5))],
  ])("%s of a disk that is cut meanwhile is EIO", async (operation, work) => {
    const { driver, base } = await scripted();
    const request = work(driver);
    await driver.truncate(CLUSTER);
    base.releaseAll();
    await expect(request).rejects.toMatchObject({
      code: "EIO",
      message: `${operation} of 5 bytes at ${SIZE - 10}: the disk was cut to ${CLUSTER} bytes meanwhile`,
      context: { node: "test", operation, offset: SIZE - 10, length: 5 },
    });
    expect(await driver.allocatedSize()).toBe(0);
  });
});
