import { MAX_DEPTH, type Notation, type Position } from "./reading.ts";
import { applyCheck, type Check, type Read, type Schema, SchemaBase } from "./schema.ts";
import type { TypeCollector } from "./type-collector.ts";

/** What a text may be; lengths in UTF-16 units. */
export interface StringOptions {
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: RegExp;
  readonly check?: Check<string>;
}

/** A text. */
export function string(options: StringOptions = {}): Schema<string> {
  return new StringSchema(options);
}

/** A truth value; in dotted keys `on`, `yes`, `true`, `y` and `off`, `no`, `false`, `n`. */
export function boolean(): Schema<boolean> {
  return new BooleanSchema();
}

/** One of the given names. */
export function enumeration<const V extends readonly string[]>(...values: V): Schema<V[number]> {
  return new EnumerationSchema(values);
}

/** Exactly the given value. */
export function literal<const V extends string | number | boolean>(value: V): Schema<V> {
  return new LiteralSchema(value);
}

/** Null and nothing else; in dotted keys the empty text. */
export function nullValue(): Schema<null> {
  return new NullSchema();
}

/** Any JSON value of at most {@link MAX_DEPTH} levels; it is passed on as it is, not copied. */
export function any(): Schema<unknown> {
  return new AnySchema();
}

class StringSchema extends SchemaBase<string> {
  readonly typeName = "string";
  readonly #options: StringOptions;

  constructor(options: StringOptions) {
    super();
    this.#options = options;
  }

  accepts(value: unknown): boolean {
    return typeof value === "string";
  }

  read(value: unknown, at: Position): Read<string> {
    if (typeof value !== "string") {
      return at.reportType("string", value, { scalar: true });
    }
    const { minLength = 0, maxLength = Number.POSITIVE_INFINITY, pattern, check } = this.#options;
    if (value.length < minLength || value.length > maxLength) {
      return at.report(
        `Parameter '${at.fullName}' expects a string of ${lengthRange(minLength, maxLength)}`,
        {
          hint: `it has ${characters(value.length)}`,
          received: value,
        },
      );
    }
    // String.search starts at 0 whatever state a global or sticky pattern is in.
    if (pattern !== undefined && value.search(pattern) === -1) {
      return at.report(`Parameter '${at.fullName}' does not accept value '${value}'`, {
        hint: `it must match ${String(pattern)}`,
        received: value,
      });
    }
    return applyCheck(check, value, at);
  }

  describe(types: TypeCollector): string {
    return types.builtin("str");
  }
}

function lengthRange(min: number, max: number): string {
  if (min === max) {
    return characters(min);
  }
  if (max === Number.POSITIVE_INFINITY) {
    return `at least ${characters(min)}`;
  }
  return min === 0 ? `at most ${characters(max)}` : `${min} to ${characters(max)}`;
}

function characters(count: number): string {
  return count === 1 ? "1 character" : `${count} characters`;
}

const TRUTH: ReadonlyMap<unknown, boolean> = new Map([
  ...["on", "yes", "true", "y"].map((text) => [text, true] as const),
  ...["off", "no", "false", "n"].map((text) => [text, false] as const),
]);

class BooleanSchema extends SchemaBase<boolean> {
  readonly typeName = "boolean";

  accepts(value: unknown, notation: Notation): boolean {
    return typeof value === (notation === "json" ? "boolean" : "string");
  }

  read(value: unknown, at: Position): Read<boolean> {
    if (!this.accepts(value, at.notation)) {
      return at.reportType("boolean", value, { scalar: true });
    }
    const truth = typeof value === "boolean" ? value : TRUTH.get(value);
    return truth === undefined
      ? at.report(`Parameter '${at.fullName}' expects 'on' or 'off'`, {
          expected: "boolean",
          received: value,
        })
      : { value: truth };
  }

  describe(types: TypeCollector): string {
    return types.builtin("bool");
  }
}

class EnumerationSchema<const V extends string> extends SchemaBase<V> {
  readonly typeName = "string";
  readonly #values: readonly V[];

  constructor(values: readonly V[]) {
    super();
    this.#values = values;
  }

  accepts(value: unknown): boolean {
    return typeof value === "string";
  }

