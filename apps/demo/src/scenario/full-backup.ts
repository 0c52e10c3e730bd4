import { formatBytes, formatMs } from "./quantities.ts";
import { follow, RESULTS, type Scene, writerSpeed } from "./scene.ts";
import type { GuestWriteMeasure } from "./stage.ts";

/** The bitmap that records what changes after the full backup. */
export const BITMAP = "changes";
/** Bytes for which it has one bit. */
const GRANULARITY = 65536;

/**
 * Phase 1: backs the whole disk up while it is written to. In the instant that the backup shows, a bitmap begins to
 * record what changes from there on.
 */
export async function fullBackup(scene: Scene): Promise<GuestWriteMeasure> {
  const { stage, served, place } = scene;
  stage.phase("1  Full backup of the running disk");
  const target = await served.openTarget("full", place.file(RESULTS.full));
  const { result, writesPerSecond } = await writerSpeed(scene.writer, async () => {
    const [backup] = await served.backups.startAll(
      [{ "job-id": "full", device: served.node.name, target, sync: "full" }],
      { steps: [served.bitmaps.addStep(served.node, { name: BITMAP, granularity: GRANULARITY })] },
    );
    if (backup === undefined) throw new Error("the backup was not started");
    const followed = await follow(scene, backup, { what: "full backup" });
    return { followed, delay: backup.guestWriteDelay() };
  });
  await served.graph.remove(target);
  const { moved, elapsedMs } = result.followed;
  stage.fact(
    `${formatBytes(moved)} in ${formatMs(elapsedMs)}; what changes from its instant on is recorded in a bitmap`,
  );
  return { what: "during the full backup", delay: result.delay, writesPerSecond };
}
