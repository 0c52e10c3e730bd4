/** How far something is. */
export interface Advance {
  readonly what: string;
  /** Bytes. */
  readonly done: number;
  readonly total: number;
  /** A few words that go with it. */
  readonly detail: string;
}

/** What copy-before-write cost the guest in one phase. */
export interface GuestWriteMeasure {
  readonly what: string;
  /** Guest writes that passed the filter, and how long it held them, in milliseconds. */
  readonly delay:
    | {
        readonly count: number;
        readonly sumMs: number;
        readonly p50Ms: number;
        readonly p99Ms: number;
        readonly maxMs: number;
      }
    | undefined;
  /** Writes a second that the writer itself counted. */
  readonly writesPerSecond: number;
}

/** The word of somebody about the result. */
export interface Testimony {
  readonly who: string;
  readonly outcome: "passed" | "failed" | "skipped";
  readonly detail: string;
}

/** A command that anybody can repeat. */
export interface Command {
  readonly purpose: string;
  readonly line: string;
}

/** Where the scenario is shown. It knows nothing of how. */
export interface Stage {
  /** A phase begins. */
  phase(title: string): void;
  /** A sentence about what was found or done. */
  fact(text: string): void;
  /** Told often; the last call of something has `done` equal to `total`, or a fact follows. */
  progressed(advance: Advance): void;
  measured(rows: readonly GuestWriteMeasure[]): void;
  testified(testimony: Testimony): void;
  commands(list: readonly Command[]): void;
  /** The last word. */
  verdict(passed: boolean, text: string): void;
  /** Resolves when the user wants to go on; at once where nobody is asked. */
  ask(question: string, signal: AbortSignal): Promise<void>;
}
