import {
  boolean,
  enumeration,
  integer,
  object,
  optional,
  type Problem,
  type Schema,
  string,
  union,
} from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { blockdevOptions } from "./blockdev.ts";

function problemsOf(schema: Schema<unknown>, value: unknown, path = "x"): readonly Problem[] {
  const result = schema.parse(value, path);
  return result.ok ? [] : result.problems;
}

describe("objects and unions", () => {
  it("leaves absent members absent and puts defaults in their place", () => {
    const schema = object({ a: optional(integer()), b: optional(integer(), 5) });
    expect(schema.parse({ a: undefined })).toStrictEqual({ ok: true, value: { b: 5 } });
  });

  it("reports every problem, members as declared and unknown ones last", () => {
    const schema = object({ a: integer(), b: string() });
    expect(problemsOf(schema, { c: 1, b: 2 }, "").map((problem) => problem.message)).toEqual([
      "Parameter 'a' is missing",
      "Invalid parameter type for 'b', expected: string",
      "Parameter 'c' is unexpected",
    ]);
  });

  it("says what is allowed in the hint of an unknown member", () => {
    expect(problemsOf(blockdevOptions, { driver: "null-co", offset: 1 }, "")[0]?.hint).toBe(
      "allowed here: driver, node-name, read-only, cache, size, read-zeroes",
    );
    expect(problemsOf(object({}), { a: 1 }, "")[0]?.hint).toBe("allowed here: nothing");
  });

  it("runs a check over several members only when all of them fit", () => {
    const schema = object(
      { discard: optional(boolean(), false), zeroes: enumeration("off", "unmap") },
      {
        check: (value) =>
          value.zeroes === "unmap" && !value.discard ? "discard is needed" : undefined,
      },
    );
    expect(problemsOf(schema, { zeroes: "unmap" })[0]?.message).toBe("discard is needed");
    expect(problemsOf(schema, { zeroes: 1 })).toHaveLength(1);
    expect(
      problemsOf(schema.extend({ more: integer() }), { zeroes: "unmap", more: 1 }),
    ).toHaveLength(1);
    expect(schema.parse({ zeroes: "unmap", discard: true }).ok).toBe(true);
  });

  it("runs the check of a union over base and variant", () => {
    const schema = union(
      "type",
      { a: object({ n: integer() }) },
      { base: { m: integer() }, check: (value) => (value.n > value.m ? "too many" : undefined) },
    );
    expect(problemsOf(schema, { type: "a", n: 2, m: 1 })[0]?.message).toBe("too many");
    expect(schema.parse({ type: "a", n: 1, m: 1 }).ok).toBe(true);
    expect(problemsOf(schema, { type: "a", n: "2", m: 1 })).toHaveLength(1);
  });

  it("extends an object, replacing members of the same name", () => {
    const schema = object({ a: integer(), b: integer() }).extend({ b: string(), c: boolean() });
    expect(schema.parse({ a: 1, b: "x", c: true }).ok).toBe(true);
    expect(schema.parse({ a: 1, b: 2, c: true }).ok).toBe(false);
    expect(Object.keys(schema.fields)).toEqual(["a", "b", "c"]);
  });

  it("chooses by a second tag inside a variant", () => {
    const encrypt = union("format", { luks: object({ key: string() }), none: object({}) });
    const schema = union("driver", { qcow2: encrypt });
    expect(schema.parse({ driver: "qcow2", format: "luks", key: "k" })).toEqual({
      ok: true,
      value: { driver: "qcow2", format: "luks", key: "k" },
    });
    expect(problemsOf(schema, { driver: "qcow2", format: "none", key: "k" }, "")[0]?.message).toBe(
      "Parameter 'key' is unexpected",
    );
  });

  it("reads a tree of nodes from dotted keys as from JSON", () => {
    const expected = {
      ok: true,
      value: {
        driver: "quorum",
        "read-only": true,
        "vote-threshold": 1,
        children: ["a", { driver: "file", filename: "a,b", locking: "auto", "read-only": false }],
      },
    };
    const text =
      "quorum,read-only=on,vote-threshold=1,children.0=a,children.1.driver=file,children.1.filename=a,,b";
    expect(blockdevOptions.parseDotted(text, { impliedKey: "driver" })).toEqual(expected);
    expect(
      blockdevOptions.parse({
        driver: "quorum",
        "read-only": true,
        "vote-threshold": 1,
        children: ["a", { driver: "file", filename: "a,b" }],
      }),
    ).toEqual(expected);
  });

  it("detaches a backing file by null, in dotted keys by empty text", () => {
    expect(blockdevOptions.parseDotted("driver=qcow2,file=f,backing=")).toMatchObject({
      value: { backing: null },
    });
  });
});
