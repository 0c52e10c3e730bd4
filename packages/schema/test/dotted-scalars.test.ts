import {
  alternate,
  any,
  boolean,
  describeProblems,
  integer,
  literal,
  nullable,
  nullValue,
  number,
  object,
  type Schema,
  size,
  string,
} from "@blocklayer/schema";
import { describe, expect, it } from "vitest";

function dotted(schema: Schema<unknown>, text: string): unknown {
  const result = object({ x: schema }).parseDotted({ x: text });
  return result.ok ? (result.value as { x: unknown }).x : describeProblems(result.problems);
}

describe("scalars in dotted keys", () => {
  it.each<[string, unknown]>([
    ["1", 1],
    [" 1", 1],
    ["+1", 1],
    ["010", 10],
    ["0x10", 16],
    ["0x10k", 16384],
    ["1b", 1],
    ["1k", 1024],
    ["1K", 1024],
    ["5.k", 5120],
    ["1.5G", 1610612736],
    ["0.3k", 307],
    ["1.00001k", 1024],
    ["1.0004884k", 1025],
    ["0.00048828125k", 1],
    ["0.9999k", 1024],
    ["1.49999999999999999999k", 1536],
    ["1t", 1024 ** 4],
    ["1p", 1024 ** 5],
    ["7P", 7 * 1024 ** 5],
    ...[
      "",
      "x",
      "1x",
      "1kB",
      "1KiB",
      "1 ",
      ".",
      ".5k",
      "1.5",
      "1.5b",
      "0.5",
      "1e3",
      "1.5.5k",
      "nan",
      "inf",
      "0x",
      "-1",
      "-1k",
      "1Z",
    ].map((text): [string, unknown] => [
      text,
      "Parameter 'x' expects a non-negative number below 2^64",
    ]),
    ["0.1E", "Value '0.1E' is out of range for parameter 'x'"],
    ["16E", "Value '16E' is out of range for parameter 'x'"],
  ])("the size %j reads as %j", (text, expected) => {
    expect(dotted(size(), text)).toBe(expected);
  });

  it.each<[string, unknown]>([
    ["5", 5],
    ["+5", 5],
    ["-5", -5],
    [" 10", 10],
    ["02000", 1024],
    ["0", 0],
    ["0x10", 16],
    ["-0x10", -16],
    ...[
      "",
      "x",
      "1k",
      "1.5",
      "10 ",
      "0b1",
      "08",
      "99999999999999999999",
      "-9223372036854775809",
    ].map((text): [string, unknown] => [text, "Parameter 'x' expects integer"]),
    ["9223372036854775807", "Value '9223372036854775807' is out of range for parameter 'x'"],
  ])("the integer %j reads as %j", (text, expected) => {
    expect(dotted(integer(), text)).toBe(expected);
  });

  it.each<[string, Schema<unknown>, string, unknown]>([
    ["yes", boolean(), "yes", true],
    ["n", boolean(), "n", false],
    ["a number", number(), "1.5", 1.5],
    ["no number", number(), "a", "Parameter 'x' expects number"],
    ["a blank number", number(), " ", "Parameter 'x' expects number"],
    ["null", nullValue(), "", null],
    ["text for null", nullValue(), "a", "Invalid parameter type for 'x', expected: null"],
    ["null before text", nullable(string()), "", null],
    ["a literal number", literal(5), "5", 5],
    ["a literal truth", literal(true), "on", true],
    ["another literal", literal(true), "off", "Parameter 'x' does not accept value 'off'"],
    ["the first branch that can", alternate(integer(), boolean(), string()), "on", true],
    ["the last branch", alternate(integer(), boolean(), string()), "on2", "on2"],
    ["no branch", alternate(integer(), boolean()), "on2", "Parameter 'x' expects integer"],
    ["anything", any(), "on", "on"],
  ])("%s", (_name, schema, text, expected) => {
    expect(dotted(schema, text)).toBe(expected);
  });
});
