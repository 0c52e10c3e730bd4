import { describeProblems, nestKeyValue, parseKeyValue } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";

describe("parseKeyValue", () => {
  it.each<[string, Record<string, string>]>([
    ["", {}],
    ["a=1", { a: "1" }],
    ["a=1,", { a: "1" }],
    ["a=", { a: "" }],
    ["a=b=c", { a: "b=c" }],
    [
      "driver=raw,file.driver=file,file.filename=a,,b",
      { driver: "raw", "file.driver": "file", "file.filename": "a,b" },
    ],
    ["a=1,,,b=2", { a: "1,", b: "2" }],
    ["a=,,", { a: "," }],
    ["a=1,a=2", { a: "2" }],
    ["constructor=1", { constructor: "1" } as unknown as Record<string, string>],
  ])("%j", (text, pairs) => {
    expect(parseKeyValue(text)).toEqual({ ok: true, value: pairs });
  });

  it.each<[string, Record<string, string>]>([
    ["raw", { driver: "raw" }],
    ["raw,size=5", { driver: "raw", size: "5" }],
    ["driver=raw", { driver: "raw" }],
    ["raw,driver=file", { driver: "file" }],
  ])("%j with the implied key driver", (text, pairs) => {
    expect(parseKeyValue(text, { impliedKey: "driver" })).toEqual({ ok: true, value: pairs });
  });

  it("wants an equals sign in the first element when no key is implied", () => {
    expect(parseKeyValue("raw")).toEqual({
      ok: false,
      problems: [{ path: "raw", message: "Expected '=' after parameter 'raw'" }],
    });
  });

  it("gives pairs without a prototype", () => {
    const result = parseKeyValue("a=1");
    expect(result.ok && Object.getPrototypeOf(result.value)).toBeNull();
  });
});

describe("nestKeyValue", () => {
  it.each<[Record<string, string>, unknown]>([
    [{}, {}],
    [{ "a.b.c": "1", "a.d": "2" }, { a: { b: { c: "1" }, d: "2" } }],
    [{ "a.1.x": "1", "a.0": "2" }, { a: ["2", { x: "1" }] }],
    [{ "a.0.0": "1" }, { a: [["1"]] }],
    [{ "a.00": "1", "a.01": "2" }, { a: ["1", "2"] }],
  ])("%j", (options, value) => {
    expect(nestKeyValue(options)).toEqual({ ok: true, value });
  });

  it.each<[Record<string, string>, string]>([
    [{ "a.1": "1" }, "Parameter 'a.0' missing"],
    [{ "a.0": "1", "a.b": "1" }, "Parameters 'a.*' used inconsistently"],
    [{ "a.b": "1", "a.b.c": "1" }, "Parameters 'a.b.*' used inconsistently"],
    [{ "a.b.c": "1", "a.b": "1" }, "Parameters 'a.b.*' used inconsistently"],
    [{ "a,b": "1" }, "Invalid parameter 'a,b'"],
  ])("%j is refused", (options, message) => {
    const result = nestKeyValue(options);
    expect(result.ok ? "" : describeProblems(result.problems)).toBe(message);
  });
});
