import { closeSync, openSync, writeSync } from "node:fs";
import { realEnv } from "@blocklayer/env";
import type { Canary } from "../canaries/canary.ts";
import { huntInProcess } from "../canaries/hunt-all.ts";
import { spaces } from "../exhaustive/all-spaces.ts";
import type { World } from "../simulation.ts";
import type { FailedLife, Task, TaskResult } from "./tasks.ts";
import { Workers } from "./workers.ts";

/** Parts of the time, as weights. */
const SHARES = { seeds: 55, novelty: 15, exhaustive: 10, canary: 3 } as const;
type Kind = keyof typeof SHARES;
const KINDS: readonly Kind[] = ["seeds", "novelty", "exhaustive", "canary"];

/** Milliseconds that seeds or novelty of one world get at a time. */
const SLICE_MS = 10_000;
const RUNS_MAX = 200_000;
const PROGRESS_MS = 60_000;
/** Milliseconds that the last tasks may take when the time is over. */
const GRACE_MS = 10_000;
/** Seeds that a task gets, more than fit into its time. */
const SEEDS_PER_TASK = 100_000;
const SEEDS = 2 ** 32;

export interface NightOptions {
  readonly worlds: readonly World[];
  readonly canaries: readonly Canary[];
  /** `undefined`: until told. */
  readonly hours: number | undefined;
  readonly jobs: number;
  /** Milliseconds that one life may take. `undefined`: as long as is usual. */
  readonly lifeMs: number | undefined;
  /** File that a line of JSON is added to for each life that failed. */
  readonly file: string;
  readonly print: (line: string) => void;
  /** Aborted when it is to stop. */
  readonly signal: AbortSignal;
}

/**
 * Runs until told: fresh seeds, lists of decisions that lead to something new, spaces that are explored completely, and
 * now and then a planted bug, to see whether it is still found.
 *
 * @see docs/reliability.md section 3.3.9
 */
export class Night {
  readonly #options: NightOptions;
  readonly #workers: Workers;
  readonly #env = realEnv();
  readonly #startMs: number;
  readonly #file: number;
  /** Aborted when it is over, by time or because it was told. */
  readonly #stop = new AbortController();
  /** Milliseconds spent, lives and failures of each kind. */
  readonly #spent = new Map<Kind, { ms: number; lives: number; failures: number }>();
  readonly #turns = new Map<Kind, number>();
  readonly #features = new Map<string, string>();
  #nextSeed: number;
  #failureCount = 0;
  #error: unknown;

  /** @throws Error the file can not be written to */
  constructor(options: NightOptions) {
    this.#options = options;
    this.#file = openSync(options.file, "a");
    const { jobs: count, lifeMs } = options;
    this.#workers = new Workers({ count, lifeMs, signal: this.#stop.signal });
    this.#startMs = this.#env.clock.now();
    this.#nextSeed = this.#env.random.below(2 ** 30);
    for (const kind of KINDS) this.#spent.set(kind, { ms: 0, lives: 0, failures: 0 });
  }

