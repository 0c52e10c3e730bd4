import type { Problem } from "./problem.ts";
import type { Notation, Position } from "./reading.ts";
import { nullValue } from "./scalars.ts";
import { type Infer, type Read, type Schema, SchemaBase } from "./schema.ts";
import type { TypeCollector } from "./type-collector.ts";

/**
 * A value whose type decides what it is: the name of a node, or the definition of one.
 *
 * In JSON the first branch of the value's type is taken. Text of dotted keys may fit several branches; the
 * first that can read it is taken, so a `string()` among them comes last. A name given before the branches
 * is the one that messages use: `expected: BlockdevRef`.
 */
export function alternate<S extends readonly Schema<unknown>[]>(
  ...branches: S
): Schema<Infer<S[number]>>;
export function alternate<S extends readonly Schema<unknown>[]>(
  name: string,
  ...branches: S
): Schema<Infer<S[number]>>;
export function alternate(...parts: readonly (string | Schema<unknown>)[]): Schema<unknown> {
  const name = parts.find((part) => typeof part === "string");
  return new AlternateSchema(
    name,
    parts.filter((part) => typeof part !== "string"),
  );
}

/** The schema's values and null; in dotted keys null is the empty text. */
export function nullable<T>(schema: Schema<T>): Schema<T | null> {
  return new NullableSchema(undefined, [nullValue(), schema]) as Schema<T | null>;
}

/** A schema that is built at its first use, so that it can contain itself. */
export function lazy<T>(build: () => Schema<T>): Schema<T> {
  return new LazySchema(build);
}

class AlternateSchema extends SchemaBase<unknown> {
  readonly #name: string | undefined;
  readonly branches: readonly Schema<unknown>[];

  constructor(name: string | undefined, branches: readonly Schema<unknown>[]) {
    super();
    this.#name = name;
    this.branches = branches;
  }

  get typeName(): string {
    return this.#name ?? this.branches.map((branch) => branch.typeName).join(" or ");
  }

  accepts(value: unknown, notation: Notation): boolean {
    return this.branches.some((branch) => branch.accepts(value, notation));
  }

  read(value: unknown, at: Position): Read<unknown> {
    const candidates = this.branches.filter((branch) => branch.accepts(value, at.notation));
    const [first] = candidates;
    if (first === undefined) {
      return at.reportType(this.typeName, value);
    }
    for (const branch of candidates.length > 1 ? candidates : []) {
      const problems: Problem[] = [];
      const read = branch.read(value, at.attempt(problems));
      if (read !== undefined && problems.length === 0) {
        return read;
      }
    }
    return first.read(value, at);
  }

  describe(types: TypeCollector): string {
    return types.define(this, () => ({
      "meta-type": "alternate",
      members: branchesOf(this).map((branch) => ({ type: branch.describe(types) })),
    }));
  }
}

class NullableSchema extends AlternateSchema {
  override get typeName(): string {
    const name = this.branches.at(-1)?.typeName ?? "";
    return /^[A-Z]/.test(name) ? `${name}OrNull` : `${name} or null`;
  }
}

/** Alternates inside alternates are one alternate. */
function branchesOf(schema: Schema<unknown>): readonly Schema<unknown>[] {
  if (schema instanceof LazySchema) {
    return branchesOf(schema.target);
  }
  return schema instanceof AlternateSchema ? schema.branches.flatMap(branchesOf) : [schema];
}

class LazySchema<T> extends SchemaBase<T> {
  readonly #build: () => Schema<T>;
  #built: Schema<T> | undefined;

  constructor(build: () => Schema<T>) {
    super();
    this.#build = build;
  }

  get target(): Schema<T> {
    this.#built ??= this.#build();
    return this.#built;
  }

  get typeName(): string {
    return this.target.typeName;
  }

  accepts(value: unknown, notation: Notation): boolean {
    return this.target.accepts(value, notation);
  }

  read(value: unknown, at: Position): Read<T> {
    return this.target.read(value, at);
  }

  describe(types: TypeCollector): string {
    return this.target.describe(types);
  }
}
