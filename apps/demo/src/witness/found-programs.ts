import type { Outcome, Programs } from "../cleanup/programs.ts";

/** The programs of others that the demo asks, those that are installed, and the way to run them. */
export class FoundPrograms {
  readonly mke2fs: string | undefined;
  readonly debugfs: string | undefined;
  readonly dumpe2fs: string | undefined;
  readonly fsck: string | undefined;
  readonly qemuImg: string | undefined;
  readonly #programs: Programs;
  readonly #signal: AbortSignal;

  constructor(programs: Programs, signal: AbortSignal) {
    this.#programs = programs;
    this.mke2fs = programs.find("mke2fs");
    this.debugfs = programs.find("debugfs");
    this.dumpe2fs = programs.find("dumpe2fs");
    this.fsck = programs.find("fsck.ext4");
    this.qemuImg = programs.find("qemu-img");
    this.#signal = signal;
  }

  /** Runs a program to its end. */
  run(command: string, args: readonly string[]): Promise<Outcome> {
    return this.#programs.run(command, args, { signal: this.#signal });
  }

  /** Runs a program that has to succeed, and returns what it printed. */
  mustRun(command: string, args: readonly string[]): Promise<string> {
    return this.#programs.mustRun(command, args, { signal: this.#signal });
  }
}
