import type { BackupJob } from "@blocklayer/backup";
import type { Workplace } from "../cleanup/workplace.ts";
import type { DemoDisk } from "../disk/demo-disk.ts";
import type { FoundPrograms } from "../witness/found-programs.ts";
import type { Writer } from "../writer/writer.ts";
import { formatBytes } from "./quantities.ts";
import type { ServedDisk } from "./served-disk.ts";
import type { Settings } from "./settings.ts";
import type { Stage } from "./stage.ts";

/** What every phase needs. */
export interface Scene {
  readonly stage: Stage;
  readonly settings: Settings;
  readonly place: Workplace;
  readonly programs: FoundPrograms;
  readonly disk: DemoDisk;
  readonly served: ServedDisk;
  readonly writer: Writer;
  /** Aborted when the demo is to end before its time. */
  readonly signal: AbortSignal;
  /** Whether results stay after the demo. */
  readonly keep: boolean;
}

/** Files of the workplace that are results. */
export const RESULTS = {
  disk: "disk.raw",
  full: "full.raw",
  increment: "increment.raw",
  extents: "increment.json",
  restored: "restored.raw",
  frozen: "frozen.raw",
} as const;

/** Time between two looks at a job, milliseconds. */
const LOOK_EVERY_MS = 100;

export interface FollowOptions {
  readonly what: string;
  /** Cancel the job after this time, milliseconds. Default: never. */
  readonly limitMs?: number;
}

/** How a job ended that was followed. */
export interface Followed {
  readonly elapsedMs: number;
  /** Bytes that it moved. */
  readonly moved: number;
  /** It reached its end, and was not cancelled at its limit. */
  readonly isComplete: boolean;
}

/**
 * Shows the progress of a backup until it ends.
 *
 * @throws BlockError why it failed; the signal's reason when that is aborted (the job still runs then); Error the writer
 *   is gone
 */
export async function follow(
  scene: Scene,
  backup: BackupJob,
  { what, limitMs = Number.POSITIVE_INFINITY }: FollowOptions,
): Promise<Followed> {
  const { clock } = scene.served.graph.env;
  const { progress } = backup.job;
  const startMs = clock.now();
  const end = backup.job.completed().then((error) => ({ error }));
  const show = (): void => {
    const { current, total } = progress.snapshot();
    const rate = current / Math.max(0.001, (clock.now() - startMs) / 1000);
    const detail = `${formatBytes(rate)}/s`;
    scene.stage.progressed({ what, done: current, total, detail });
  };
  for (;;) {
    scene.signal.throwIfAborted();
    if (scene.writer.failure !== undefined) throw new Error(scene.writer.failure);
    const elapsedMs = clock.now() - startMs;
    if (elapsedMs >= limitMs) {
      const moved = progress.current;
      await backup.job.cancelAndWait({ force: true });
      return { elapsedMs, moved, isComplete: false };
    }
    show();
    const over = await Promise.race([end, clock.sleep(LOOK_EVERY_MS, scene.signal)]);
    if (over?.error !== undefined) throw over.error;
    if (over !== undefined) break;
  }
  show();
  return { elapsedMs: clock.now() - startMs, moved: progress.current, isComplete: true };
}

/** Measures the writer's own speed while `during` goes on, in writes a second. */
export async function writerSpeed<T>(
  writer: Writer,
  during: () => Promise<T>,
): Promise<{ readonly result: T; readonly writesPerSecond: number }> {
  const before = await writer.count();
  const result = await during();
  const after = await writer.count();
  const seconds = Math.max(0.001, (after.atMs - before.atMs) / 1000);
  return { result, writesPerSecond: (after.writes - before.writes) / seconds };
}
