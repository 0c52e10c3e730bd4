import { rm } from "node:fs/promises";
import type { DelaySnapshot } from "@blocklayer/backup-top";
import { FrozenView } from "./frozen-view.ts";
import { formatBytes, formatMs } from "./quantities.ts";
import { type Followed, follow, type Scene, writerSpeed } from "./scene.ts";
import type { GuestWriteMeasure } from "./stage.ts";

/**
 * Phase 2: the same to a slow target, first directly, where guest writes wait for the slow target, then with fleecing,
 * where what they overwrite is saved to fast memory and the slow target is fed from the frozen view.
 */
export async function slowTarget(scene: Scene): Promise<GuestWriteMeasure[]> {
  const { stage, settings } = scene;
  const { line } = settings;
  stage.phase("2  A slow target, without and with fleecing");
  stage.fact(
    `the target takes ${formatBytes(line["bytes-per-second"])}/s and ${line["latency-ms"]} ms for each request`,
  );
  const direct = await backUpSlowly(scene, "slow, direct", directBackup);
  const fleeced = await backUpSlowly(scene, "slow, fleecing", fleecedBackup);
  return [direct, fleeced];
}

interface SlowBackup {
  readonly followed: Followed;
  readonly delay: DelaySnapshot;
}

async function backUpSlowly(
  scene: Scene,
  what: string,
  run: (scene: Scene, what: string, target: string) => Promise<SlowBackup>,
): Promise<GuestWriteMeasure> {
  const { served, place, settings } = scene;
  const path = place.file("slow.raw");
  const target = await served.openTarget("slow", path, settings.line);
  const { result, writesPerSecond } = await writerSpeed(scene.writer, () =>
    run(scene, what, target),
  );
  await served.graph.remove(target);
  await rm(path);
  const { moved, elapsedMs, isComplete } = result.followed;
  const end = isComplete ? "" : ", long enough to measure; the job was cancelled";
  scene.stage.fact(`${what}: ${formatBytes(moved)} in ${formatMs(elapsedMs)}${end}`);
  return { what: `to a ${what.replace(",", " target,")}`, delay: result.delay, writesPerSecond };
}

async function directBackup(scene: Scene, what: string, target: string): Promise<SlowBackup> {
  const { served, settings } = scene;
  const device = served.node.name;
  const backup = await served.backups.start({ "job-id": "direct", device, target, sync: "full" });
  const followed = await follow(scene, backup, { what, limitMs: settings.slowMs });
  return { followed, delay: backup.guestWriteDelay() };
}

async function fleecedBackup(scene: Scene, what: string, target: string): Promise<SlowBackup> {
  const { served, settings } = scene;
  const view = await FrozenView.open(served, "fleece");
  await served.graph.change([view.step()]);
  const device = await view.openReader();
  const backup = await served.backups.start({ "job-id": "fleeced", device, target, sync: "full" });
  const followed = await follow(scene, backup, { what, limitMs: settings.slowMs });
  const delay = view.guestWriteDelay();
  await view.remove();
  return { followed, delay };
}
