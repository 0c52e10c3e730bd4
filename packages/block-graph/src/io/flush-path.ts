import { completed, Permissions } from "@blocklayer/driver";
import type { NodeIo } from "./node-io.ts";

const WRITERS = Permissions.write | Permissions.writeUnchanged;

/**
 * The flushes of one node, one at a time.
 *
 * A flush covers the writes that had completed when it *started*. So those that were asked for while another ran
 * share the next one: it starts after all of them were asked for, and all of them end as it does.
 *
 * @see spec/graph.md section 7.9; docs/reliability.md RQ-5
 */
export class FlushQueue {
  #running: boolean = false;
  #next: Promise<void> | undefined;
  #startNext: (() => void) | undefined;

  /**
   * Runs `work`, or shares a run of it that has not started.
   *
   * @param wake - resumes who waits for a turn
   */
  run(work: () => Promise<void>, wake: (resume: () => void) => void): Promise<void> {
    if (!this.#running) return this.#start(work, wake);
    this.#next ??= new Promise<void>((resolve) => {
      this.#startNext = resolve;
    }).then(() => {
      this.#next = undefined;
      return this.#start(work, wake);
    });
    return this.#next;
  }

  async #start(work: () => Promise<void>, wake: (resume: () => void) => void): Promise<void> {
    this.#running = true;
    try {
      await work();
    } finally {
      const startNext = this.#startNext;
      this.#startNext = undefined;
      // Until the next one runs the turn is its own: nobody slips in between.
      if (startNext === undefined) this.#running = false;
      else wake(startNext);
    }
  }
}

/**
 * Flushes a node and the children that it may write to. Not counted as in flight: its callers are.
 *
 * @throws BlockError what the driver or a child reports; nothing is then remembered as flushed
 */
export function flushNode(io: NodeIo): Promise<void> {
  const { node } = io;
  if (node.readOnly || !node.active) return completed;
  return io.flushes.run(
    () => flushNow(io),
    (resume) => node.graph.env.wake(resume, "flush"),
  );
}

async function flushNow(io: NodeIo): Promise<void> {
  const { driver, options } = io.node;
  const generation = io.writeGeneration;
  if (driver.flush !== undefined) {
    await driver.flush();
  } else {
    await driver.flushToOs?.();
    if (!options.cacheNoFlush && io.flushedGeneration !== generation) await driver.flushToDisk?.();
    await flushChildren(io);
  }
  io.flushedGeneration = generation;
}

/** Flushes all children even if one fails, so that none is left running; the first failure counts. */
async function flushChildren(io: NodeIo): Promise<void> {
  const flushes: Promise<void>[] = [];
  for (const edge of io.node.children.values()) {
    if ((edge.perm & WRITERS) !== 0) flushes.push(edge.flush());
  }
  if (flushes.length === 0) return;
  for (const result of await Promise.allSettled(flushes)) {
    if (result.status === "rejected") throw result.reason;
  }
}