  read(value: unknown, at: Position): Read<V> {
    if (typeof value !== "string") {
      return at.reportType("string", value, { scalar: true });
    }
    const known = this.#values.find((candidate) => candidate === value);
    return known === undefined ? reportNotOneOf(value, this.#values, at) : { value: known };
  }

  describe(types: TypeCollector): string {
    return describeEnumeration(this.#values, types);
  }
}

/** Reports a text that is none of the allowed ones, in the reference's words. */
export function reportNotOneOf(value: string, allowed: readonly string[], at: Position): undefined {
  return at.report(`Parameter '${at.leafName}' does not accept value '${value}'`, {
    hint: `allowed: ${allowed.join(", ")}`,
    received: value,
  });
}

/** Names an enumeration; equal ones are one type. */
export function describeEnumeration(values: readonly string[], types: TypeCollector): string {
  return types.define(`enum ${JSON.stringify(values)}`, () => ({
    "meta-type": "enum",
    members: values.map((name) => ({ name })),
    values: [...values],
  }));
}

class LiteralSchema<const V extends string | number | boolean> extends SchemaBase<V> {
  readonly typeName: string;
  readonly #value: V;

  constructor(value: V) {
    super();
    this.#value = value;
    this.typeName = typeof value === "number" && Number.isInteger(value) ? "integer" : typeof value;
  }

  accepts(value: unknown, notation: Notation): boolean {
    return typeof value === (notation === "json" ? typeof this.#value : "string");
  }

  read(value: unknown, at: Position): Read<V> {
    if (!this.accepts(value, at.notation)) {
      return at.reportType(this.typeName, value, { scalar: true });
    }
    if (value === this.#value || (at.notation === "dotted" && this.#isWrittenAs(value))) {
      return { value: this.#value };
    }
    return reportNotOneOf(String(value), [String(this.#value)], at);
  }

  #isWrittenAs(text: unknown): boolean {
    return typeof this.#value === "boolean"
      ? TRUTH.get(text) === this.#value
      : text === String(this.#value);
  }

  describe(types: TypeCollector): string {
    if (typeof this.#value === "string") {
      return describeEnumeration([this.#value], types);
    }
    const isInteger = this.typeName === "integer";
    return types.builtin(typeof this.#value === "boolean" ? "bool" : isInteger ? "int" : "number");
  }
}

class NullSchema extends SchemaBase<null> {
  readonly typeName = "null";

  accepts(value: unknown, notation: Notation): boolean {
    return value === (notation === "json" ? null : "");
  }

  read(value: unknown, at: Position): Read<null> {
    return this.accepts(value, at.notation)
      ? { value: null }
      : at.reportType("null", value, { scalar: true });
  }

  describe(types: TypeCollector): string {
    return types.builtin("null");
  }
}

class AnySchema extends SchemaBase<unknown> {
  readonly typeName = "value";

  accepts(value: unknown): boolean {
    return value !== undefined;
  }

  read(value: unknown, at: Position): Read<unknown> {
    switch (faultOf(value, at.depth)) {
      case "type":
        return at.reportType("value", value);
      case "depth":
        return at.report(`Parameter '${at.fullName}' is nested too deeply`, {
          hint: `at most ${MAX_DEPTH} levels are allowed`,
        });
      default:
        return { value };
    }
  }

  describe(types: TypeCollector): string {
    return types.builtin("any");
  }
}

/** What makes a value not a JSON value of bounded depth; a value whose reading throws is none either. */
function faultOf(value: unknown, depth: number): "type" | "depth" | undefined {
  try {
    return faultWithin(value, depth, new Map());
  } catch {
    return "type";
  }
}

/** `seen` keeps the depth at which an object was found, so that a shared one is not searched twice. */
function faultWithin(
  value: unknown,
  depth: number,
  seen: Map<object, number>,
): "type" | "depth" | undefined {
  if (typeof value !== "object" || value === null) {
    const isFunction = typeof value === "function";
    return value === undefined || isFunction || typeof value === "symbol" ? "type" : undefined;
  }
  if (depth >= MAX_DEPTH) {
    return "depth";
  }
  if ((seen.get(value) ?? -1) >= depth) {
    return undefined;
  }
  seen.set(value, depth);
  for (const inner of Object.values(value)) {
    const fault = inner === undefined ? undefined : faultWithin(inner, depth + 1, seen);
    if (fault !== undefined) {
      return fault;
    }
  }
  return undefined;
}
