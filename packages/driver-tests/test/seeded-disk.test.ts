import { SeededDisk } from "@blocklayer/driver-tests";
import { SeededScheduler } from "@blocklayer/env";
import { describe, expect, it } from "vitest";

/** What a few requests at once do, as a text. */
async function run(seed: number, failures: number): Promise<string> {
  const scheduler = new SeededScheduler({ seed });
  const disk = new SeededDisk(scheduler, 4096);
  disk.failures = failures;
  const order: string[] = [];
  await scheduler.run(async () => {
    await Promise.allSettled(
      [0, 1, 2, 3].map((index) =>
        disk.pwrite(index * 512, new Uint8Array(512).fill(index + 1)).then(
          () => order.push(`${index}`),
          (error: { code: string }) => order.push(error.code),
        ),
      ),
    );
    expect(disk.running).toBe(0);
  });
  return order.join(" ");
}

describe("SeededDisk", () => {
  it("does the same for the same seed, and something else for others", async () => {
    expect(await run(3, 0)).toBe(await run(3, 0));
    const seen = new Set<string>();
    for (let seed = 0; seed < 30; seed += 1) seen.add(await run(seed, 0));
    expect(seen.size).toBeGreaterThan(3);
  });

  it("fails as often as it is told", async () => {
    expect(await run(1, 100)).toBe("EIO EIO EIO EIO");
  });

  it("tells the truth about zeroes, in runs of any length", async () => {
    const scheduler = new SeededScheduler({ seed: 5 });
    const disk = new SeededDisk(scheduler, 1024);
    disk.bytes.fill(7, 100, 200);
    await scheduler.run(async () => {
      for (let at = 0; at < 1024; ) {
        const { flags, length } = await disk.blockStatus(at, 1024 - at);
        const bytes = disk.bytes.subarray(at, at + length);
        expect(bytes.every((byte) => (byte === 0) === (flags === 2))).toBe(true);
        at += length;
      }
    });
  });
});
