import type { BackupOptions } from "@blocklayer/backup";
import { BlockError } from "@blocklayer/errors";
import type { TransactionStep } from "@blocklayer/jobs";
import type { Simulation } from "../simulation.ts";
import type { BackupStack } from "./backup-stack.ts";

/** What keeps a transaction from happening, dullest first; the last is too late for that. */
const OBSTACLES = [
  "a step fails",
  "no such target",
  "an id twice",
  "a node name twice",
  "a target twice",
  "a chunk too small",
  "a bitmap in use",
  "a user cancels",
  "a step fails behind the commit",
] as const;

/** A transaction, ready to be started. */
export interface Transaction {
  readonly list: readonly BackupOptions[];
  readonly steps: readonly TransactionStep[];
}

/** Something that is in the way of a transaction. */
export class GroupObstacle {
  readonly name: (typeof OBSTACLES)[number];
  readonly #simulation: Simulation;
  readonly #stack: BackupStack;
  #isCommitted: boolean = false;

  constructor(simulation: Simulation, stack: BackupStack) {
    this.#simulation = simulation;
    this.#stack = stack;
    this.name = simulation.decisions.among("obstacle", OBSTACLES);
  }

  /** Whether the transaction may have happened nevertheless. */
  get mayBeLate(): boolean {
    return this.name === "a user cancels" || this.#isCommitted;
  }

  /** Whether its step saw the commit, and failed then. */
  get isCommitted(): boolean {
    return this.#isCommitted;
  }

  /** What was committed is a start, whatever fails then. */
  judge(outcome: unknown): void {
    if (!this.#isCommitted) return;
    this.#simulation.expect(Array.isArray(outcome), "committed and refused", () => String(outcome));
    this.#simulation.sometimes("a step failed behind the commit of a start");
  }

  /** Returns the transaction with the obstacle in it. */
  putInTheWayOf({ list, steps }: Transaction): Transaction {
    const { decisions } = this.#simulation;
    const victim = decisions.choose("victim", list.length);
    const changed = (options: Partial<BackupOptions>): Transaction => ({
      list: list.map((one, index) => (index === victim ? { ...one, ...options } : one)),
      steps,
    });
    const withStep = (step: TransactionStep): Transaction => {
      const at = decisions.choose("position", steps.length + 1);
      return { list, steps: steps.toSpliced(at, 0, step) };
    };
    switch (this.name) {
      case "a step fails":
        return withStep(this.#failingStep());
      case "no such target":
        return changed({ target: "nowhere" });
      case "an id twice":
        return changed({ "job-id": list[victim === 0 ? 1 : 0]?.["job-id"] ?? "" });
      case "a node name twice":
        return changed({ "filter-node-name": "disk0" });
      case "a target twice":
        return changed({ target: list[victim === 0 ? 1 : 0]?.target ?? "" });
      case "a chunk too small":
        return changed({ "x-perf": { "max-chunk": 4096 } });
      case "a bitmap in use": {
        const remove = this.#stack.bitmaps.removeStep({ node: "disk0", name: "bm" });
        const bitmap = { bitmap: "bm", sync: "bitmap", "bitmap-mode": "always" } as const;
        return {
          list: list.map((one, index) => (index === 0 ? { ...one, ...bitmap } : one)),
          steps: [...steps, remove],
        };
      }
      case "a user cancels":
        return { list, steps };
      case "a step fails behind the commit":
        return withStep(this.#lateStep());
    }
  }

  #failingStep(): TransactionStep {
    const fault = new BlockError("EINVAL", "a planned obstacle");
    const turn = (): Promise<void> => this.#simulation.scheduler.turn("obstacle");
    return { name: this.name, prepare: () => turn().then(() => Promise.reject(fault)) };
  }

  #lateStep(): TransactionStep {
    const { decisions, scheduler } = this.#simulation;
    const fault = new BlockError("EIO", "a fault behind the commit");
    const isInCommit = decisions.chance("fails in its commit", 1, 2);
    return {
      name: this.name,
      prepare: () => undefined,
      commit: () => {
        this.#isCommitted = true;
        if (isInCommit) throw fault;
      },
      clean: async () => {
        await scheduler.turn("clean");
        if (this.#isCommitted && !isInCommit) throw fault;
      },
    };
  }
}
