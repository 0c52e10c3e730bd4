import {
  type BlockLimits,
  checkRole,
  completed,
  DEFAULT_LIMITS,
  defineDriver,
  ImageReferencePolicy,
  MAX_REQUEST,
  mergeLimits,
  RequestFlag,
  Role,
  rejected,
  StatusFlag,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { object } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";

describe("a role", () => {
  const { data, metadata, filtered, cow, primary, image } = Role;
  it.each([
    data,
    metadata,
    filtered,
    cow,
    image,
    data | primary,
    filtered | primary,
    metadata | primary,
  ])("of %i is one", (role) => {
    expect(checkRole(role)).toBeUndefined();
  });

  it.each([
    [0, "a child has at least one of the roles data, metadata, filtered, cow"],
    [primary, "a child has at least one of the roles data, metadata, filtered, cow"],
    [filtered | data, "the role filtered excludes data, metadata and cow"],
    [filtered | metadata, "the role filtered excludes data, metadata and cow"],
    [filtered | cow, "the role filtered excludes data, metadata and cow"],
    [cow | data, "the role cow excludes all others"],
    [cow | primary, "the role cow excludes all others"],
  ])("of %i is none: %s", (role, problem) => {
    expect(checkRole(role)).toBe(problem);
  });
});

describe("bits", () => {
  it.each([
    ["request flags", RequestFlag],
    ["status flags", StatusFlag],
  ])("of %s are each their own", (_title, flags) => {
    const bits = Object.values(flags);
    expect(new Set(bits).size).toBe(bits.length);
    for (const bit of bits) expect(Number.isInteger(Math.log2(bit))).toBe(true);
  });

  it("of an image's file are data, metadata and primary", () => {
    expect(Role.image).toBe(Role.data | Role.metadata | Role.primary);
  });
});

describe("limits", () => {
  it.each<[string, Partial<BlockLimits>[], Partial<BlockLimits>, Partial<BlockLimits>]>([
    ["nothing is inherited from no child", [], {}, {}],
    [
      "the largest preference and the smallest transfer of the children win",
      [
        { optTransfer: 4096, maxTransfer: 0, pdiscardAlignment: 512 },
        { optTransfer: 65536, maxTransfer: 1048576, pdiscardAlignment: 0 },
        { optTransfer: 0, maxTransfer: 65536, pdiscardAlignment: 4096 },
      ],
      {},
      { optTransfer: 65536, maxTransfer: 65536, pdiscardAlignment: 4096 },
    ],
    [
      "what is checked at each node anew is not inherited",
      [
        {
          requestAlignment: 4096,
          maxPwriteZeroes: 512,
          pwriteZeroesAlignment: 512,
          maxPdiscard: 512,
        },
      ],
      {},
      {},
    ],
    [
      "what is inherited is a whole number of blocks",
      [{ maxTransfer: 10000 }],
      { requestAlignment: 4096 },
      { maxTransfer: 8192, requestAlignment: 4096 },
    ],
    [
      "a block is never too long",
      [{ maxTransfer: 512 }],
      { requestAlignment: 4096 },
      { maxTransfer: 4096, requestAlignment: 4096 },
    ],
    [
      "what the driver says wins",
      [{ optTransfer: 4096, maxTransfer: 4096, pdiscardAlignment: 4096 }],
      { optTransfer: 0, maxTransfer: 0, requestAlignment: 512 },
      { pdiscardAlignment: 4096, requestAlignment: 512 },
    ],
  ])("%s", (_title, children, own, expected) => {
    const full = children.map((child) => ({ ...DEFAULT_LIMITS, ...child }));
    expect(mergeLimits(full, own)).toEqual({ ...DEFAULT_LIMITS, ...expected });
  });

  it("that no request could keep are refused", () => {
    expect(() => mergeLimits([], { maxTransfer: 512, requestAlignment: 4096 })).toThrow(
      new RangeError("a driver that takes 512 bytes at a time has no request alignment of 4096"),
    );
  });

  it("of a request are 2^31 − 512 bytes", () => {
    expect(MAX_REQUEST).toBe(2147483136);
  });
});

describe("promises", () => {
  it("completed is one that is resolved", async () => {
    expect(await completed).toBeUndefined();
  });

  it("rejected returns one that is rejected, and throws nothing", async () => {
    const error = new BlockError("EIO", "broken");
    await expect(rejected(error)).rejects.toBe(error);
  });
});

describe("the policy for names inside images", () => {
  it("denies by default", async () => {
    const reference = { fileName: "/etc/passwd", format: "raw", role: "backing" };
    await expect(ImageReferencePolicy.deny.resolve(reference, "node0")).rejects.toMatchObject({
      code: "EACCES",
      message: "names found inside an image are not followed without a policy that allows it",
      hint: "give the child in the options, or open with a policy",
      context: { node: "node0", reference: "/etc/passwd", role: "backing" },
    });
  });
});

describe("defineDriver", () => {
  it("returns the definition, its names kept as types", () => {
    const definition = defineDriver({
      driverName: "none",
      schema: object({}),
      children: [{ name: "file", role: Role.image, required: true }],
      isFilter: false,
      isProtocol: false,
      supportsBacking: false,
      open: () => Promise.reject(new BlockError("ENOTSUP", "opens nothing")),
    });
    const name: "none" = definition.driverName;
    const child: "file" | undefined = definition.children[0]?.name;
    expect([name, child]).toEqual(["none", "file"]);
  });
});
