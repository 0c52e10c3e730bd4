import {
  alternate,
  any,
  array,
  describeProblems,
  integer,
  lazy,
  MAX_DEPTH,
  object,
  optional,
  type Problem,
  type Schema,
  string,
} from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { blockdevOptions } from "./blockdev.ts";

function problemsOf(schema: Schema<unknown>, value: unknown, path = "x"): readonly Problem[] {
  const result = schema.parse(value, path);
  return result.ok ? [] : result.problems;
}

describe("hostile values", () => {
  it("treats names of the object prototype as any other", () => {
    const value: unknown = JSON.parse('{"driver":"null-co","__proto__":{"size":5}}');
    expect(problemsOf(blockdevOptions, value, "")[0]?.message).toBe(
      "Parameter '__proto__' is unexpected",
    );
    expect(problemsOf(blockdevOptions, { driver: "constructor" }, "")[0]?.message).toBe(
      "Parameter 'driver' does not accept value 'constructor'",
    );
    const inherited: unknown = Object.create({ a: 1 });
    expect(problemsOf(object({ a: integer() }), inherited, "")[0]?.message).toBe(
      "Parameter 'a' is missing",
    );
    expect(object({ toString: optional(string()) }).parse({})).toStrictEqual({
      ok: true,
      value: {},
    });
  });

  it("keeps a declared member called __proto__ a plain member", () => {
    const schema = object(Object.fromEntries([["__proto__", integer()]]));
    const result = schema.parse(JSON.parse('{"__proto__":5}'));
    expect(JSON.stringify(result)).toBe('{"ok":true,"value":{"__proto__":5}}');
  });

  it("reports a value that is nested too deeply, and a cyclic one", () => {
    interface Chain {
      readonly next?: Chain;
    }
    const chain: Schema<Chain> = object({ next: optional(lazy(() => chain)) });
    const cyclic: { next?: unknown } = {};
    cyclic.next = cyclic;
    for (const schema of [chain, any()]) {
      const [problem] = problemsOf(schema, cyclic, "");
      expect(problem?.message).toMatch(/^Parameter '.*' is nested too deeply$/);
      expect(problem?.hint).toBe(`at most ${MAX_DEPTH} levels are allowed`);
    }
    const keys = Array.from({ length: MAX_DEPTH + 1 }, () => "a").join(".");
    const result = any().parseDotted({ [keys]: "1" });
    expect(result.ok ? "" : describeProblems(result.problems)).toBe(
      `Parameter '${keys}' is nested too deeply`,
    );
  });

  it("looks at an object shared a million times once", () => {
    let value: unknown = 1;
    for (let level = 0; level < MAX_DEPTH; level++) {
      value = [value, value];
    }
    expect(any().parse(value).ok).toBe(true);
  });

  it("answers with a problem when reading the value throws", () => {
    const trap = (): never => {
      throw new Error("trapped");
    };
    const { proxy, revoke } = Proxy.revocable([], {});
    revoke();
    const getter = Object.defineProperty({}, "a", { enumerable: true, get: trap });
    const values = [new Proxy({}, { ownKeys: trap }), getter, proxy];
    for (const schema of [
      object({ a: integer() }),
      array(integer()),
      any(),
      blockdevOptions,
      alternate(array(any()), object({})),
    ]) {
      expect(values.map((value) => schema.parse(value).ok)).toEqual([false, false, false]);
    }
  });

  it("keeps the first 64 problems of a long list of bad elements", () => {
    expect(
      problemsOf(
        array(integer()),
        Array.from({ length: 1000 }, () => "a"),
      ),
    ).toHaveLength(64);
  });

  it("says of options that are no pairs of text what they are", () => {
    const schema = object({ a: string() });
    expect(schema.parseDotted(null as unknown as string)).toMatchObject({
      problems: [{ message: "Invalid parameter type for 'value', expected: object" }],
    });
    expect(schema.parseDotted({ a: 5 } as unknown as Record<string, string>)).toMatchObject({
      problems: [{ path: "a", message: "Invalid parameter type for 'a', expected: string" }],
    });
  });

  it("has nothing to say of no problems", () => {
    expect(describeProblems([])).toBe("");
  });
});
