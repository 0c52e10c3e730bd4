import type { Env } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { HBitmap } from "@blocklayer/hbitmap";
import { alignUp } from "@blocklayer/offsets";
import type { CopyMethod } from "./copy-method.ts";
import type { CopyStatus } from "./copy-options.ts";
import { CopyTask, TaskList } from "./copy-task.ts";

/**
 * The state of every cluster: to be copied (its bit is set), being copied (a task covers it), or neither. Nothing
 * here waits; each method takes clusters from one state to another, whole.
 */
export class ClusterStates {
  readonly clusterSize: number;
  /** Set: has still to be copied. */
  readonly bitmap: HBitmap;
  readonly tasks: TaskList;
  /** Bytes of the tasks. */
  inFlightBytes = 0;
  #size: number;

  constructor(env: Env, size: number, clusterSize: number) {
    this.clusterSize = clusterSize;
    this.#size = size;
    this.bitmap = new HBitmap(size, clusterSize);
    this.tasks = new TaskList(env);
  }

  /** Bytes. */
  get size(): number {
    return this.#size;
  }

  /** Bytes that are not copied, those of tasks included. */
  get remaining(): number {
    return this.bitmap.count + this.inFlightBytes;
  }

  /** Returns what is not copied, with the clusters of tasks. */
  remainingBitmap(): HBitmap {
    const remaining = this.bitmap.clone();
    for (const task of this.tasks) {
      if (!task.isCopied) remaining.set(task.offset, this.inside(task.offset, task.length));
    }
    return remaining;
  }

  /** Begins anew with what `initial` marks, or everything. */
  restart(size: number, initial: HBitmap | undefined): void {
    assert(this.tasks.size === 0, "a copy begins anew while tasks run");
    this.#size = size;
    this.bitmap.truncate(size);
    if (initial === undefined) {
      this.bitmap.setAll();
    } else {
      this.bitmap.resetAll();
      this.bitmap.merge(initial);
    }
  }

  isClean(offset: number, length: number): boolean {
    return (
      this.bitmap.nextDirty(offset, length) < 0 && this.tasks.find(offset, length) === undefined
    );
  }

  status(offset: number, length: number): CopyStatus {
    const { dirty, length: run } = this.bitmap.status(offset, length);
    if (dirty) return { clean: false, length: run };
    let end = offset + run;
    for (const task of this.tasks) {
      if (task.isCopied || task.end <= offset || task.offset >= end) continue;
      if (task.offset <= offset) return { clean: false, length: Math.min(end, task.end) - offset };
      end = task.offset;
    }
    return { clean: true, length: end - offset };
  }

  /** Makes the first dirty clusters of `[position, end)` a task, of about `max` bytes at most. */
  take(position: number, end: number, max: number, method: CopyMethod): CopyTask | undefined {
    const area = this.bitmap.nextDirtyArea(position, end, max);
    if (area === undefined) return undefined;
    const length = alignUp(area.length, this.clusterSize);
    assert(this.tasks.find(area.offset, length) === undefined, "two copy tasks overlap");
    const task = new CopyTask(area.offset, length, method);
    this.clear(task.offset, length);
    this.inFlightBytes += length;
    this.tasks.add(task);
    return task;
  }

  /** Gives the tail of a task back. Who waits for the task finds it dirty and copies it himself. */
  shrink(task: CopyTask, length: number): void {
    if (length >= task.length) return;
    const rest = task.length - length;
    this.bitmap.set(task.offset + length, this.inside(task.offset + length, rest));
    this.inFlightBytes -= rest;
    task.length = length;
    this.tasks.wake(task);
  }

  /** Ends a task; without success its clusters are dirty again. Wakes who waits for it. */
  end(task: CopyTask, isDone: boolean): void {
    this.inFlightBytes -= task.length;
    if (!isDone) this.bitmap.set(task.offset, this.inside(task.offset, task.length));
    this.tasks.remove(task);
  }

  /** Takes clusters out of the bitmap. */
  clear(offset: number, length: number): void {
    this.bitmap.reset(offset, this.inside(offset, length));
  }

  /** Bytes of a range that lie inside the source. */
  inside(offset: number, length: number): number {
    return Math.min(length, this.#size - offset);
  }
}
