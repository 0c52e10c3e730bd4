import type { CheckResult, RepairMode } from "@blocklayer/driver";

/** Something that a check found. */
export interface CheckFinding {
  readonly kind: "corruption" | "leak" | "check-error";
  readonly isFixed: boolean;
  /** A sentence, in the words of `qemu-img check`. */
  readonly message: string;
}

/** Told of each finding. */
export type OnFinding = (finding: CheckFinding) => void;

/** Makes the sentence of a finding: only when somebody listens. */
type Text = () => string;

/**
 * Adds up what a check finds and mends. An image is walked several times, and what a walk finds is counted in
 * one of them: the others are {@link Findings.muted}.
 */
export class Findings {
  readonly repair: RepairMode;
  readonly #onFinding: OnFinding | undefined;
  #muted: "nothing" | "walk" | "all" = "nothing";
  corruptions = 0;
  leaks = 0;
  checkErrors = 0;
  corruptionsFixed = 0;
  leaksFixed = 0;
  totalClusters = 0;
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  /** Some references could not be read, so what seems to be unused may be in use. */
  isIncomplete: boolean = false;
  /** The counts can not be mended where they are. */
  needsRebuild: boolean = false;

  constructor(repair: RepairMode, onFinding?: OnFinding) {
    this.repair = repair;
    this.#onFinding = onFinding;
  }

  get isClean(): boolean {
    return this.corruptions === 0 && this.leaks === 0 && this.checkErrors === 0;
  }

  /**
   * Counts nothing while `work` runs.
   *
   * @param walkOnly - what concerns one window is counted all the same
   */
  async muted<T>(work: () => Promise<T>, walkOnly = false): Promise<T> {
    const before = this.#muted;
    this.#muted = walkOnly ? "walk" : "all";
    try {
      return await work();
    } finally {
      this.#muted = before;
    }
  }

  /** @param times - how often it is met: a table that several others refer to counts for each of them */
  corruption(text: Text, times = 1): void {
    if (this.#muted === "nothing") this.#corrupt(text, times);
  }

  /** A corruption that only the walk for one window meets. */
  corruptionInWindow(text: Text, times = 1): void {
    if (this.#muted !== "all") this.#corrupt(text, times);
  }

  corruptionFixed(text: Text): void {
    if (this.#muted !== "nothing") return;
    this.corruptionsFixed += 1;
    this.#tell("corruption", true, text);
  }

  leak(text: Text): void {
    if (this.#muted !== "nothing") return;
    this.leaks += 1;
    this.#tell("leak", false, text);
  }

  /** References could not be read: nothing is given back then. */
  unreadable(what: string, error: unknown): void {
    this.isIncomplete = true;
    this.failed(what, error);
  }

  /** Something could not be read or written. */
  failed(what: string, error: unknown): void {
    if (this.#muted !== "nothing") return;
    this.checkErrors += 1;
    const reason = error instanceof Error ? error.message : String(error);
    this.#tell("check-error", false, () => `ERROR: ${what} failed: ${reason}`);
  }

  /** What the counts of the file had wrong is right now. */
  countsFixed(corruptions: number, leaks: number): void {
    this.corruptions -= corruptions;
    this.corruptionsFixed += corruptions;
    this.leaks -= leaks;
    this.leaksFixed += leaks;
  }

  /** Adds to the statistics of the active disk. */
  allocated(allocated: number, fragmented: number, compressed: number): void {
    if (this.#muted !== "nothing") return;
    this.allocatedClusters += allocated;
    this.fragmentedClusters += fragmented;
    this.compressedClusters += compressed;
  }

  /** @param imageEndOffset - bytes: behind the last host cluster in use */
  result(imageEndOffset: number): CheckResult {
    return {
      corruptions: this.corruptions,
      leaks: this.leaks,
      checkErrors: this.checkErrors,
      corruptionsFixed: this.corruptionsFixed,
      leaksFixed: this.leaksFixed,
      imageEndOffset,
      totalClusters: this.totalClusters,
      allocatedClusters: this.allocatedClusters,
      fragmentedClusters: this.fragmentedClusters,
      compressedClusters: this.compressedClusters,
    };
  }

  #corrupt(text: Text, times: number): void {
    this.corruptions += times;
    this.#tell("corruption", false, text);
  }

  #tell(kind: CheckFinding["kind"], isFixed: boolean, text: Text): void {
    this.#onFinding?.({ kind, isFixed, message: text() });
  }
}
