import { BlockError, toBlockError } from "@blocklayer/errors";
import type { TransactionStep } from "@blocklayer/jobs";
import type { BlockNode } from "./block-node.ts";
import { beginDrain, untilQuiet } from "./drain.ts";
import type { GraphCore } from "./graph-core.ts";
import { releaseOrphans } from "./node-life.ts";
import { switchOver } from "./switch-over.ts";

/**
 * A step of a change that moves edges.
 *
 * Other steps (of bitmaps, of job starts) may stand beside it in one change: they have no `apply`, and commit
 * in the very turn in which the edges move.
 */
export interface GraphStep extends TransactionStep {
  /** Drained for the time of the change. Read when the change has the graph for itself. */
  readonly touches: readonly BlockNode[];
  /**
   * Changes the links. Synchronous; sees what the steps before it did. May be called more than once: for a
   * trial, which is taken back, and for good.
   *
   * @returns what takes back all but the links, which the graph takes back itself
   * @throws BlockError the step is not possible; it has changed nothing
   */
  apply?(): (() => void) | undefined;
}

/**
 * Carries out steps as one: all drained, all prepared, then the links, the permissions of the final graph and
 * all commits in one turn. Or nothing at all.
 *
 * @see docs/design.md section 4: the rules for surgery in an event loop
 */
export async function runChange(
  core: GraphCore,
  steps: readonly (GraphStep | TransactionStep)[],
): Promise<void> {
  const waiting = core.surgery.lock();
  if (waiting !== undefined) await waiting;
  const run = new ChangeRun(core, steps);
  try {
    await run.run();
  } catch (error) {
    core.surgery.unlock();
    // Somebody else may have let go of a node meanwhile. What closing it reports is announced by `closeFailed`.
    await releaseOrphans(run.concerned);
    throw error;
  }
  core.surgery.unlock();
  // Closing may take as long as a peer likes, so it is done without the mutex.
  run.faults.push(...(await releaseOrphans(run.concerned)));
  if (run.faults.length > 0) {
    throw new AggregateError(
      run.faults,
      `committed, but could not be finished: ${run.faults.join("; ")}`,
    );
  }
}

class ChangeRun {
  /** What went wrong when it was too late to take the change back. */
  readonly faults: unknown[] = [];
  /** The nodes that may have lost their last owner. */
  readonly concerned: BlockNode[] = [];
  readonly #core: GraphCore;
  readonly #steps: readonly (GraphStep | TransactionStep)[];
  readonly #holds: (() => void)[] = [];
  readonly #started: TransactionStep[] = [];
  readonly #prepared: TransactionStep[] = [];
  #undos: (() => void)[] = [];
  #touched: readonly BlockNode[] = [];

  constructor(core: GraphCore, steps: readonly (GraphStep | TransactionStep)[]) {
    this.#core = core;
    this.#steps = steps;
  }

  async run(): Promise<void> {
    try {
      await this.#drain();
      for (const step of this.#steps) {
        this.#started.push(step);
        await step.prepare();
        this.#prepared.push(step);
      }
      const bereft = await switchOver(this.#core, {
        apply: () => this.#apply(),
        undo: () => this.#undo(),
        commit: () => this.#commit(),
        movesEdges: true,
      });
      this.concerned.push(...bereft);
    } catch (error) {
      throw await this.#abort(error);
    } finally {
      this.#endDrains();
    }
    await this.#clean(this.#prepared);
  }

  async #drain(): Promise<void> {
    this.#touched = [
      ...new Set(this.#steps.flatMap((step) => ("touches" in step ? step.touches : []))),
    ];
    for (const node of this.#touched) {
      if (node.state !== "open") {
        throw new BlockError("ENOMEDIUM", `Node '${node.name}' is closed`, { node: node.name });
      }
    }
    this.concerned.push(...this.#touched);
    for (const node of this.#touched) {
      // A node must not close while a change that is about it is prepared.
      node.changeCount += 1;
      const drained = beginDrain(node);
      this.#holds.push(() => {
        drained.end();
        node.changeCount -= 1;
      });
    }
    await untilQuiet(this.#core, () => this.#touched);
  }

  #endDrains(): void {
    for (const release of this.#holds.splice(0)) release();
  }

  #apply(): readonly BlockNode[] {
    this.#undos = [];
    for (const step of this.#steps) {
      const undo = "apply" in step ? step.apply?.() : undefined;
      if (undo !== undefined) this.#undos.push(undo);
    }
    return this.#touched;
  }

  #undo(): void {
    for (const undo of this.#undos.toReversed()) undo();
    this.#undos = [];
  }

  #commit(): void {
    for (const step of this.#prepared) collect(() => step.commit?.(), this.faults);
  }

  async #abort(error: unknown): Promise<unknown> {
    const faults: unknown[] = [];
    for (const step of this.#prepared.toReversed()) collect(() => step.abort?.(), faults);
    this.#endDrains();
    for (const step of this.#started.toReversed()) await collectAsync(() => step.clean?.(), faults);
    if (faults.length === 0) return error;
    const { code, message, context, hint, errorClass } = toBlockError(error, "change failed");
    return new BlockError(
      code,
      message,
      { ...context, undoErrors: faults },
      {
        cause: error,
        errorClass,
        ...(hint === undefined ? {} : { hint }),
      },
    );
  }

  async #clean(steps: readonly TransactionStep[]): Promise<void> {
    for (const step of steps) await collectAsync(() => step.clean?.(), this.faults);
  }
}

function collect(call: () => void, faults: unknown[]): void {
  try {
    call();
  } catch (error) {
    faults.push(error);
  }
}

async function collectAsync(call: () => void | Promise<void>, faults: unknown[]): Promise<void> {
  try {
    await call();
  } catch (error) {
    faults.push(error);
  }
}
