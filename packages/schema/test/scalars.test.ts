import {
  alternate,
  any,
  array,
  boolean,
  enumeration,
  integer,
  literal,
  nullable,
  nullValue,
  number,
  object,
  type Problem,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";
import { describe, expect, it } from "vitest";

function problemsOf(schema: Schema<unknown>, value: unknown, path = "x"): readonly Problem[] {
  const result = schema.parse(value, path);
  return result.ok ? [] : result.problems;
}

describe("scalars in JSON", () => {
  it.each<[string, Schema<unknown>, unknown, unknown]>([
    ["text", string(), "a", "a"],
    ["truth", boolean(), false, false],
    ["enumeration", enumeration("on", "off"), "off", "off"],
    ["literal", literal(5), 5, 5],
    ["null", nullValue(), null, null],
    ["integer", integer(), -5, -5],
    ["minus zero", integer(), -0, 0],
    ["bigint that is safe", integer(), 5n, 5],
    ["largest safe bigint", size(), BigInt(Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER],
    ["number", number(), 1.5, 1.5],
    ["anything", any(), { a: [1n, null] }, { a: [1n, null] }],
    ["null of a nullable", nullable(integer()), null, null],
    ["value of a nullable", nullable(integer()), 3, 3],
    ["second branch", alternate(integer(), string()), "a", "a"],
    ["array", array(integer()), [1, 2], [1, 2]],
  ])("%s is accepted", (_name, schema, value, expected) => {
    expect(schema.parse(value)).toEqual({ ok: true, value: expected });
  });

  it.each<[string, Schema<unknown>, unknown, string, string | undefined]>([
    [
      "short text",
      string({ minLength: 2, maxLength: 3 }),
      "a",
      "Parameter 'x' expects a string of 2 to 3 characters",
      "it has 1 character",
    ],
    [
      "long text",
      string({ maxLength: 3 }),
      "abcd",
      "Parameter 'x' expects a string of at most 3 characters",
      "it has 4 characters",
    ],
    [
      "no text",
      string({ minLength: 1 }),
      "",
      "Parameter 'x' expects a string of at least 1 character",
      "it has 0 characters",
    ],
    [
      "text of another length",
      string({ minLength: 2, maxLength: 2 }),
      "a",
      "Parameter 'x' expects a string of 2 characters",
      "it has 1 character",
    ],
    [
      "text of another form",
      string({ pattern: /^[a-z]+$/g }),
      "1",
      "Parameter 'x' does not accept value '1'",
      "it must match /^[a-z]+$/g",
    ],
    [
      "text refused by a check",
      string({ check: () => ({ message: "no", hint: "yes" }) }),
      "1",
      "no",
      "yes",
    ],
    [
      "unknown name",
      enumeration("on", "off"),
      "of",
      "Parameter 'x' does not accept value 'of'",
      "allowed: on, off",
    ],
    [
      "another literal",
      literal("raw"),
      "ra",
      "Parameter 'x' does not accept value 'ra'",
      "allowed: raw",
    ],
    [
      "literal of another type",
      literal(5),
      "5",
      "Invalid parameter type for 'x', expected: integer",
      undefined,
    ],
    [
      "zero where null is expected",
      nullValue(),
      0,
      "Invalid parameter type for 'x', expected: null",
      undefined,
    ],
    [
      "number below its range",
      integer({ min: 1 }),
      0,
      "Parameter 'x' expects an integer of at least 1",
      "got 0; allowed: at least 1",
    ],
    [
      "number above its range",
      integer({ max: 9 }),
      10,
      "Parameter 'x' expects an integer of at most 9",
      "got 10; allowed: at most 9",
    ],
    [
      "number outside its range",
      integer({ min: 1, max: 9 }),
      10,
      "Parameter 'x' expects an integer between 1 and 9",
      "got 10; allowed: between 1 and 9",
    ],
    [
      "32 bits",
      integer({ min: 0, max: 2 ** 32 - 1 }),
      2 ** 32,
      "Parameter 'x' expects uint32_t",
      "got 4294967296; allowed: between 0 and 4294967295",
    ],
    [
      "not a multiple",
      size({ multipleOf: 512 }),
      513,
      "Parameter 'x' expects a multiple of 512",
      "got 513; allowed: at least 0, a multiple of 512",
    ],
    [
      "no power of two",
      integer({ powerOfTwo: true }),
      2 ** 52 + 1,
      "Parameter 'x' expects a power of two",
      "got 4503599627370497; allowed: a power of two",
    ],
    [
      "zero is no power of two",
      integer({ powerOfTwo: true }),
      0,
      "Parameter 'x' expects a power of two",
      "got 0; allowed: a power of two",
    ],
    [
      "integer refused by a check",
      integer({ check: (value) => `no ${value}` }),
      3,
      "no 3",
      undefined,
    ],
    [
      "2^53",
      integer(),
      2 ** 53,
      "Value '9007199254740992' is out of range for parameter 'x'",
      "at most 9007199254740991",
    ],
    [
      "bigint of 2^53",
      integer(),
      2n ** 53n,
      "Value '9007199254740992' is out of range for parameter 'x'",
      "at most 9007199254740991",
    ],
    [
      "bigint of 2^64",
      integer(),
      2n ** 64n,
      "Invalid parameter type for 'x', expected: integer",
      undefined,
    ],
    [
      "not a number",
      number(),
      Number.NaN,
      "Invalid parameter type for 'x', expected: number",
      undefined,
    ],
    [
      "number as text",
      number(),
      "1",
      "Invalid parameter type for 'x', expected: number",
      undefined,
    ],
    [
      "number out of range",
      number({ min: 0, max: 1 }),
      1.5,
      "Parameter 'x' expects a number between 0 and 1",
      "got 1.5",
    ],
    ["number refused by a check", number({ check: () => "odd" }), 1.5, "odd", undefined],
    ["a function", any(), () => 1, "Invalid parameter type for 'x', expected: value", undefined],
    ["nothing", any(), undefined, "Invalid parameter type for 'x', expected: value", undefined],
    [
      "no branch",
      alternate(integer(), string()),
      true,
      "Invalid parameter type for 'x', expected: integer or string",
      undefined,
    ],
    [
      "wrong content of the one branch",
      nullable(integer({ min: 5 })),
      3,
      "Parameter 'x' expects an integer of at least 5",
      "got 3; allowed: at least 5",
    ],
    [
      "neither null nor the type",
      nullable(integer()),
      "a",
      "Invalid parameter type for 'x', expected: integer or null",
      undefined,
    ],
    [
      "too many elements",
      array(integer(), { maxItems: 1 }),
      [1, 2],
      "Parameter 'x' expects at most 1 element",
      "it has 2",
    ],
    [
      "an array as object",
      object({}),
      [],
      "Invalid parameter type for 'x', expected: object",
      undefined,
    ],
  ])("%s is refused", (_name, schema, value, message, hint) => {
    const [problem] = problemsOf(schema, value);
    expect([problem?.path, problem?.message, problem?.hint]).toEqual(["x", message, hint]);
  });

  it("calls a value without a name 'value'", () => {
    expect(problemsOf(integer(), "a", "")[0]).toMatchObject({
      path: "",
      message: "Invalid parameter type for 'value', expected: integer",
      expected: "integer",
      received: "a",
    });
  });
});
