import type { Position } from "./reading.ts";
import type { Schema } from "./schema.ts";
import type { TypeCollector, TypeInfo } from "./type-collector.ts";

/** A schema that reads members of one object; several may read the same object, as a union and its variant do. */
export interface MemberReader {
  /**
   * Takes the members it declares, puts the values that fit into `result`, reports the others.
   *
   * @returns whether all of them fit
   */
  readMembers(members: Members, at: Position, result: Map<string, unknown>): boolean;
  /** Adds what it declares to the description of the object. */
  describeMembers(types: TypeCollector): Extract<TypeInfo, { "meta-type": "object" }>;
}

/** A schema of objects that reads them member by member: an object, or a union. */
export interface MembersSchema<out T> extends Schema<T>, MemberReader {}

/** The members of an object while schemas take those they declare. */
export class Members {
  readonly #entries: ReadonlyMap<string, unknown>;
  readonly #declared = new Set<string>();

  private constructor(entries: ReadonlyMap<string, unknown>) {
    this.#entries = entries;
  }

  /**
   * The own enumerable members of an object, but for those that are `undefined`.
   *
   * Nothing for a value that is no object, and for one whose reading throws.
   */
  static of(value: unknown): Members | undefined {
    try {
      if (Object.prototype.toString.call(value) !== "[object Object]") {
        return undefined;
      }
      const entries = Object.entries(value as object);
      return new Members(new Map(entries.filter(([, member]) => member !== undefined)));
    } catch {
      return undefined;
    }
  }

  /** The value of a member, which counts as declared from now on; `undefined` when it is absent. */
  take(name: string): unknown {
    this.#declared.add(name);
    return this.#entries.get(name);
  }

  /** Counts all members as declared: which may be there depends on a member that is wrong. */
  declareAll(): void {
    for (const name of this.#entries.keys()) {
      this.#declared.add(name);
    }
  }

  /** Reports the members that no schema declared; returns whether there were none. */
  reportUndeclared(at: Position): boolean {
    const undeclared = [...this.#entries].filter(([name]) => !this.#declared.has(name));
    const allowed = [...this.#declared].join(", ") || "nothing";
    for (const [name, received] of undeclared) {
      const position = at.member(name);
      position.report(`Parameter '${position.fullName}' is unexpected`, {
        hint: `allowed here: ${allowed}`,
        received,
      });
    }
    return undeclared.length === 0;
  }
}

/** Reads a whole object through a reader of members; nothing when anything was reported. */
export function readObject(
  reader: MemberReader,
  value: unknown,
  at: Position,
): Record<string, unknown> | undefined {
  const members = Members.of(value);
  if (members === undefined) {
    return at.reportType("object", value);
  }
  if (!at.mayDescend()) {
    return undefined;
  }
  const result = new Map<string, unknown>();
  const isComplete = reader.readMembers(members, at, result);
  const isClosed = members.reportUndeclared(at);
  return isComplete && isClosed ? Object.fromEntries(result) : undefined;
}