  /** Returns the exit code: 1 when something failed. @throws Error a task could not be done */
  async run(): Promise<number> {
    const { jobs, signal, print, file } = this.#options;
    print(`night: ${jobs} processes, from seed ${this.#nextSeed}, failures go to ${file}`);
    const stop = this.#stop;
    signal.addEventListener("abort", () => stop.abort(), { once: true });
    if (signal.aborted) stop.abort();
    const progress = this.#progress(stop.signal);
    const end = this.#end(stop.signal);
    await Promise.all(Array.from({ length: jobs }, () => this.#work()));
    stop.abort();
    await Promise.all([progress, end]);
    this.#workers.close();
    closeSync(this.#file);
    this.#tell();
    if (this.#error !== undefined) throw this.#error;
    return this.#failureCount > 0 ? 1 : 0;
  }

  get #isOver(): boolean {
    return this.#stop.signal.aborted || this.#error !== undefined || this.#restMs <= 0;
  }

  get #restMs(): number {
    const { hours = Number.POSITIVE_INFINITY } = this.#options;
    return this.#startMs + hours * 3_600_000 - this.#env.clock.now();
  }

  async #work(): Promise<void> {
    while (!this.#isOver) {
      const kind = this.#neediest();
      const startMs = this.#env.clock.now();
      // Counted from the beginning, so that two processes do not both make up for it.
      const spent = this.#spent.get(kind) ?? { ms: 0, lives: 0, failures: 0 };
      spent.ms += SLICE_MS;
      try {
        const { lives, failures } = await this.#one(kind);
        spent.lives += lives;
        spent.failures += failures.length;
        for (const failure of failures) this.#report(failure);
      } catch (error) {
        if (!this.#stop.signal.aborted) this.#error ??= error;
      }
      spent.ms += this.#env.clock.now() - startMs - SLICE_MS;
    }
  }

  /** The kind that has had least of its share. */
  #neediest(): Kind {
    const part = (kind: Kind): number => (this.#spent.get(kind)?.ms ?? 0) / SHARES[kind];
    return KINDS.reduce((least, kind) => (part(kind) < part(least) ? kind : least));
  }

  async #one(kind: Kind): Promise<TaskResult> {
    const turn = this.#turns.get(kind) ?? 0;
    this.#turns.set(kind, turn + 1);
    if (kind === "canary") return this.#hunt(turn);
    const task = this.#task(kind, turn);
    const result = await this.#workers.run(task);
    if (task.kind === "novelty") {
      this.#features.set(task.world, `${result.features ?? 0} (${result.kept ?? 0} kept)`);
    }
    return result;
  }

  #task(kind: "seeds" | "novelty" | "exhaustive", turn: number): Task {
    const { worlds } = this.#options;
    if (kind === "exhaustive") {
      return { kind, space: spaces[turn % spaces.length]?.name ?? "", runsMax: RUNS_MAX };
    }
    const world = worlds[turn % worlds.length]?.name ?? "";
    const limitMs = Math.min(SLICE_MS, this.#restMs);
    if (kind === "novelty") return { kind, world, limitMs };
    const from = this.#nextSeed;
    this.#nextSeed = (from + SEEDS_PER_TASK) % (SEEDS - SEEDS_PER_TASK);
    return { kind, world, from, seeds: SEEDS_PER_TASK, limitMs };
  }

  async #hunt(turn: number): Promise<TaskResult> {
    const { canaries } = this.#options;
    const canary = canaries[turn % canaries.length];
    if (canary === undefined) return { lives: 0, events: 0, failures: [] };
    const { seeds } = await huntInProcess(canary, 1, 0, this.#stop.signal);
    const lives = seeds.reduce((one, two) => one + two, 0);
    const message = `the planted bug '${canary.id}' was not found`;
    const failures = seeds.length > 0 ? [] : [{ world: canary.world, message }];
    return { lives, events: 0, failures };
  }

  #report(failure: FailedLife): void {
    const { print } = this.#options;
    this.#failureCount += 1;
    writeSync(this.#file, `${JSON.stringify(failure)}\n`);
    const { world, seed, message } = failure;
    print(
      `FAILED ${world} ${seed === undefined ? "(decisions in the file)" : `seed ${seed}`}: ${message}`,
    );
  }

  async #progress(signal: AbortSignal): Promise<void> {
    while (await this.#slept(PROGRESS_MS, signal)) this.#tell();
  }

  /** Stops everything when the time is over, whatever is under way. */
  async #end(signal: AbortSignal): Promise<void> {
    let restMs = this.#restMs + GRACE_MS;
    // A timer does not take any time.
    while (restMs > 0 && (await this.#slept(Math.min(restMs, PROGRESS_MS), signal))) {
      restMs = this.#restMs + GRACE_MS;
    }
    this.#stop.abort();
  }

  /** Returns whether the time has passed; `false`: the signal was aborted before. */
  async #slept(delayMs: number, signal: AbortSignal): Promise<boolean> {
    if (signal.aborted) return false;
    try {
      await this.#env.clock.sleep(delayMs, signal);
      return true;
    } catch (error) {
      if (!signal.aborted) throw error;
      return false;
    }
  }

  /** One line about all so far. */
  #tell(): void {
    const minutes = (this.#env.clock.now() - this.#startMs) / 60_000;
    const parts = KINDS.map((kind) => {
      const { ms, lives, failures } = this.#spent.get(kind) ?? { ms: 0, lives: 0, failures: 0 };
      return `${kind} ${lives} lives in ${Math.max(0, Math.round(ms / 1000))} s, ${failures} failures`;
    });
    const seen = [...this.#features].map(([world, text]) => `${world} ${text}`).join(", ");
    this.#options.print(
      `${minutes.toFixed(1)} min: ${parts.join("; ")}${seen === "" ? "" : `; seen: ${seen}`}`,
    );
  }
}
