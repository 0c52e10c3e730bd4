import type { Notation, Position } from "./reading.ts";
import { applyCheck, type Check, type Read, type Schema, SchemaBase } from "./schema.ts";
import type { TypeCollector } from "./type-collector.ts";

/** What an integer may be; bounds are inclusive. */
export interface IntegerOptions {
  readonly min?: number;
  readonly max?: number;
  readonly multipleOf?: number;
  readonly powerOfTwo?: boolean;
  readonly check?: Check<number>;
}

/** What a number may be; bounds are inclusive. */
export interface NumberOptions {
  readonly min?: number;
  readonly max?: number;
  readonly check?: Check<number>;
}

/**
 * A whole number that a `number` holds exactly; a `bigint` in that range becomes one.
 *
 * In dotted keys it is written as in C: `0x10` is 16, `010` is 8. Bounds that are those of a C type are
 * reported by its name: `Parameter 'to' expects uint16_t`.
 */
export function integer(options: IntegerOptions = {}): Schema<number> {
  return new IntegerSchema(options, parseInteger);
}

/**
 * A number of bytes, 0 or more.
 *
 * In dotted keys it takes a suffix `b`, `k`, `M`, `G`, `T`, `P` or `E` in either case (powers of 1024) and
 * with one also decimals, rounded to whole bytes: `1.5G`. In JSON it is a number.
 *
 * Differs: the reference takes suffixes in `--image-opts` and `-o` alone; here they work everywhere.
 */
export function size(options: IntegerOptions = {}): Schema<number> {
  return new IntegerSchema({ ...options, min: options.min ?? 0 }, parseSize);
}

/** A finite number, whole or not. */
export function number(options: NumberOptions = {}): Schema<number> {
  return new NumberSchema(options);
}

/** The exact value of a text, or nothing when it is none; reports what is wrong. */
type TextParser = (text: string, at: Position) => bigint | undefined;

const INTEGER_TEXT = /^\s*([+-]?)(0x[0-9a-f]+|[0-9]+)$/i;
const SIZE_TEXT = /^\s*\+?([0-9]+)(?:\.([0-9]*))?([bkmgtpe]?)$/i;
const HEX_SIZE_TEXT = /^\s*\+?(0x[0-9a-f]+)([kmgtp]?)$/i;
const SIZE_MESSAGE = "expects a non-negative number below 2^64";
const SIZE_HINT =
  "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.";
const LARGEST_U64 = 2n ** 64n - 1n;
const SMALLEST_I64 = -(2n ** 63n);

/** Ranges that have a name of their own in the reference's messages. */
const C_TYPES = [8, 16, 32].flatMap((bits) => [
  { name: `uint${bits}_t`, min: 0, max: 2 ** bits - 1 },
  { name: `int${bits}_t`, min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 },
]);

class IntegerSchema extends SchemaBase<number> {
  readonly typeName = "integer";
  readonly #options: IntegerOptions;
  readonly #parseText: TextParser;

  constructor(options: IntegerOptions, parseText: TextParser) {
    super();
    this.#options = options;
    this.#parseText = parseText;
  }

  accepts(value: unknown, notation: Notation): boolean {
    return notation === "dotted"
      ? typeof value === "string"
      : typeof value === "number" || typeof value === "bigint";
  }

  read(value: unknown, at: Position): Read<number> {
    const exact = this.#exactValue(value, at);
    if (exact === undefined) {
      return undefined;
    }
    if (exact > BigInt(Number.MAX_SAFE_INTEGER) || exact < BigInt(Number.MIN_SAFE_INTEGER)) {
      return at.report(`Value '${String(value)}' is out of range for parameter '${at.leafName}'`, {
        hint: `at most ${Number.MAX_SAFE_INTEGER}`,
        received: value,
      });
    }
    const result = Number(exact);
    const problem = this.#problemOf(result, at);
    return problem === undefined
      ? applyCheck(this.#options.check, result, at)
      : at.report(problem, { hint: `got ${result}; ${this.#allowed()}`, received: value });
  }

  #exactValue(value: unknown, at: Position): bigint | undefined {
    if (at.notation === "dotted") {
      return typeof value === "string"
        ? this.#parseText(value, at)
        : at.reportType("integer", value, { scalar: true });
    }
    const exact = typeof value === "number" && Number.isInteger(value) ? BigInt(value) : value;
    const isInt64 = typeof exact === "bigint" && exact >= SMALLEST_I64 && exact <= LARGEST_U64;
    return isInt64 ? exact : at.reportType("integer", value, { scalar: true });
  }

