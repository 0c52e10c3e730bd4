import { any, type Nested, nestKeyValue, parseKeyValue, size } from "@blocklayer/schema";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { blockdevOptions } from "./blockdev.ts";

const runs = { numRuns: 200 };
const name = fc.stringMatching(/^[a-z][a-z0-9_-]{0,5}$/);
const { tree } = fc.letrec<{ tree: Nested }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthIdentifier: "tree" },
    fc.string(),
    fc.dictionary(name, tie("tree"), { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
    fc.array(tie("tree"), { minLength: 1, maxLength: 3 }),
  ),
}));

function flatten(value: Nested, path: string): readonly (readonly [string, string])[] {
  if (typeof value === "string") {
    return [[path, value]];
  }
  return Object.entries(value).flatMap(([key, inner]) =>
    flatten(inner, path === "" ? key : `${path}.${key}`),
  );
}

describe("dotted keys", () => {
  it("mean the tree they were written from", () => {
    fc.assert(
      fc.property(fc.dictionary(name, tree, { noNullPrototype: true }), (value) => {
        const pairs = flatten(value, "");
        const text = pairs
          .map(([key, scalar]) => `${key}=${scalar.replaceAll(",", ",,")}`)
          .join(",");
        const parsed = parseKeyValue(text);
        expect(parsed.ok && nestKeyValue(parsed.value)).toEqual({ ok: true, value });
      }),
      runs,
    );
  });

  it("never throw, whatever the text", () => {
    const text = fc.string({ unit: fc.constantFrom(..."ab0.,=-_ é") });
    fc.assert(
      fc.property(text, (options) => {
        const result = blockdevOptions.parseDotted(options, { impliedKey: "driver" });
        expect(result.ok || result.problems.length > 0).toBe(true);
      }),
      runs,
    );
  });
});

describe("JSON", () => {
  it("never makes a parse throw, and is left as it was", () => {
    const member = fc.constantFrom(
      "driver",
      "file",
      "size",
      "children",
      "server",
      "__proto__",
      "x",
    );
    const driver = fc.constantFrom("raw", "file", "quorum", "nbd", "qcow2");
    const { value } = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 3, depthIdentifier: "value" },
        fc.anything(),
        fc.record(
          { driver, file: tie("value"), children: fc.array(tie("value"), { maxLength: 2 }) },
          { requiredKeys: [] },
        ),
        fc.dictionary(member, tie("value")),
      ),
    }));
    fc.assert(
      fc.property(value, (input) => {
        const before = fc.stringify(input);
        const result = blockdevOptions.parse(input);
        expect(result.ok || result.problems.every((problem) => problem.message !== "")).toBe(true);
        expect(fc.stringify(input)).toBe(before);
      }),
      runs,
    );
  });

  it("that was accepted is accepted again as the same value", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { minLength: 1 }), (sizes) => {
        const children = sizes.map((bytes) => ({ driver: "null-co", size: bytes }));
        const once = blockdevOptions.parse({ driver: "quorum", children, "vote-threshold": 1 });
        expect(once.ok && blockdevOptions.parse(once.value)).toEqual(once);
      }),
      runs,
    );
  });

  it("of any kind passes through any()", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 10 }), (value) => {
        expect(any().parse(value)).toEqual({ ok: true, value });
      }),
      runs,
    );
  });
});

describe("sizes", () => {
  it("with a suffix are that many units", () => {
    const suffix = fc.constantFrom(...[..."bkMGT"].entries());
    fc.assert(
      fc.property(fc.nat(8191), suffix, (count, [power, letter]) => {
        const nested = nestKeyValue({ x: `${count}${letter}` });
        expect(nested.ok).toBe(true);
        expect(sizeOf(`${count}${letter}`)).toBe(count * 1024 ** power);
      }),
      runs,
    );
  });
});

function sizeOf(text: string): unknown {
  const options = blockdevOptions.parseDotted({ driver: "null-co", size: text });
  return options.ok && options.value.driver === "null-co" ? options.value.size : size().typeName;
}
