import { type KeyValueOptions, nestKeyValue, parseKeyValue } from "./key-value.ts";
import type { ParseResult, Problem } from "./problem.ts";
import { type Notation, type Position, rootPosition } from "./reading.ts";
import type { TypeCollector } from "./type-collector.ts";

/** What reading one value gives: the value in a box, or nothing when problems were reported. */
export type Read<T> = { readonly value: T } | undefined;

/**
 * One description of a value: its TypeScript type, its parser, its validation and its introspection.
 *
 * Schemas are immutable and may be shared. Users call `parse` and `parseDotted`; `accepts`, `read` and
 * `describe` are for schemas made of schemas.
 */
export interface Schema<out T> {
  /** The type as messages name it: `string`, `integer`, `object`, `BlockdevRef`. */
  readonly typeName: string;
  /**
   * Validates a value as `JSON.parse` returns it; integers may be `bigint`.
   *
   * Never throws and never changes the value. A member that is `undefined` counts as absent.
   *
   * @param value - anything
   * @param path - what problems call the place of the value, `""` when it has no name
   */
  parse(value: unknown, path?: string): ParseResult<T>;
  /**
   * Validates options written as dotted keys: `driver=raw,file.driver=file,file.filename=a`.
   *
   * Text is converted to the type the schema expects: `on`/`off`, integers, sizes with a suffix.
   *
   * @param options - the text, or its pairs as {@link parseKeyValue} returns them
   * @see spec/qmp.md section C.1, key=value syntax
   */
  parseDotted(
    options: string | Readonly<Record<string, string>>,
    settings?: KeyValueOptions,
  ): ParseResult<T>;
  /** Whether the value's type alone makes it one of this schema's; the content may still be wrong. */
  accepts(value: unknown, notation: Notation): boolean;
  /** Reads the value at a position and reports there what is wrong. */
  read(value: unknown, at: Position): Read<T>;
  /** Adds this type and those it mentions to an introspection and returns its name there. */
  describe(types: TypeCollector): string;
}

/** The TypeScript type of the values that a schema accepts. */
export type Infer<S> = S extends Schema<infer T> ? T : never;

/**
 * A rule of one's own: returns what is wrong with a value that fits the schema otherwise.
 *
 * The answer is a whole sentence, or one with a hint, or `undefined` when all is well.
 */
export type Check<in T> = (value: T) => string | Pick<Problem, "message" | "hint"> | undefined;

/** What all schemas share: everything but the type's own three methods and name. */
export abstract class SchemaBase<T> implements Schema<T> {
  abstract readonly typeName: string;
  abstract accepts(value: unknown, notation: Notation): boolean;
  abstract read(value: unknown, at: Position): Read<T>;
  abstract describe(types: TypeCollector): string;

  parse(value: unknown, path = ""): ParseResult<T> {
    const problems: Problem[] = [];
    return resultOf(this.read(value, rootPosition("json", path, problems)), problems);
  }

  parseDotted(
    options: string | Readonly<Record<string, string>>,
    settings: KeyValueOptions = {},
  ): ParseResult<T> {
    const pairs = typeof options === "string" ? parseKeyValue(options, settings) : undefined;
    if (pairs?.ok === false) {
      return pairs;
    }
    const nested = nestKeyValue(pairs?.value ?? (options as Readonly<Record<string, string>>));
    if (!nested.ok) {
      return nested;
    }
    const problems: Problem[] = [];
    return resultOf(this.read(nested.value, rootPosition("dotted", "", problems)), problems);
  }
}

/** Applies a check to a value that was read and reports its answer at the position. */
export function applyCheck<T>(check: Check<T> | undefined, value: T, at: Position): Read<T> {
  const answer = check?.(value);
  if (answer === undefined) {
    return { value };
  }
  const { message, hint } = typeof answer === "string" ? { message: answer } : answer;
  return at.report(message, { received: value, ...(hint === undefined ? {} : { hint }) });
}

function resultOf<T>(read: Read<T>, problems: readonly Problem[]): ParseResult<T> {
  return read !== undefined && problems.length === 0
    ? { ok: true, value: read.value }
    : { ok: false, problems };
}