  #problemOf(value: number, at: Position): string | undefined {
    const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = this.#options;
    const { multipleOf, powerOfTwo } = this.#options;
    if (value < min || value > max) {
      return this.#rangeMessage(at);
    }
    if (multipleOf !== undefined && value % multipleOf !== 0) {
      return `Parameter '${at.fullName}' expects a multiple of ${multipleOf}`;
    }
    if (powerOfTwo === true && !isPowerOfTwo(value)) {
      return `Parameter '${at.fullName}' expects a power of two`;
    }
    return undefined;
  }

  #rangeMessage(at: Position): string {
    const { min, max } = this.#options;
    if (this.#parseText === parseSize && min === 0 && max === undefined) {
      return `Parameter '${at.leafName}' ${SIZE_MESSAGE}`;
    }
    const named = C_TYPES.find((type) => type.min === min && type.max === max);
    return `Parameter '${at.leafName}' expects ${named?.name ?? `an integer ${inWords(min, max)}`}`;
  }

  #allowed(): string {
    const { min, max, multipleOf, powerOfTwo } = this.#options;
    const parts = [
      ...(min === undefined && max === undefined ? [] : [rangeText(min, max)]),
      ...(multipleOf === undefined ? [] : [`a multiple of ${multipleOf}`]),
      ...(powerOfTwo === true ? ["a power of two"] : []),
    ];
    return `allowed: ${parts.join(", ")}`;
  }

  describe(types: TypeCollector): string {
    return types.builtin("int");
  }
}

class NumberSchema extends SchemaBase<number> {
  readonly typeName = "number";
  readonly #options: NumberOptions;

  constructor(options: NumberOptions) {
    super();
    this.#options = options;
  }

  accepts(value: unknown, notation: Notation): boolean {
    return notation === "dotted"
      ? typeof value === "string"
      : typeof value === "number" || typeof value === "bigint";
  }

  read(value: unknown, at: Position): Read<number> {
    if (!this.accepts(value, at.notation)) {
      return at.reportType("number", value, { scalar: true });
    }
    const isBlank = typeof value === "string" && value.trim() === "";
    const result = isBlank ? Number.NaN : Number(value);
    if (!Number.isFinite(result)) {
      return at.notation === "json"
        ? at.reportType("number", value)
        : at.report(`Parameter '${at.fullName}' expects number`, {
            expected: "number",
            received: value,
          });
    }
    const { min, max, check } = this.#options;
    if ((min !== undefined && result < min) || (max !== undefined && result > max)) {
      return at.report(`Parameter '${at.leafName}' expects a number ${inWords(min, max)}`, {
        hint: `got ${result}`,
        received: value,
      });
    }
    return applyCheck(check, result, at);
  }

  describe(types: TypeCollector): string {
    return types.builtin("number");
  }
}

function inWords(min: number | undefined, max: number | undefined): string {
  const range = rangeText(min, max);
  return min === undefined || max === undefined ? `of ${range}` : range;
}

function rangeText(min: number | undefined, max: number | undefined): string {
  if (min === undefined) {
    return `at most ${max}`;
  }
  return max === undefined ? `at least ${min}` : `between ${min} and ${max}`;
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}

function parseInteger(text: string, at: Position): bigint | undefined {
  const [, sign, digits = ""] = INTEGER_TEXT.exec(text) ?? [];
  const magnitude = magnitudeOf(digits);
  const exact = sign === "-" && magnitude !== undefined ? -magnitude : magnitude;
  return exact === undefined || exact > LARGEST_U64 || exact < SMALLEST_I64
    ? at.report(`Parameter '${at.fullName}' expects integer`, {
        expected: "integer",
        received: text,
      })
    : exact;
}

/** Hexadecimal after `0x`, octal after `0`, else decimal. */
function magnitudeOf(digits: string): bigint | undefined {
  if (/^0[0-9]/.test(digits)) {
    return /^[0-7]+$/.test(digits) ? BigInt(`0o${digits}`) : undefined;
  }
  return digits === "" ? undefined : BigInt(digits);
}

function parseSize(text: string, at: Position): bigint | undefined {
  const [, hex, hexSuffix = ""] = HEX_SIZE_TEXT.exec(text) ?? [];
  const [, whole, fraction = "", suffix = ""] = SIZE_TEXT.exec(text) ?? [];
  const unit = unitOf(hex === undefined ? suffix : hexSuffix);
  const digits = hex ?? whole;
  // Part of a byte is no size, so decimals need a unit that is larger.
  if (digits === undefined || (unit === 1n && /[1-9]/.test(fraction))) {
    return at.report(`Parameter '${at.fullName}' ${SIZE_MESSAGE}`, {
      expected: "size",
      received: text,
      hint: SIZE_HINT,
    });
  }
  const exact = BigInt(digits) * unit + roundedPart(fraction, unit);
  return exact > LARGEST_U64
    ? at.report(`Value '${text}' is out of range for parameter '${at.fullName}'`, {
        hint: `at most ${Number.MAX_SAFE_INTEGER}`,
        received: text,
      })
    : exact;
}

/** Bytes of a suffix. */
function unitOf(suffix: string): bigint {
  const power = "bkmgtpe".indexOf(suffix.toLowerCase());
  return suffix === "" ? 1n : 1024n ** BigInt(power);
}

/** The fraction of a unit in whole bytes, half a byte rounded up. */
function roundedPart(fraction: string, unit: bigint): bigint {
  // Digits behind the 40th are less than half a byte of an exbibyte and cannot change the result but for a tie.
  const digits = fraction.slice(0, 40);
  const scale = 10n ** BigInt(digits.length);
  return digits === "" ? 0n : (2n * BigInt(digits) * unit + scale) / (2n * scale);
}
