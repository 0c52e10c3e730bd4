import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

export interface FioJob {
  readonly uri: string;
  readonly kind: "randread" | "randwrite";
  readonly queueDepth: number;
  readonly seconds: number;
  /** Bytes of the disk to use. */
  readonly size: number;
}

interface FioOutput {
  readonly jobs: readonly {
    readonly read: { readonly iops: number };
    readonly write: { readonly iops: number };
  }[];
}

/** Runs fio with 4 KiB requests against an NBD export; resolves to requests a second. */
export async function fio(job: FioJob): Promise<number> {
  const { stdout } = await run(
    "fio",
    [
      "--name=bench",
      "--ioengine=nbd",
      `--uri=${job.uri}`,
      `--rw=${job.kind}`,
      "--bs=4k",
      `--iodepth=${job.queueDepth}`,
      `--size=${job.size}`,
      "--time_based",
      `--runtime=${job.seconds}`,
      "--randrepeat=0",
      "--norandommap",
      "--output-format=json",
    ],
    { maxBuffer: 2 ** 24 },
  );
  const output = JSON.parse(stdout.slice(stdout.indexOf("{"))) as FioOutput;
  const measured = output.jobs[0];
  if (measured === undefined) throw new Error("fio printed no job");
  return job.kind === "randread" ? measured.read.iops : measured.write.iops;
}
