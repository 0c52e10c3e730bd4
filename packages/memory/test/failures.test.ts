import { TestHost } from "@blocklayer/driver-tests";
import { type MemoryDriver, memory } from "@blocklayer/memory";
import { describe, expect, it } from "vitest";

const SIZE = 32768;

interface Opened {
  readonly host: TestHost;
  readonly driver: MemoryDriver;
}

async function open(options: object = {}): Promise<Opened> {
  const host = await TestHost.open(memory, {
    options: { size: SIZE, "cluster-size": 4096, ...options },
  });
  return { host, driver: host.driver as MemoryDriver };
}

describe("told to fail", () => {
  const request: Record<string, (driver: MemoryDriver) => Promise<void>> = {
    pread: (d) => d.pread(0, new Uint8Array(512)),
    pwrite: (d) => d.pwrite(0, new Uint8Array(512)),
    pwritev: (d) => d.pwritev(0, [new Uint8Array(512)]),
    pwriteZeroes: (d) => d.pwriteZeroes(0, 512),
    pdiscard: (d) => d.pdiscard(0, 512),
    flush: (d) => d.flushToDisk(),
    truncate: (d) => d.truncate(SIZE),
  };
  const outcomes = async (opened: Opened, name: string, count: number): Promise<string> => {
    let text = "";
    for (let index = 0; index < count; index += 1) {
      const work = request[name]?.(opened.driver) ?? Promise.resolve();
      text += await work.then(
        () => ".",
        () => "x",
      );
    }
    return text;
  };

  it.each([
    [{ operation: "pread" }, "pread", "xxxxx"],
    [{ operation: "pwrite", nth: 3 }, "pwrite", "..xxx"],
    [{ operation: "pwrite" }, "pwritev", "xxxxx"],
    [{ operation: "pwriteZeroes", times: 2 }, "pwriteZeroes", "xx..."],
    [{ operation: "pdiscard", nth: 2, times: 1 }, "pdiscard", ".x..."],
    [{ operation: "flush", times: 1 }, "flush", "x...."],
    [{ operation: "truncate", nth: 5 }, "truncate", "....x"],
    [{ operation: "pread" }, "pwrite", "....."],
    [{ operation: "pread", offset: 511 }, "pread", "xxxxx"],
    [{ operation: "pread", offset: 512 }, "pread", "....."],
    [{ operation: "pread", offset: 0, length: 1 }, "pread", "xxxxx"],
    [{ operation: "flush", offset: 4096 }, "flush", "xxxxx"],
  ])("%j: five times %s end %s", async (rule, name, expected) => {
    const opened = await open({ fail: [rule] });
    expect(await outcomes(opened, name, 5)).toBe(expected);
  });

  it("says which request and with the code it was told", async () => {
    const { driver } = await open({ fail: [{ operation: "pwrite", code: "ENOSPC" }] });
    await expect(driver.pwrite(512, new Uint8Array(10))).rejects.toMatchObject({
      code: "ENOSPC",
      message: "pwrite of 10 bytes at 512 failed as told",
      context: { node: "test", operation: "pwrite", offset: 512, length: 10 },
    });
    expect(await driver.allocatedSize()).toBe(0);
  });

  it("with no code fails with EIO", async () => {
    const { driver } = await open({ fail: [{ operation: "pread" }] });
    await expect(driver.pread(0, new Uint8Array(1))).rejects.toMatchObject({ code: "EIO" });
  });

  it("by its method, until the rule is taken back", async () => {
    const opened = await open();
    const rule = opened.driver.fail({ operation: "flush" });
    expect(await outcomes(opened, "flush", 1)).toBe("x");
    rule[Symbol.dispose]();
    expect(await outcomes(opened, "flush", 1)).toBe(".");
  });

  it("by a reopen, which forgets the rules before; by an aborted one not", async () => {
    const opened = await open({ fail: [{ operation: "pread" }] });
    const change = { options: { fail: [{ operation: "flush" }] }, readOnly: false };
    (await opened.driver.prepareReopen(change)).abort();
    expect(await outcomes(opened, "pread", 1)).toBe("x");
    (await opened.driver.prepareReopen(change)).commit();
    expect(await outcomes(opened, "pread", 1)).toBe(".");
    expect(await outcomes(opened, "flush", 1)).toBe("x");
  });
});
