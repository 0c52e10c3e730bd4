import { signalGroup } from "../cleanup/last-resort.ts";
import type { Programs } from "../cleanup/programs.ts";
import { LANES, REST_MS, WRITE_SIZE } from "./pace.ts";
import type { Writer, WriterCount, WriterOptions } from "./writer.ts";
import { WriterProcess } from "./writer-process.ts";

/** Longer than any demo; fio wants an end. */
const RUNTIME_S = 24 * 3600;
/** fio answers a signal within this time, milliseconds. */
const ANSWER_MS = 5000;

/** Tells whether the installed `fio` can write over NBD. */
export async function fioHasNbd(programs: Programs): Promise<boolean> {
  const options = { signal: AbortSignal.timeout(ANSWER_MS) };
  const { stdout } = await programs.run("fio", ["--enghelp"], options);
  return /^\s*nbd\s*$/m.test(stdout);
}

/** Starts `fio`: random writes, each followed by a rest; it tells its counts when it gets `SIGUSR1`. */
export function startFioWriter({ programs, uri, areas }: WriterOptions): Writer {
  const child = programs.start("fio", fioArguments(uri, areas), ["ignore", "pipe", "pipe"]);
  const process = new WriterProcess("fio", child);
  const reports = new FioReports();
  child.stdout?.on("data", (chunk: Buffer) => reports.push(chunk.toString()));
  return {
    description: `fio, engine nbd, ${WRITE_SIZE / 1024} KiB random writes, ${LANES} at once`,
    pid: process.pid,
    get failure() {
      return process.failure;
    },
    async count() {
      const report = reports.next();
      signalGroup(child, "SIGUSR1");
      return await process.whileAlive(report);
    },
    stop: () => process.stop("SIGINT"),
  };
}

function fioArguments(uri: string, areas: WriterOptions["areas"]): string[] {
  const lanes = Math.max(1, Math.floor(LANES / areas.length));
  const everywhere = [
    "--ioengine=nbd",
    `--uri=${uri}`,
    "--rw=randwrite",
    `--bs=${WRITE_SIZE}`,
    "--iodepth=1",
    `--numjobs=${lanes}`,
    `--thinktime=${REST_MS * 1000}`,
    "--time_based",
    `--runtime=${RUNTIME_S}`,
    "--norandommap",
    "--refill_buffers",
    "--thread",
    "--eta=never",
    "--output-format=json",
  ];
  const jobs = areas.flatMap(({ offset, length }, index) => [
    `--name=area${index}`,
    `--offset=${offset}`,
    `--size=${length}`,
  ]);
  return [...everywhere, ...jobs];
}

interface FioReport {
  readonly jobs: readonly { readonly write: { readonly total_ios: number } }[];
}

/** Takes apart what fio prints: one JSON object after the other, each from a line `{` to a line `}`. */
export class FioReports {
  readonly #waiting: ((count: WriterCount) => void)[] = [];
  #text: string = "";

  /** The next report that is complete. */
  next(): Promise<WriterCount> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  push(text: string): void {
    this.#text += text;
    for (;;) {
      const found = /^\{\n[\s\S]*?^\}\n/m.exec(this.#text);
      if (found === null) return;
      this.#text = this.#text.slice(found.index + found[0].length);
      const { jobs } = JSON.parse(found[0]) as FioReport;
      const writes = jobs.reduce((sum, { write }) => sum + write.total_ios, 0);
      this.#waiting.shift()?.({ writes, atMs: performance.now() });
    }
  }
}
