import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ourDaemon } from "../daemons.ts";
import { makeSparseDisk } from "../disk.ts";
import type { BenchSettings, Row } from "../row.ts";

const TIB = 2 ** 40;
const LIMIT = 200 * 2 ** 20;

/** Memory of the process while it backs up a sparse disk of 1 TiB. */
export async function sparseBackupMemory({ workplace }: BenchSettings): Promise<Row[]> {
  const folder = workplace.folder("disk");
  const disk = join(folder, "disk.raw");
  const target = join(folder, "target.raw");
  makeSparseDisk(disk, TIB);
  makeSparseDisk(target, TIB);
  const daemon = await ourDaemon(disk, target, join(folder, "nbd.sock"));
  let most = 0;
  let isRunning = true;
  let elapsedMs = 0;
  try {
    const backup = daemon.backup().then((ms) => {
      elapsedMs = ms;
      isRunning = false;
    });
    while (isRunning) {
      most = Math.max(most, await daemon.rss());
      await delay(100);
    }
    await backup;
  } finally {
    await daemon.stop();
  }
  return [
    {
      what: `RSS during a backup of a sparse 1 TiB disk (${(elapsedMs / 1000).toFixed(1)} s)`,
      ours: `${Math.round(most / 2 ** 20)} MiB`,
      goal: "<= 200 MiB",
      isMet: most <= LIMIT,
    },
  ];
}
