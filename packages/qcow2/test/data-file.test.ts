import type { TestHost } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { createInMemory, growingFile, openInMemory } from "./memory-image.ts";

const CLUSTER = 4096;

async function open(): Promise<TestHost> {
  const data = growingFile();
  const create = { size: 64 * CLUSTER, "cluster-size": CLUSTER, "data-file": "d" };
  const bytes = await createInMemory(create, data);
  return openInMemory(bytes, { children: { "data-file": data } });
}

describe("data in another file is stable before the image refers to it", () => {
  it.each([
    { what: "at a flush", end: "flush" },
    { what: "at close", end: "close" },
  ] as const)("$what", async ({ end }) => {
    const host = await open();
    const { log } = host.gate;
    await host.driver.pwrite?.(0, new Uint8Array(CLUSTER).fill(5));
    const before = log.length;
    await host.driver[end]?.();
    const steps = log.slice(before).map(({ child, operation }) => `${child} ${operation}`);
    const flushed = steps.indexOf("data-file flush");
    expect(flushed).toBeGreaterThanOrEqual(0);
    // Counts of the table come first, the entries in it last.
    expect(steps.lastIndexOf("file pwrite")).toBeGreaterThan(flushed);
    expect(steps.indexOf("file flush")).toBeGreaterThan(flushed);
    await host.close();
  });

  it("nothing is written any more when a flush of it failed", async () => {
    const host = await open();
    await host.driver.pwrite?.(0, new Uint8Array(CLUSTER).fill(5));
    const twin = await open();
    await twin.driver.pwrite?.(0, new Uint8Array(CLUSTER).fill(5));
    const before = twin.gate.log.length;
    await twin.driver.flush?.();
    const steps = twin.gate.log.slice(before);
    await twin.close();
    const at = steps.findIndex(
      ({ child, operation }) => child === "data-file" && operation === "flush",
    );
    host.gate.failAt({ at: at + 1 });
    await expect(host.driver.flush?.()).rejects.toMatchObject({ code: "EIO" });
    host.gate.disarm();
    await expect(host.driver.pwrite?.(0, new Uint8Array(1))).rejects.toMatchObject({ code: "EIO" });
    await host.driver.pread(0, new Uint8Array(1));
    await host.close();
  });
});
