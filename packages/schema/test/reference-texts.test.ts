import { describeProblems } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { blockdevOptions } from "./blockdev.ts";
import { dottedRows, jsonRows } from "./reference-rows.ts";

function messageOfJson(value: unknown): string {
  const result = blockdevOptions.parse(value);
  return result.ok ? "" : describeProblems(result.problems);
}

function messageOfDotted(text: string): string {
  const result = blockdevOptions.parseDotted(text, { impliedKey: "driver" });
  return result.ok ? "" : describeProblems(result.problems);
}

describe("blockdev-add: what the reference says of these arguments is what we say", () => {
  it.each(jsonRows)("%j: %s", (value, message) => {
    expect(messageOfJson(value)).toBe(message);
  });

  it("names an array element by its place, where the reference prints 'null'", () => {
    expect(messageOfJson({ driver: "quorum", children: [1], "vote-threshold": 1 })).toBe(
      "Invalid parameter type for 'children[0]', expected: BlockdevRef",
    );
  });
});

describe("--blockdev: what the reference says of these options is what we say", () => {
  it.each(dottedRows)("%s: %s", (text, message) => {
    expect(messageOfDotted(text)).toBe(message);
  });
});
