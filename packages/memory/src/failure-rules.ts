import { BlockError } from "@blocklayer/errors";

/** The operations of a disk that can be told to fail. */
export const MEMORY_OPERATIONS = [
  "pread",
  "pwrite",
  "pwriteZeroes",
  "pdiscard",
  "flush",
  "truncate",
] as const;

export type MemoryOperation = (typeof MEMORY_OPERATIONS)[number];

/** Tells a disk to fail. */
export interface FailureRule {
  readonly operation: MemoryOperation;
  /** Only requests that overlap the range from here, in bytes. Default 0. */
  readonly offset?: number;
  /** Bytes. Default: to the end of the disk. */
  readonly length?: number;
  /** Which of the matching requests is the first to fail, from 1. Default 1. */
  readonly nth?: number;
  /** How many fail, from the `nth` on. Default: all. */
  readonly times?: number;
  /** An errno name. Default `"EIO"`. */
  readonly code?: string;
}

/** Decides which requests fail. */
export class FailureRules {
  readonly #entries = new Set<{ readonly rule: FailureRule; seen: number }>();

  constructor(rules: readonly FailureRule[] = []) {
    for (const rule of rules) this.add(rule);
  }

  /** Adds a rule; disposing what it returns removes the rule. */
  add(rule: FailureRule): Disposable {
    const entry = { rule, seen: 0 };
    this.#entries.add(entry);
    return { [Symbol.dispose]: () => void this.#entries.delete(entry) };
  }

  /**
   * Counts a request with every rule that matches it.
   *
   * @param length - bytes; a flush and a truncate match whatever the range, with offset and length 0
   * @returns the error of the first rule that says so
   */
  check(
    node: string,
    operation: MemoryOperation,
    offset: number,
    length: number,
  ): BlockError | undefined {
    if (this.#entries.size === 0) return undefined;
    let chosen: FailureRule | undefined;
    for (const entry of this.#entries) {
      if (!matches(entry.rule, operation, offset, length)) continue;
      entry.seen += 1;
      const { nth = 1, times = Number.POSITIVE_INFINITY } = entry.rule;
      if (entry.seen >= nth && entry.seen < nth + times) chosen ??= entry.rule;
    }
    if (chosen === undefined) return undefined;
    return new BlockError(
      chosen.code ?? "EIO",
      `${operation} of ${length} bytes at ${offset} failed as told`,
      { node, operation, offset, length },
    );
  }
}

function matches(
  rule: FailureRule,
  operation: MemoryOperation,
  offset: number,
  length: number,
): boolean {
  if (rule.operation !== operation) return false;
  if (operation === "flush" || operation === "truncate") return true;
  const from = rule.offset ?? 0;
  const end = rule.length === undefined ? Number.POSITIVE_INFINITY : from + rule.length;
  return offset < end && offset + length > from;
}
