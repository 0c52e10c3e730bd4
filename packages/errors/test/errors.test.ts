import {
  assert,
  BlockError,
  Emitter,
  errnoOf,
  nameOfErrno,
  textOfErrno,
  toBlockError,
} from "@blocklayer/errors";
import { describe, expect, it } from "vitest";

describe("BlockError", () => {
  it("carries code, errno, message, context, hint and cause", () => {
    const cause = new Error("disk gone");
    const error = new BlockError(
      "EROFS",
      "write of 512 bytes at 0 refused",
      { node: "n0", offset: 0, length: 512 },
      { cause, hint: "open it writable" },
    );
    expect(error).toMatchObject({
      name: "BlockError",
      code: "EROFS",
      errno: -30,
      message: "write of 512 bytes at 0 refused",
      context: { node: "n0", offset: 0, length: 512 },
      hint: "open it writable",
      errorClass: "GenericError",
      cause,
    });
  });

  it("has no cause property when none was given", () => {
    expect("cause" in new BlockError("EIO", "x")).toBe(false);
  });

  it("is an instance for a second installed copy of the package too", () => {
    const foreign = Object.assign(new Error("x"), { brand: "@blocklayer/BlockError" });
    expect(foreign instanceof BlockError).toBe(true);
  });

  it.each([undefined, null, 1, "EIO", new Error("x"), { brand: "other" }])(
    "%s is not an instance",
    (value) => {
      expect((value as unknown) instanceof BlockError).toBe(false);
    },
  );
});

describe("toBlockError", () => {
  it("returns a BlockError as it is", () => {
    const error = new BlockError("EIO", "x");
    expect(toBlockError(error, "y")).toBe(error);
  });

  it.each([
    [Object.assign(new Error("no room"), { code: "ENOSPC" }), "ENOSPC", "write failed: no room"],
    [Object.assign(new Error("bad"), { code: "ERR_INVALID_ARG" }), "EIO", "write failed: bad"],
    [Object.assign(new Error("bad"), { code: 7 }), "EIO", "write failed: bad"],
    ["text", "EIO", "write failed: text"],
  ])("wraps %s as %s", (error, code, message) => {
    const wrapped = toBlockError(error, "write failed", { node: "n0" });
    expect(wrapped).toMatchObject({ code, message, context: { node: "n0" }, cause: error });
  });
});

describe("errno table", () => {
  it.each([
    ["EPERM", -1, "Operation not permitted"],
    ["EIO", -5, "Input/output error"],
    ["ENOSPC", -28, "No space left on device"],
    ["ENOTSUP", -95, "Operation not supported"],
    ["ECANCELED", -125, "Operation canceled"],
  ])("%s is %i, %s", (code, errno, text) => {
    expect(errnoOf(code)).toBe(errno);
    expect(nameOfErrno(errno)).toBe(code);
    expect(nameOfErrno(-errno)).toBe(code);
    expect(textOfErrno(code)).toBe(text);
  });

  it("answers EIO's number, no name, and the name itself for what it does not know", () => {
    expect(errnoOf("EWHAT")).toBe(-5);
    expect(nameOfErrno(9999)).toBeUndefined();
    expect(textOfErrno("EWHAT")).toBe("EWHAT");
  });
});

describe("assert", () => {
  it("passes when the condition holds and does not make the message", () => {
    assert(true, () => {
      throw new Error("made");
    });
  });

  it.each(["a sentence", () => "a sentence"])(
    "throws an AssertionError with the message",
    (message) => {
      expect(() => assert(false, message)).toThrow(
        expect.objectContaining({ name: "AssertionError", message: "a sentence" }),
      );
    },
  );
});

describe("Emitter", () => {
  interface Events {
    readonly ready: number;
    readonly done: string;
  }

  it("tells listeners in order, until disposed", () => {
    const emitter = new Emitter<Events>();
    const heard: string[] = [];
    const first = emitter.on("ready", (value) => heard.push(`a${value}`));
    emitter.on("ready", (value) => heard.push(`b${value}`));
    emitter.emit("ready", 1);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    emitter.emit("ready", 2);
    expect(heard).toEqual(["a1", "b1", "b2"]);
    expect([
      emitter.listenerCount("ready"),
      emitter.listenerCount("done"),
      emitter.listenerCount(),
    ]).toEqual([1, 0, 1]);
  });

  it("tells a once listener once", () => {
    const emitter = new Emitter<Events>();
    const heard: string[] = [];
    emitter.once("done", (value) => heard.push(value));
    emitter.emit("done", "x");
    emitter.emit("done", "y");
    expect(heard).toEqual(["x"]);
    expect(emitter.listenerCount()).toBe(0);
  });

  it("neither tells a listener that was added during the event nor one that was removed", () => {
    const emitter = new Emitter<Events>();
    const heard: string[] = [];
    emitter.on("done", () => {
      heard.push("first");
      second[Symbol.dispose]();
      emitter.on("done", () => heard.push("late"));
    });
    const second = emitter.on("done", () => heard.push("second"));
    emitter.emit("done", "x");
    expect(heard).toEqual(["first"]);
  });

  it("tells everybody before it throws the first error", () => {
    const emitter = new Emitter<Events>();
    const heard: string[] = [];
    emitter.on("done", () => {
      throw new Error("one");
    });
    emitter.on("done", () => {
      throw new Error("two");
    });
    emitter.on("done", () => heard.push("three"));
    expect(() => emitter.emit("done", "x")).toThrow("one");
    expect(heard).toEqual(["three"]);
  });
});
