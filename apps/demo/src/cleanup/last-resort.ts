import type { ChildProcess } from "node:child_process";
import { rmSync } from "node:fs";

/**
 * What has to go when the process ends, however it ends: the net below the orderly way.
 *
 * Everything is synchronous, so that it works within the event `exit`.
 */
export class LastResort {
  readonly #children = new Set<ChildProcess>();
  readonly #folders = new Set<string>();

  constructor() {
    process.once("exit", () => this.fire());
  }

  addChild(child: ChildProcess): void {
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
  }

  addFolder(path: string): void {
    this.#folders.add(path);
  }

  /** The folder was removed, or is to stay. */
  forgetFolder(path: string): void {
    this.#folders.delete(path);
  }

  /** Kills the children and removes the folders, now. */
  fire(): void {
    for (const child of this.#children) killHard(child);
    this.#children.clear();
    for (const path of this.#folders) rmSync(path, { recursive: true, force: true });
    this.#folders.clear();
  }
}

/** Kills a child and whatever it has started; it leads a process group of its own. */
export function killHard(child: ChildProcess): void {
  signalGroup(child, "SIGKILL");
}

/** Sends a signal to a child's process group. A child that is gone already is no error. */
export function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
