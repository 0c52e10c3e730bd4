import type { DecisionSource } from "../decisions.ts";

/** A life that somebody has written down. */
export interface RecordedLife {
  readonly source: DecisionSource;
  /** World or space; absent in a bare list. */
  readonly world?: string;
}

/**
 * Reads a life: JSON that is a list of decisions, or an object with `decisions` or a `seed`, and perhaps its
 * `world`; of several lines, as a night writes them, the last one that is such.
 *
 * @throws Error there is none
 */
export function readRecorded(text: string): RecordedLife {
  for (const part of [text, ...text.split("\n").reverse()]) {
    const life = lifeOf(parsed(part));
    if (life !== undefined) return life;
  }
  throw new Error(
    "there is no life: a list of whole numbers, or an object with `decisions` or a `seed`",
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function lifeOf(value: unknown): RecordedLife | undefined {
  if (Array.isArray(value)) return areDecisions(value) ? { source: value } : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  const { decisions, seed, world } = value as Record<string, unknown>;
  const named = typeof world === "string" ? { world } : {};
  if (areDecisions(decisions)) return { source: decisions, ...named };
  return isWhole(seed) && seed < 2 ** 32 ? { source: seed, ...named } : undefined;
}

function areDecisions(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every(isWhole);
}

function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
