import { open, writeFile } from "node:fs/promises";
import type { BackupJob } from "@blocklayer/backup";
import type { TransactionStep } from "@blocklayer/jobs";
import { writeAll } from "../disk/sparse-copy.ts";
import { digestOf } from "../witness/digest.ts";
import type { Extent } from "../witness/restore.ts";
import { FrozenView } from "./frozen-view.ts";
import { BITMAP } from "./full-backup.ts";
import { formatBytes, formatMs, formatShare } from "./quantities.ts";
import { follow, RESULTS, type Scene, writerSpeed } from "./scene.ts";
import type { GuestWriteMeasure } from "./stage.ts";

/** An incremental backup, and the view of the same instant, which is still open. */
export interface Increment {
  readonly view: FrozenView;
  /** What the backup holds: everything that the bitmap had recorded at its instant. */
  readonly extents: readonly Extent[];
  /** The sha256 of the view, read while backup and writer were at work. */
  readonly frozenDigest: string;
  /** Writes that had arrived at the disk by that instant. */
  readonly writeCount: number;
  readonly measure: GuestWriteMeasure;
}

/**
 * Phase 3: moves what has changed since the full backup, and nothing else. A view is frozen in the same instant, which
 * is to be compared with what is restored.
 */
export async function incrementalBackup(scene: Scene): Promise<Increment> {
  const { stage, served, place } = scene;
  stage.phase("3  Incremental backup: only what has changed since");
  const target = await served.openTarget("increment", place.file(RESULTS.increment));
  const view = await FrozenView.open(served, "frozen");
  const instant = new InstantStep(scene);
  const { result, writesPerSecond } = await writerSpeed(scene.writer, async () => {
    const backup = await startTogether(scene, target, view, instant);
    return await backUpAndRead(scene, backup, view);
  });
  await served.graph.remove(target);
  await writeFile(place.file(RESULTS.extents), `${JSON.stringify(instant.extents)}\n`);
  const { moved, elapsedMs } = result.followed;
  const { size } = served.node;
  stage.fact(
    `moved ${formatBytes(moved)} of ${formatBytes(size)} (${formatShare(moved, size)}) in ${formatMs(elapsedMs)}`,
  );
  return {
    view,
    extents: instant.extents,
    frozenDigest: result.frozenDigest,
    writeCount: instant.writeCount,
    measure: { what: "during the incremental backup", delay: result.delay, writesPerSecond },
  };
}

/** Starts the backup and freezes the view with no guest write between the two: the disk is drained meanwhile. */
async function startTogether(
  { served }: Scene,
  target: string,
  view: FrozenView,
  instant: InstantStep,
): Promise<BackupJob> {
  const device = served.node.name;
  const options = { "job-id": "incremental", device, target, sync: "incremental" } as const;
  const hold = await served.node.drain();
  try {
    await served.graph.change([view.step()]);
    const steps = [instant];
    const [backup] = await served.backups.startAll([{ ...options, bitmap: BITMAP }], { steps });
    if (backup === undefined) throw new Error("the backup was not started");
    return backup;
  } finally {
    hold.end();
  }
}

/** Looks at the bitmap in the very turn in which the backup freezes it. */
class InstantStep implements TransactionStep {
  readonly name = "note the instant";
  readonly #scene: Scene;
  extents: readonly Extent[] = [];
  writeCount: number = 0;

  constructor(scene: Scene) {
    this.#scene = scene;
  }

  prepare(): void {
    // Everything happens at the commit, when no write is under way.
  }

  commit(): void {
    const { served } = this.#scene;
    this.writeCount = served.writeCount;
    const { map } = served.bitmaps.lookup(served.node.name, BITMAP);
    const extents: Extent[] = [];
    for (let area = map.nextDirtyArea(0); area !== undefined; ) {
      extents.push({ offset: area.offset, length: area.length });
      area = map.nextDirtyArea(area.offset + area.length);
    }
    this.extents = extents;
  }
}

async function backUpAndRead(scene: Scene, backup: BackupJob, view: FrozenView) {
  await view.openReader();
  const [followed, frozenDigest] = await bothOf(
    follow(scene, backup, { what: "incremental backup" }),
    readFrozen(scene, view),
  );
  return { followed, frozenDigest, delay: backup.guestWriteDelay() };
}

/** Waits for both even if one fails, so that nothing goes on behind our back. */
async function bothOf<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([first, second]);
  return [await first, await second];
}

/** Reads the whole view through the snapshot-access node; saves it too if results are kept. */
async function readFrozen(scene: Scene, view: FrozenView): Promise<string> {
  const { signal, keep, place } = scene;
  const backend = await view.backend();
  try {
    if (!keep) return await digestOf(backend, { signal });
    const saved = await open(place.file(RESULTS.frozen), "wx", 0o600);
    try {
      await saved.truncate(backend.size);
      const also = (piece: Uint8Array, offset: number) =>
        isZero(piece) ? Promise.resolve() : writeAll(saved, Buffer.from(piece), offset);
      return await digestOf(backend, { signal, also });
    } finally {
      await saved.close();
    }
  } finally {
    await backend.close();
  }
}

function isZero(piece: Uint8Array): boolean {
  return piece.every((byte) => byte === 0);
}
