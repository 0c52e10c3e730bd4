import { type CampaignReport, mergeReports, reportOf } from "../campaign.ts";
import type { SeedsTask, TaskResult } from "./tasks.ts";

/** What is wrong with a life that did not come to its end. */
export interface Finding {
  readonly kind: string;
  readonly message: string;
}

interface Seeds {
  readonly from: number;
  readonly seeds: number;
}

/** Seeds of a task that are lived by one process after the other, when lives end their processes. */
export class SeedsRun {
  readonly #world: string;
  readonly #reports: CampaignReport[] = [];
  /** What is left, the next part last. */
  readonly #rest: Seeds[];
  /** Seeds that ended a process once: perhaps it was not their fault. */
  readonly #suspects = new Set<number>();
  /** First seed of the part under way that is not told of, and the end of the part. */
  #from = 0;
  #end = 0;

  constructor({ world, from, seeds }: SeedsTask) {
    this.#world = world;
    this.#rest = [{ from, seeds }];
  }

  /** Returns what the next process is to live; `undefined` when nothing is left. */
  next(): Seeds | undefined {
    const part = this.#rest.pop();
    if (part === undefined) return undefined;
    this.#from = part.from;
    this.#end = part.from + part.seeds;
    return part;
  }

  /** The next seeds of the part have lived. */
  lived(report: CampaignReport): void {
    this.#reports.push(report);
    this.#from += report.seeds;
  }

  /**
   * The process is gone, with what it had not told. A seed that never ends is left out from now on; one whose process
   * ended gets a second chance.
   */
  broke(how: "endless" | "ended", seed: number, finding: Finding): void {
    const failure = { world: this.#world, seed, ...finding };
    if (how === "ended" && !this.#suspects.has(seed)) {
      this.#suspects.add(seed);
      this.#reports.push(reportOf(failure, 0));
      this.#leave(this.#from, this.#end);
      return;
    }
    const report = reportOf(failure, 1);
    this.#reports.push(this.#suspects.has(seed) ? { ...report, failures: [] } : report);
    this.#leave(seed + 1, this.#end);
    this.#leave(this.#from, seed);
  }

  /** What has lived so far. */
  result(): TaskResult {
    const report = mergeReports(this.#world, this.#reports);
    return { lives: report.seeds, events: report.events, failures: report.failures, report };
  }

  #leave(from: number, end: number): void {
    if (from < end) this.#rest.push({ from, seeds: end - from });
  }
}
