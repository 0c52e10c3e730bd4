import { join } from "node:path";
import { type BackupDaemon, ourDaemon, referenceDaemon } from "../daemons.ts";
import { makeDisk, makeSparseDisk } from "../disk.ts";
import { fio } from "../fio.ts";
import { type BenchSettings, interleave, type Row } from "../row.ts";
import { isInstalled, socketReady } from "../workplace.ts";

const GIB = 2 ** 30;

/** Starts a daemon over fresh disks in memory, lets it be measured, and stops it. */
async function withDaemon(
  { workplace }: BenchSettings,
  start: typeof ourDaemon,
  measure: (daemon: BackupDaemon, socket: string) => Promise<number>,
): Promise<number> {
  const folder = workplace.folder("memory");
  const [disk, target, socket] = ["disk.raw", "target.raw", "nbd.sock"].map((name) =>
    join(folder, name),
  );
  if (disk === undefined || target === undefined || socket === undefined)
    throw new Error("no paths");
  makeDisk(disk, GIB);
  makeSparseDisk(target, GIB);
  const daemon = await start(disk, target, socket);
  try {
    await socketReady(socket);
    return await measure(daemon, socket);
  } finally {
    await daemon.stop();
    makeSparseDisk(disk, 0);
    makeSparseDisk(target, 0);
  }
}

async function contest(
  settings: BenchSettings,
  measure: (daemon: BackupDaemon, socket: string) => Promise<number>,
): Promise<{ ours: number; theirs: number | undefined }> {
  const ours = (): Promise<number> => withDaemon(settings, ourDaemon, measure);
  if (!isInstalled("qemu-storage-daemon")) {
    const { ours: alone } = await interleave(settings.rounds, { ours });
    return { ours: alone, theirs: undefined };
  }
  return interleave(settings.rounds, {
    ours,
    theirs: () => withDaemon(settings, referenceDaemon, measure),
  });
}

/** A full backup of an idle disk, raw to raw in memory. */
export async function backupThroughput(settings: BenchSettings): Promise<Row[]> {
  const { ours, theirs } = await contest(settings, async (daemon) => {
    // The first backup allocates the target; the second is measured.
    await daemon.backup();
    return GIB / 2 ** 30 / ((await daemon.backup()) / 1000);
  });
  const what = "live full backup, raw to raw, idle guest";
  const text = (speed: number): string => `${speed.toFixed(2)} GiB/s`;
  if (theirs === undefined) {
    return [{ what, ours: text(ours), goal: ">= 1.0 x qemu-storage-daemon", isMet: undefined }];
  }
  const ratio = ours / theirs;
  return [
    {
      what,
      ours: text(ours),
      peer: `qemu-storage-daemon ${text(theirs)}`,
      ratio,
      goal: ">= 1.0",
      isMet: ratio >= 1,
    },
  ];
}

/** A guest's writes while full backups of its disk follow one another. */
export async function guestWrites(settings: BenchSettings): Promise<Row[]> {
  const { ours, theirs } = await contest(settings, async (daemon, socket) => {
    let isRunning = true;
    const backups = (async () => {
      while (isRunning) await daemon.backup();
    })();
    try {
      return await fio({
        uri: `nbd+unix:///?socket=${socket}`,
        kind: "randwrite",
        queueDepth: 16,
        seconds: settings.seconds + 1,
        size: GIB,
      });
    } finally {
      isRunning = false;
      await backups;
    }
  });
  const what = "guest 4 KiB random writes, QD 16, during backups";
  const text = (iops: number): string => `${Math.round(iops)} writes/s`;
  if (theirs === undefined) {
    return [{ what, ours: text(ours), goal: ">= 2 x qemu-storage-daemon", isMet: undefined }];
  }
  const ratio = ours / theirs;
  return [
    {
      what,
      ours: text(ours),
      peer: `qemu-storage-daemon ${text(theirs)}`,
      ratio,
      goal: ">= 2",
      isMet: ratio >= 2,
    },
  ];
}
