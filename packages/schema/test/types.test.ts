import {
  alternate,
  any,
  array,
  boolean,
  enumeration,
  type Infer,
  integer,
  lazy,
  literal,
  type MembersSchema,
  nullable,
  number,
  object,
  optional,
  type ParseResult,
  type Schema,
  size,
  string,
  union,
} from "@blocklayer/schema";
import { describe, expectTypeOf, it } from "vitest";
import type { BlockdevOptions, blockdevOptions } from "./blockdev.ts";

describe("Infer", () => {
  it("gives the types of scalars", () => {
    const all = [string(), integer(), number(), size(), boolean(), any()] as const;
    expectTypeOf<Infer<(typeof all)[0]>>().toEqualTypeOf<string>();
    expectTypeOf<Infer<(typeof all)[1]>>().toEqualTypeOf<number>();
    expectTypeOf<Infer<(typeof all)[4]>>().toEqualTypeOf<boolean>();
    expectTypeOf<Infer<(typeof all)[5]>>().toEqualTypeOf<unknown>();
  });

  it("keeps the names of enumerations and literals", () => {
    const locking = enumeration("auto", "on", "off");
    const five = literal(5);
    expectTypeOf<Infer<typeof locking>>().toEqualTypeOf<"auto" | "on" | "off">();
    expectTypeOf<Infer<typeof five>>().toEqualTypeOf<5>();
  });

  it("joins the branches of alternates and nullables", () => {
    const either = alternate(string(), array(integer()));
    const named = alternate("BlockdevRef", string(), object({ a: integer() }));
    const maybe = nullable(size());
    expectTypeOf<Infer<typeof either>>().toEqualTypeOf<string | readonly number[]>();
    expectTypeOf<Infer<typeof named>>().toEqualTypeOf<string | { readonly a: number }>();
    expectTypeOf<Infer<typeof maybe>>().toEqualTypeOf<number | null>();
  });

  it("makes members optional that have no default", () => {
    const file = object({
      filename: string(),
      locking: optional(enumeration("auto", "on", "off"), "auto"),
      size: optional(size()),
      deep: object({ list: array(object({ x: optional(boolean()) })) }),
    });
    expectTypeOf<Infer<typeof file>>().toEqualTypeOf<{
      readonly filename: string;
      readonly locking: "auto" | "on" | "off";
      readonly size?: number;
      readonly deep: { readonly list: readonly { readonly x?: boolean }[] };
    }>();
    expectTypeOf(file.parse({})).toEqualTypeOf<ParseResult<Infer<typeof file>>>();
  });

  it("replaces and adds members that an object is extended by", () => {
    const extended = object({ a: integer(), b: integer() }).extend({
      b: string(),
      c: optional(size()),
    });
    expectTypeOf<Infer<typeof extended>>().toEqualTypeOf<{
      readonly a: number;
      readonly b: string;
      readonly c?: number;
    }>();
  });

  it("narrows a union by its tag", () => {
    const node = union(
      "driver",
      { raw: object({ size: optional(size()) }), file: object({ filename: string() }) },
      { base: { "read-only": optional(boolean(), false) } },
    );
    type Node = Infer<typeof node>;
    expectTypeOf<Node["driver"]>().toEqualTypeOf<"raw" | "file">();
    expectTypeOf<Extract<Node, { driver: "file" }>>().toEqualTypeOf<{
      readonly driver: "file";
      readonly "read-only": boolean;
      readonly filename: string;
    }>();
    expectTypeOf<Extract<Node, { driver: "raw" }>>().toEqualTypeOf<{
      readonly driver: "raw";
      readonly "read-only": boolean;
      readonly size?: number;
    }>();
  });

  it("follows recursion through a declared type", () => {
    interface Tree {
      readonly children?: readonly Tree[];
    }
    const tree: Schema<Tree> = object({ children: optional(array(lazy(() => tree))) });
    expectTypeOf<Infer<typeof tree>>().toEqualTypeOf<Tree>();
    expectTypeOf<Infer<typeof blockdevOptions>>().toEqualTypeOf<BlockdevOptions>();
  });

  it("lets a narrower schema stand where a wider one is asked for", () => {
    expectTypeOf<Schema<"a">>().toExtend<Schema<string>>();
    expectTypeOf<Schema<string>>().not.toExtend<Schema<"a">>();
    expectTypeOf<MembersSchema<{ readonly a: 1 }>>().toExtend<MembersSchema<unknown>>();
  });

  it("refuses a default and a check of another type", () => {
    // @ts-expect-error: 5 is no text.
    optional(string(), 5);
    // @ts-expect-error: "no" is not among the names.
    optional(enumeration("auto", "on"), "no");
    // @ts-expect-error: the check takes the object's own members.
    object({ a: integer() }, { check: (value) => value.b });
  });
});
