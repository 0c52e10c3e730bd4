import type { CampaignReport } from "../campaign.ts";
import type { DecisionSource } from "../decisions.ts";

/** What a worker process is asked for; times in milliseconds. */
export type Task =
  | SeedsTask
  | { readonly kind: "novelty"; readonly world: string; readonly limitMs: number }
  | {
      readonly kind: "exhaustive";
      readonly space: string;
      readonly runsMax: number;
    };

export interface SeedsTask {
  readonly kind: "seeds";
  readonly world: string;
  readonly from: number;
  readonly seeds: number;
  /** Stops early after so long. */
  readonly limitMs: number;
}

/** A life that failed, by its seed or by its decisions. */
export interface FailedLife {
  /** A world, or a space that is explored. */
  readonly world: string;
  readonly seed?: number;
  readonly decisions?: readonly number[];
  readonly message: string;
}

/** What came of a task. */
export interface TaskResult {
  readonly lives: number;
  readonly events: number;
  readonly failures: readonly FailedLife[];
  /** Of seeds. */
  readonly report?: CampaignReport;
  /** Of novelty: decision lists that are kept, and things seen. */
  readonly kept?: number;
  readonly features?: number;
}

/** Who hears what a task is at. */
export interface TaskListener {
  /** A life begins. */
  begins(life: DecisionSource): void;
  /** So many more seeds have lived. */
  lived(report: CampaignReport): void;
}

/** What a worker process tells of its task: the result, or why there is none, comes last. */
export type WorkerMessage =
  | { readonly begins: DecisionSource }
  | { readonly lived: CampaignReport }
  | { readonly result: TaskResult }
  | { readonly error: string };
