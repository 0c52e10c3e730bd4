import type { CampaignReport } from "../campaign.ts";

/** What a worker process is asked for; times in milliseconds. */
export type Task =
  | {
      readonly kind: "seeds";
      readonly world: string;
      readonly from: number;
      readonly seeds: number;
      /** Stops early after so long. */
      readonly limitMs: number;
    }
  | { readonly kind: "novelty"; readonly world: string; readonly limitMs: number }
  | {
      readonly kind: "exhaustive";
      readonly space: string;
      readonly runsMax: number;
    };

/** A life that failed, by its seed or by its decisions. */
export interface FailedLife {
  /** A world, or a space that is explored. */
  readonly world: string;
  readonly seed?: number;
  readonly decisions?: readonly number[];
  readonly message: string;
}

/** What a worker process answers. */
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
