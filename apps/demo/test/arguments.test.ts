import { describe, expect, it } from "vitest";
import { type DemoArguments, parseArguments } from "../src/arguments.ts";

const NOTHING: DemoArguments = {
  disk: undefined,
  inPlace: false,
  once: false,
  keep: false,
  help: false,
};

describe("the command line", () => {
  it.each<[string[], Partial<DemoArguments>]>([
    [[], {}],
    [["--once"], { once: true }],
    [["--", "--once"], { once: true }],
    [["--keep", "--once"], { once: true, keep: true }],
    [["--help"], { help: true }],
    [["-h"], { help: true }],
    [["--help", "--in-place"], { help: true, inPlace: true }],
    [["disk.raw"], { disk: "/home/me/disk.raw" }],
    [["../disk.raw", "--in-place"], { disk: "/home/disk.raw", inPlace: true }],
    [["/srv/disk.raw", "--once"], { disk: "/srv/disk.raw", once: true }],
    [["--once", "--", "--keep"], { once: true, disk: "/home/me/--keep" }],
  ])("%j is understood", (args, expected) => {
    expect(parseArguments(args, "/home/me")).toEqual({
      ok: true,
      value: { ...NOTHING, ...expected },
    });
  });

  it.each([
    [["--fast"], "unknown option '--fast'"],
    [["--once=yes"], "unknown option '--once=yes'"],
    [["-x"], "unknown option '-x'"],
    [["--constructor"], "unknown option '--constructor'"],
    [["a", "b"], "one disk at most, not 'a' and 'b'"],
    [[""], "'' is no path of a disk"],
    [["-"], "'-' is no path of a disk"],
    [["--in-place"], "--in-place needs the path of a disk"],
  ])("%j is refused, with what is allowed", (args, message) => {
    const allowed = "allowed are --once, --in-place, --keep, --help and the path of one raw disk";
    expect(parseArguments(args, "/home/me")).toEqual({
      ok: false,
      message: `${message}; ${allowed}`,
    });
  });
});
