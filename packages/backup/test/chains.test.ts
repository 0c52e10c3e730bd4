import type { BackupOptions, BitmapMode, SyncMode } from "@blocklayer/backup";
import { patternBytes, type ScriptedDriver } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { backupFixture, CLUSTER, dirtyClusters, type Started } from "./fixture.ts";

type Ending = "success" | "cancelled at pending" | "read error in the middle";

const endings: Ending[] = ["success", "cancelled at pending", "read error in the middle"];
const modes: [SyncMode, BitmapMode][] = [
  ["incremental", "on-success"],
  ["bitmap", "on-success"],
  ["bitmap", "never"],
  ["bitmap", "always"],
  ["full", "on-success"],
  ["full", "always"],
];
const rows = modes.flatMap(([sync, mode]) =>
  endings.map((ending) => [sync, mode, ending] as const),
);

/** Puts what a backup has written to its target on top of a restored disk. */
function restoreOnto(disk: Uint8Array, target: ScriptedDriver): void {
  for (const { operation, state, offset, length } of target.log) {
    if (state !== "done" || !(operation === "pwrite" || operation === "pwriteZeroes")) continue;
    disk.set(target.bytes.subarray(offset, offset + length), offset);
  }
}

/** A partial image belongs to the chain only where the bitmap goes by what is in it. */
function isKept(mode: BitmapMode, ending: Ending): boolean {
  return ending === "success" || mode === "always";
}

async function backUp(
  { fixture, env }: Started,
  options: Partial<BackupOptions>,
  { meanwhile, end }: { meanwhile?(): Promise<void>; end?: Ending } = {},
) {
  const target = await fixture.disk(`to-${options["job-id"]}`, fixture.node("disk").size);
  const job = await fixture.start({
    target: `to-${options["job-id"]}`,
    bitmap: "bm",
    "auto-finalize": false,
    "x-perf": { "max-workers": 1, "max-chunk": CLUSTER },
    ...options,
  });
  await meanwhile?.();
  await env.clock.advance(5);
  if (job.job.status === "pending") {
    if (end === "cancelled at pending") job.job.cancel({ force: true });
    else await job.job.finalize();
  }
  return { target, error: await job.job.completed() };
}

describe("a chain of backups", () => {
  it.each(rows)(
    "with a link of sync %s and mode %s that ends by %s restores the disk after the next link",
    async (sync, mode, ending) => {
      const made = await backupFixture(9 * CLUSTER - 1000);
      const { fixture, source } = made;
      await fixture.bitmaps.add(fixture.node("disk"), { name: "bm", granularity: 4096 });
      const guest = await fixture.guest("disk");
      let round = 0;
      const write = async (...clusters: number[]): Promise<void> => {
        round += 1;
        for (const cluster of clusters) {
          await guest.write(cluster * CLUSTER + 100 * round, patternBytes(600, round));
        }
      };
      const restored = new Uint8Array(source.bytes.length);
      const base = { "job-id": "base", sync: "full", "bitmap-mode": "on-success" } as const;
      restoreOnto(restored, (await backUp(made, base)).target);
      expect(Buffer.from(restored).equals(source.bytes)).toBe(true);
      await write(1, 3, 5, 8);
      const atStart = source.bytes.slice();
      // The guest's two writes save clusters too; the job's own reads are to fail.
      const nth = sync === "full" ? 5 : 3;
      if (ending === "read error in the middle") source.failNth("pread", nth, "EIO");
      const link = await backUp(
        made,
        { "job-id": "link", sync, "bitmap-mode": mode },
        { meanwhile: () => write(3, 6), end: ending },
      );
      expect(link.error === undefined).toBe(ending === "success");
      if (isKept(mode, ending)) restoreOnto(restored, link.target);
      if (ending === "success") expect(Buffer.from(restored).equals(atStart)).toBe(true);
      await write(0, 6, 8);
      expect(dirtyClusters(fixture.bitmap("bm"))).toEqual(expect.arrayContaining([0, 3, 6, 8]));
      const next = await backUp(made, { "job-id": "next", sync: "incremental" });
      restoreOnto(restored, next.target);
      expect(next.error).toBeUndefined();
      expect(Buffer.from(restored).equals(source.bytes)).toBe(true);
      expect(fixture.bitmap("bm").count).toBe(0);
    },
  );
});
