import {
  any,
  array,
  boolean,
  command,
  enumeration,
  event,
  integer,
  introspect,
  literal,
  nullable,
  nullValue,
  number,
  object,
  optional,
  size,
  string,
  union,
} from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { blockdevOptions, blockdevRef } from "./blockdev.ts";

describe("introspect", () => {
  it("describes commands and events and what they mention", () => {
    const id = object({ id: string(), force: optional(boolean(), false) });
    const jobs = array(object({ id: string(), progress: size() }));
    const list = introspect({
      "job-cancel": command({ arguments: id }),
      "query-jobs": command({ returns: jobs, allowOob: true }),
      STOP: event(),
      RESUME: event({ data: id }),
    });
    expect(list.find((info) => info.name === "job-cancel")).toEqual({
      name: "job-cancel",
      "meta-type": "command",
      "arg-type": "0",
      "ret-type": "1",
    });
    expect(list).toContainEqual({
      name: "query-jobs",
      "meta-type": "command",
      "arg-type": "1",
      "ret-type": "[2]",
      "allow-oob": true,
    });
    expect(list).toContainEqual({
      name: "0",
      "meta-type": "object",
      members: [
        { name: "id", type: "str" },
        { name: "force", type: "bool", default: null },
      ],
    });
    expect(list).toContainEqual({ name: "1", "meta-type": "object", members: [] });
    expect(list).toContainEqual({ name: "[2]", "meta-type": "array", "element-type": "2" });
    expect(list).toContainEqual({ name: "STOP", "meta-type": "event", "arg-type": "1" });
    expect(list).toContainEqual({ name: "RESUME", "meta-type": "event", "arg-type": "0" });
  });

  it("gives scalars the builtin types of the wire", () => {
    const list = introspect({
      all: object({
        a: string(),
        b: integer(),
        c: size(),
        d: number(),
        e: boolean(),
        f: nullValue(),
        g: any(),
        h: literal(5),
        i: literal(1.5),
        j: literal(true),
      }),
    });
    const all = list.find((info) => info.name === "all");
    const members = all?.["meta-type"] === "object" ? all.members : [];
    expect(members.map((member) => member.type).join()).toBe(
      "str,int,int,number,bool,null,any,int,number,bool",
    );
    expect(list).toContainEqual({ name: "any", "meta-type": "builtin", "json-type": "value" });
    expect(list).toContainEqual({ name: "int", "meta-type": "builtin", "json-type": "int" });
  });

  it("makes equal enumerations one type", () => {
    const list = introspect({
      x: object({ a: enumeration("on", "off"), b: enumeration("on", "off"), c: literal("on") }),
    });
    expect(list.filter((info) => info["meta-type"] === "enum")).toEqual([
      {
        name: "0",
        "meta-type": "enum",
        members: [{ name: "on" }, { name: "off" }],
        values: ["on", "off"],
      },
      { name: "1", "meta-type": "enum", members: [{ name: "on" }], values: ["on"] },
    ]);
  });

  it("describes a union that mentions itself by tag and variants", () => {
    const list = introspect({ BlockdevOptions: blockdevOptions, BlockdevRef: blockdevRef });
    const options = list.find((info) => info.name === "BlockdevOptions");
    expect(options).toMatchObject({ "meta-type": "object", tag: "driver" });
    const variants = (options?.["meta-type"] === "object" && options.variants) || [];
    expect(variants.map((variant) => variant.case)).toEqual([
      "null-co",
      "file",
      "raw",
      "qcow2",
      "quorum",
      "nbd",
    ]);
    expect(list).toContainEqual({
      name: "BlockdevRef",
      "meta-type": "alternate",
      members: [{ type: "BlockdevOptions" }, { type: "str" }],
    });
  });

  it("flattens alternates inside alternates", () => {
    const list = introspect({
      BlockdevRefOrNull: nullable(blockdevRef),
      BlockdevOptions: blockdevOptions,
    });
    expect(list).toContainEqual({
      name: "BlockdevRefOrNull",
      "meta-type": "alternate",
      members: [{ type: "null" }, { type: "BlockdevOptions" }, { type: "str" }],
    });
  });

  it("defines every type that it mentions", () => {
    const list = introspect({
      "blockdev-add": command({ arguments: blockdevOptions }),
      nested: union("a", { b: union("c", { d: object({}) }) }),
    });
    const names = new Set(list.map((info) => info.name));
    const mentioned = JSON.stringify(list).matchAll(
      /"(?:type|arg-type|ret-type|element-type)":"([^"]*)"/g,
    );
    expect([...mentioned].map(([, name]) => name).filter((name) => !names.has(name ?? ""))).toEqual(
      [],
    );
    expect(names.size).toBe(list.length);
  });
});
