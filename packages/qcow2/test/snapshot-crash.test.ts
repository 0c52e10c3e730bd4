import { expectBytes, type TestHost } from "@blocklayer/driver-tests";
import { describe, it } from "vitest";
import { crashStates, RecordingDisk } from "./crash-states.ts";
import { contentOf } from "./image-rig.ts";
import { createInMemory, openInMemory } from "./memory-image.ts";

const CLUSTER = 512;
const SIZE = 8 * CLUSTER;

async function withSnapshot(): Promise<Uint8Array> {
  const disk = new RecordingDisk(await createInMemory({ size: SIZE, "cluster-size": CLUSTER }));
  const host = await openInMemory(disk);
  const { driver } = host;
  await driver.pwrite?.(0, new Uint8Array(4 * CLUSTER).fill(1));
  await driver.snapshots?.create({
    name: "s",
    vmStateSize: 0,
    dateMs: 0,
    vmClockNs: 0,
    diskSize: SIZE,
  });
  await driver.pwrite?.(0, new Uint8Array(2 * CLUSTER).fill(2));
  await host.close();
  return disk.bytes.slice();
}

/** What the snapshot holds once the disk was written to everywhere. */
async function snapshotAfterWrites({ driver }: TestHost): Promise<Uint8Array> {
  await driver.pwrite?.(0, new Uint8Array(SIZE).fill(3));
  await driver.flush?.();
  await driver.snapshots?.apply("s");
  return await contentOf(driver);
}

describe("a crash while a snapshot is applied", () => {
  it("never makes the disk write into what the snapshot holds", async () => {
    const base = await withSnapshot();
    const kept = new Uint8Array(SIZE);
    kept.fill(1, 0, 4 * CLUSTER);
    const disk = new RecordingDisk(base);
    const host = await openInMemory(disk);
    await host.driver.snapshots?.apply("s");
    await host.close();
    for (const { what, bytes } of crashStates(base, disk.log)) {
      const again = await openInMemory(bytes);
      expectBytes(await snapshotAfterWrites(again), kept, what);
      await again.close();
    }
  });
});
