import { TestHost, testDriver } from "@blocklayer/driver-tests";
import { settleTurn } from "@blocklayer/env";
import {
  Decisions,
  type DiskBehaviour,
  Medium,
  type MediumOptions,
  simulatedDisk,
} from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";

const SIZE = 64 * 1024;
const mixed: DiskBehaviour = { atOnce: 1, later: 1, early: 1, slow: 1, faults: 0 };
const prompt: DiskBehaviour = { atOnce: 1, later: 0, early: 0, slow: 0, faults: 0 };

/** Completions come turn by turn, in the order in which they were posted. */
function post(_tag: string, deliver: () => void): void {
  void settleTurn().then(deliver);
}

function open(
  behaviour: DiskBehaviour,
  options: Record<string, unknown>,
  mediumOptions: Partial<MediumOptions> = {},
): Promise<TestHost> {
  const medium = new Medium({
    name: "m",
    size: SIZE,
    ...mediumOptions,
    decisions: new Decisions(5),
    post,
    report: (kind, message) => expect.fail(`${kind}: ${message}`),
  });
  medium.behaviour = behaviour;
  const definition = simulatedDisk(new Map([["m", medium]]));
  return TestHost.open(definition, { options: { medium: "m", ...options } });
}

const capabilities = { writeVector: false, discardReads: "zeroes" } as const;

testDriver({
  name: "a simulated disk that is prompt",
  describe,
  it,
  open: () => open(prompt, {}),
  capabilities,
});

testDriver({
  name: "a simulated disk of blocks that completes now and later",
  describe,
  it,
  open: () => open(mixed, { "request-alignment": 512, "max-transfer": 4096 }),
  capabilities,
});

describe("a simulated disk", () => {
  it("is refused without its medium", async () => {
    const definition = simulatedDisk(new Map());
    await expect(TestHost.open(definition, { options: { medium: "m" } })).rejects.toMatchObject({
      code: "ENOENT",
      message: "there is no medium 'm'",
      context: { node: "test" },
    });
  });

  it("does not grow by writes", async () => {
    const host = await open(prompt, {});
    await expect(host.driver.pwrite?.(SIZE - 1, new Uint8Array(2))).rejects.toMatchObject({
      code: "ENOSPC",
      message: `pwrite of 2 bytes at ${SIZE - 1} goes beyond ${SIZE}`,
    });
    await host.close();
  });

  it("grows by writes where its medium does, up to the capacity", async () => {
    const host = await open(prompt, {}, { grows: true, capacity: 2 * SIZE });
    const { driver } = host;
    await driver.pwrite?.(SIZE, new Uint8Array(SIZE).fill(1));
    expect(driver.size).toBe(2 * SIZE);
    await expect(driver.pwrite?.(2 * SIZE, new Uint8Array(1))).rejects.toMatchObject({
      code: "ENOSPC",
      message: `pwrite of 1 bytes at ${2 * SIZE} goes beyond ${2 * SIZE}`,
    });
    await host.close();
  });

  it("becomes no longer than its capacity, and prepares no space", async () => {
    const host = await open(prompt, {}, { capacity: SIZE });
    const { driver } = host;
    await expect(driver.truncate?.(SIZE + 1)).rejects.toMatchObject({
      code: "ENOSPC",
      message: `${SIZE + 1} bytes are more than the capacity of ${SIZE}`,
      context: { operation: "truncate", size: SIZE + 1 },
    });
    await expect(driver.truncate?.(SIZE, { preallocation: "full" })).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "preallocation full is not supported",
    });
    await host.close();
  });

  it("reports a flush that lost data until the medium is opened anew", async () => {
    const drops: DiskBehaviour = { atOnce: 0, later: 0, early: 0, slow: 0, faults: 0, drops: 1 };
    const host = await open(drops, {});
    const flush = (): Promise<void> | undefined => host.driver.flushToDisk?.();
    await expect(flush()).rejects.toMatchObject({ code: "EIO" });
    await expect(flush()).rejects.toMatchObject({
      code: "EIO",
      message: "an earlier flush failed",
      context: { operation: "flush" },
    });
    await host.close();
  });

  it("refuses requests after close", async () => {
    const host = await open(prompt, {});
    await host.close();
    await expect(host.driver.pread(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "ESHUTDOWN",
      message: "pread after the disk was closed",
    });
  });
});
