import type { Programs } from "../cleanup/programs.ts";
import type { WriteArea } from "../disk/write-areas.ts";
import { startClientWriter } from "./client-writer.ts";
import { fioHasNbd, startFioWriter } from "./fio-writer.ts";
import { startQemuIoWriter } from "./qemu-io-writer.ts";

/** What a writer has done since its start. */
export interface WriterCount {
  readonly writes: number;
  /** When it was counted, milliseconds of `performance.now()`. */
  readonly atMs: number;
}

/** A process that writes to the served disk all the time. */
export interface Writer {
  /** What it is, in a few words. */
  readonly description: string;
  readonly pid: number;
  /** Asks the process itself. Not before its first write has arrived. @throws Error it is gone */
  count(): Promise<WriterCount>;
  /** Why it ended before it was stopped, `undefined` while it is well. */
  readonly failure: string | undefined;
  /** Ends the process; resolves when it is gone. */
  stop(): Promise<void>;
}

export interface WriterOptions {
  readonly programs: Programs;
  /** NBD URI of the disk. */
  readonly uri: string;
  readonly areas: readonly WriteArea[];
}

/** Programs that can be the writer. */
export type WriterKind = "fio" | "qemu-io" | "own client";

/** Starts the writer: `fio` where it is installed with its NBD engine, else `qemu-io`, else a client of our own. */
export async function startWriter(options: WriterOptions, kind?: WriterKind): Promise<Writer> {
  switch (kind ?? (await chooseKind(options.programs))) {
    case "fio":
      return startFioWriter(options);
    case "qemu-io":
      return startQemuIoWriter(options);
    case "own client":
      return startClientWriter(options);
  }
}

async function chooseKind(programs: Programs): Promise<WriterKind> {
  if (programs.find("fio") !== undefined && (await fioHasNbd(programs))) return "fio";
  return programs.find("qemu-io") === undefined ? "own client" : "qemu-io";
}
