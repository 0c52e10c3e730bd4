import type { Env } from "@blocklayer/env";
import { BUFFERED_MAX, type CopyMethod } from "./copy-method.ts";

/** One piece that is being copied: as long as it is listed, a clear bit does not mean copied. */
export class CopyTask {
  readonly offset: number;
  /** Bytes, whole clusters. Shrinks while the task finds out what it has to copy. */
  length: number;
  readonly method: CopyMethod;
  /** The source reads as zeroes here: they are written, nothing is read. */
  isZero: boolean = false;
  /** Whether the request that runs, or failed last, is one to the source. */
  isReading: boolean = false;
  /** The target holds it. The task goes on while the source is discarded: whoever wants to write there waits. */
  isCopied: boolean = false;
  /** The source is being discarded here: whatever is written there now may be lost. */
  isDiscarding: boolean = false;
  /** Resumes of those who wait until the task ends or shrinks. */
  readonly waiters: (() => void)[] = [];

  constructor(offset: number, length: number, method: CopyMethod) {
    this.offset = offset;
    this.length = length;
    this.method = method;
  }

  get end(): number {
    return this.offset + this.length;
  }

  /** Bytes that it is charged: zeroes take no buffer, however many they are. */
  get memory(): number {
    return this.isZero ? Math.min(this.length, BUFFERED_MAX) : this.length;
  }
}

/** The tasks of one engine. No two of them overlap: a cluster in a task is clear, and only dirty ones become tasks. */
export class TaskList {
  readonly #env: Env;
  // A list, since it is short and is searched by every write of the guest: nothing is allocated for that.
  readonly #tasks: CopyTask[] = [];

  constructor(env: Env) {
    this.#env = env;
  }

  get size(): number {
    return this.#tasks.length;
  }

  [Symbol.iterator](): Iterator<CopyTask> {
    return this.#tasks[Symbol.iterator]();
  }

  add(task: CopyTask): void {
    this.#tasks.push(task);
  }

  /** Removes a task that ended and wakes who waited for it. */
  remove(task: CopyTask): void {
    const last = this.#tasks.pop();
    if (last !== undefined && last !== task) this.#tasks[this.#tasks.indexOf(task)] = last;
    this.wake(task);
  }

  /** Returns a task that touches `[offset, offset + length)`. */
  find(offset: number, length: number): CopyTask | undefined {
    const end = offset + length;
    for (let index = 0; index < this.#tasks.length; index += 1) {
      const task = this.#tasks[index];
      if (task !== undefined && task.offset < end && offset < task.end) return task;
    }
    return undefined;
  }

  /** Returns a task that discards some of `[offset, offset + length)`. */
  findDiscarding(offset: number, length: number): CopyTask | undefined {
    const end = offset + length;
    return this.#tasks.find((task) => task.isDiscarding && task.offset < end && offset < task.end);
  }

  /** Resolves when the task has ended or become shorter. */
  changed(task: CopyTask): Promise<void> {
    return new Promise((resolve) => task.waiters.push(resolve));
  }

  wake(task: CopyTask): void {
    for (const resume of task.waiters.splice(0)) this.#env.wake(resume, "copy task");
  }

  /** Returns any task, for waiting until none is left. */
  any(): CopyTask | undefined {
    return this.#tasks[0];
  }
}
