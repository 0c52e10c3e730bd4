import type { BitmapMode, SyncMode } from "@blocklayer/backup";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER, dirtyClusters } from "./fixture.ts";

type Ending = "success" | "cancelled at pending" | "read error in the middle";
type Row = readonly [sync: SyncMode, mode: BitmapMode, ending: Ending, bits: readonly number[]];

/*
 * Before the job: clusters 1, 3 and 5 are dirty. During the job the guest writes clusters 3 and 6. The error is
 * the read of cluster 3, by one worker that copies cluster by cluster: what lies before it is copied, it and what
 * lies behind it is not.
 */
const rows: Row[] = [
  ["bitmap", "on-success", "success", [3, 6]],
  ["bitmap", "on-success", "cancelled at pending", [1, 3, 5, 6]],
  ["bitmap", "on-success", "read error in the middle", [1, 3, 5, 6]],
  ["bitmap", "never", "success", [1, 3, 5, 6]],
  ["bitmap", "never", "cancelled at pending", [1, 3, 5, 6]],
  ["bitmap", "never", "read error in the middle", [1, 3, 5, 6]],
  ["bitmap", "always", "success", [3, 6]],
  ["bitmap", "always", "cancelled at pending", [3, 6]],
  ["bitmap", "always", "read error in the middle", [3, 5, 6]],
  ["incremental", "on-success", "success", [3, 6]],
  ["incremental", "on-success", "cancelled at pending", [1, 3, 5, 6]],
  ["incremental", "on-success", "read error in the middle", [1, 3, 5, 6]],
  ["full", "on-success", "success", [3, 6]],
  ["full", "on-success", "cancelled at pending", [1, 3, 5, 6]],
  ["full", "on-success", "read error in the middle", [1, 3, 5, 6]],
  ["full", "always", "success", [3, 6]],
  ["full", "always", "cancelled at pending", [3, 6]],
  // All clusters that were not copied, and cluster 6, which the guest's write saved and changed.
  ["full", "always", "read error in the middle", [3, 4, 5, 6, 7]],
  ["top", "on-success", "success", [3, 6]],
  ["top", "always", "success", [3, 6]],
  ["top", "always", "read error in the middle", [3, 4, 5, 6, 7]],
];

const byte = (): Uint8Array => new Uint8Array(1).fill(9);

async function run(sync: SyncMode, mode: BitmapMode, ending: Ending, granularity: number) {
  const made = await backupFixture(8 * CLUSTER);
  const { fixture, env, source, target, before } = made;
  await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity });
  const guest = await fixture.guest("disk");
  for (const cluster of [1, 3, 5])
    await guest.write(cluster * CLUSTER, before.slice(cluster * CLUSTER, cluster * CLUSTER + 1));
  const reads = sync === "bitmap" || sync === "incremental" ? 2 : 4;
  // The guest's own writes below save clusters too: the job's read of cluster 3 is let fail, not theirs.
  if (ending === "read error in the middle") source.failNth("pread", reads, "EIO");
  const job = await fixture.start({
    sync,
    bitmap: "bm",
    "bitmap-mode": mode,
    "auto-finalize": false,
    "x-perf": { "max-workers": 1, "max-chunk": CLUSTER },
  });
  const query = fixture.bitmaps.query(fixture.node("disk"));
  await env.clock.advance(1);
  await guest.write(3 * CLUSTER, byte());
  await guest.write(6 * CLUSTER, byte());
  const during = fixture.bitmaps.query(fixture.node("disk"));
  if (ending === "success") job.job.finalize();
  if (ending === "cancelled at pending") await job.job.cancel({ force: true });
  await env.clock.advance(1);
  const error = await job.job.completed();
  return { ...made, target, query, during, error };
}

describe("the bitmap after a backup", () => {
  it.each(rows)(
    "of sync %s and mode %s that ended by %s has clusters %j",
    async (sync, mode, ending, bits) => {
      const { fixture, error } = await run(sync, mode, ending, CLUSTER);
      expect(error?.code).toBe(
        {
          success: undefined,
          "cancelled at pending": "ECANCELED",
          "read error in the middle": "EIO",
        }[ending],
      );
      const bitmap = fixture.bitmap("bm");
      expect(dirtyClusters(bitmap)).toEqual(bits);
      expect([bitmap.busy, bitmap.enabled]).toEqual([false, true]);
      // It records again.
      const guest = await fixture.guest("disk");
      await guest.write(0, byte());
      expect(dirtyClusters(bitmap)).toContain(0);
    },
  );

  it("of a finer granularity marks all of a cluster that was not copied", async () => {
    const { fixture } = await run("bitmap", "always", "read error in the middle", 4096);
    expect(fixture.bitmap("bm").count).toBe(2 * CLUSTER + 4096);
  });

  it("is frozen meanwhile, and an unnamed one records", async () => {
    const { query, during } = await run("incremental", "on-success", "success", CLUSTER);
    expect(query).toEqual([
      expect.objectContaining({ count: 0, recording: true, busy: false }),
      expect.objectContaining({ name: "bm", count: 3 * CLUSTER, busy: true }),
    ]);
    expect(during[0]).toMatchObject({ count: 2 * CLUSTER });
  });

  it("that was disabled stays so, and is empty after success", async () => {
    const { fixture, env } = await backupFixture();
    const bitmap = await fixture.bitmaps.add(fixture.node("disk"), {
      name: "bm",
      granularity: CLUSTER,
    });
    const guest = await fixture.guest("disk");
    await guest.write(0, byte());
    bitmap.disable();
    const job = await fixture.start({ sync: "incremental", bitmap: "bm" });
    await guest.write(CLUSTER, byte());
    await env.clock.advance(1);
    await job.completed();
    expect(fixture.bitmap("bm")).toMatchObject({ enabled: false, count: 0 });
  });
});

describe("a chain of incremental backups", () => {
  it("after a failure is completed by the next one", async () => {
    const { fixture, env, source, target } = await run(
      "incremental",
      "on-success",
      "read error in the middle",
      CLUSTER,
    );
    const job = await fixture.start({ sync: "incremental", bitmap: "bm", "job-id": "again" });
    await env.clock.advance(1);
    await job.completed();
    for (const cluster of [1, 3, 5, 6]) {
      const range = [cluster * CLUSTER, (cluster + 1) * CLUSTER] as const;
      expect(target.bytes.subarray(...range)).toEqual(source.bytes.subarray(...range));
    }
    expect(fixture.bitmap("bm").count).toBe(0);
  });
});
