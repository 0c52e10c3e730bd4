import type { Problem } from "./problem.ts";

/** Containers inside containers that a value may have; a cyclic value is caught by it, too. */
export const MAX_DEPTH = 32;

/** Problems that one parse keeps; a hostile array of a million bad elements reports no more. */
const MAX_PROBLEMS = 64;

/**
 * How the value is written down: as JSON, where `5` and `true` have types, or as dotted keys, where
 * every scalar is text.
 */
export type Notation = "json" | "dotted";

/** Where in a value a schema is reading, and where it reports what it finds wrong. */
export interface Position {
  readonly notation: Notation;
  /** From the root to here; `""` at the root. */
  readonly path: string;
  /** What a message calls this place. */
  readonly fullName: string;
  /** The last member name alone; the reference uses it in some messages. An array element has only its full name. */
  readonly leafName: string;
  readonly depth: number;
  /** Position of a member of the object here. */
  member(name: string): Position;
  /** Position of an element of the array here. */
  item(index: number): Position;
  /** Reports a problem at this place. */
  report(message: string, detail?: Omit<Problem, "path" | "message">): undefined;
  /** Reports a value of another type than the one expected, in the reference's words. */
  reportType(
    expected: string,
    received: unknown,
    options?: { readonly scalar?: boolean },
  ): undefined;
  /** Whether the container here may be entered; reports that it is nested too deeply if not. */
  mayDescend(): boolean;
  /** The same place with a problem list of its own, for trying one of several possibilities. */
  attempt(problems: Problem[]): Position;
}

/** The position of the root of a value. */
export function rootPosition(notation: Notation, path: string, problems: Problem[]): Position {
  return new Reading(notation, path, path, 0, problems);
}

class Reading implements Position {
  readonly notation: Notation;
  readonly path: string;
  readonly leafName: string;
  readonly depth: number;
  readonly #problems: Problem[];

  constructor(
    notation: Notation,
    path: string,
    leafName: string,
    depth: number,
    problems: Problem[],
  ) {
    this.notation = notation;
    this.path = path;
    this.leafName = leafName === "" ? "value" : leafName;
    this.depth = depth;
    this.#problems = problems;
  }

  get fullName(): string {
    return this.path === "" ? "value" : this.path;
  }

  member(name: string): Position {
    const path = this.path === "" ? name : `${this.path}.${name}`;
    return new Reading(this.notation, path, name, this.depth + 1, this.#problems);
  }

  item(index: number): Position {
    const path = this.notation === "json" ? `${this.path}[${index}]` : `${this.path}.${index}`;
    return new Reading(this.notation, path, path, this.depth + 1, this.#problems);
  }

  report(message: string, detail: Omit<Problem, "path" | "message"> = {}): undefined {
    if (this.#problems.length < MAX_PROBLEMS) {
      this.#problems.push({ path: this.path, message, ...detail });
    }
  }

  reportType(
    expected: string,
    received: unknown,
    options: { readonly scalar?: boolean } = {},
  ): undefined {
    const isSubkeys = this.notation === "dotted" && typeof received === "object";
    if (options.scalar === true && isSubkeys) {
      return this.report(`Parameters '${this.fullName}.*' are unexpected`, {
        expected,
        received,
        hint: `'${this.fullName}' takes a single value`,
      });
    }
    return this.report(`Invalid parameter type for '${this.fullName}', expected: ${expected}`, {
      expected,
      received,
    });
  }

  mayDescend(): boolean {
    if (this.depth < MAX_DEPTH) {
      return true;
    }
    this.report(`Parameter '${this.fullName}' is nested too deeply`, {
      hint: `at most ${MAX_DEPTH} levels are allowed`,
    });
    return false;
  }

  attempt(problems: Problem[]): Position {
    return new Reading(this.notation, this.path, this.leafName, this.depth, problems);
  }
}
