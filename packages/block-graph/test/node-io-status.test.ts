import {
  type BlockStatus,
  Role,
  type RoleMask,
  StatusFlag,
  type StatusOptions,
} from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import type { BlockNode } from "../src/block-node.ts";
import { type RigNode, rigNode, rootEdge } from "./io-rig.ts";
import { loggedDisk } from "./logged-disk.ts";

const { data, zero, offsetValid, raw, allocated, eof, recurse } = StatusFlag;

type Answer = (offset: number, length: number, options?: StatusOptions) => BlockStatus;

interface StatusNode extends Omit<Partial<RigNode>, "driver"> {
  readonly size?: number;
  readonly alignment?: number;
  readonly below?: BlockNode;
  readonly role?: RoleMask;
  readonly answer?: (
    below: () => BlockNode["parents"] extends Set<infer Edge> ? Edge : never,
  ) => Answer;
}

/** A node whose driver answers block status as told. */
function statusNode({ size = 4096, alignment = 1, below, role, answer, ...rig }: StatusNode): {
  readonly node: BlockNode;
  readonly asked: string[];
} {
  const asked: string[] = [];
  const node: BlockNode = rigNode({
    name: below === undefined ? "leaf" : "node",
    ...(below === undefined
      ? {}
      : { children: { file: { node: below, role: role ?? Role.data } } }),
    ...rig,
    driver: () => {
      const child = (): never => node.children.get("file") as never;
      const answers = answer?.(child);
      const blockStatus =
        answers === undefined
          ? undefined
          : async (
              offset: number,
              length: number,
              options?: StatusOptions,
            ): Promise<BlockStatus> => {
              asked.push(`${offset}+${length}${options?.wantZero === false ? " data only" : ""}`);
              return answers(offset, length, options);
            };
      return loggedDisk({ size, limits: { requestAlignment: alignment } }, { blockStatus }).driver;
    },
  });
  return { node, asked };
}

describe("the status of one layer", () => {
  it("is the end, of no length, at and beyond the end", async () => {
    const { node, asked } = statusNode({ answer: () => () => ({ flags: data, length: 1 }) });
    for (const offset of [4096, 5000]) {
      expect(await node.io.blockStatus(offset, 10)).toEqual({ flags: eof, length: 0 });
    }
    expect(await node.io.blockStatus(0, 0)).toEqual({ flags: 0, length: 0 });
    expect(asked).toEqual([]);
  });

  it("of a negative range is EIO", async () => {
    const { node } = statusNode({});
    await expect(node.io.blockStatus(-1, 10)).rejects.toMatchObject({ code: "EIO" });
  });

  it.each([
    [
      "a protocol says where",
      true,
      { flags: data | offsetValid | allocated, length: 100, offset: 7 },
    ],
    ["a format does not", false, { flags: data | allocated, length: 100 }],
  ])("is data when the driver does not tell: %s", async (_title, isProtocol, expected) => {
    const { node } = statusNode({ definition: { isProtocol } });
    expect(await node.io.blockStatus(7, 100)).toEqual(expected);
  });

  it.each([
    ["data", { flags: data }, data | allocated],
    ["zero", { flags: zero }, zero | allocated],
    ["nothing, without support for backing", { flags: 0 }, 0],
  ])("adds who decides to %s", async (_title, answer, flags) => {
    const { node } = statusNode({ answer: () => () => ({ ...answer, length: 100 }) });
    expect(await node.io.blockStatus(0, 100)).toMatchObject({ flags, length: 100 });
  });

  it.each([
    ["no backing child", undefined, 0, true, zero],
    ["a backing child with something there", 4096, 0, true, 0],
    ["a backing child that ends before", 512, 512, true, zero],
    ["a backing child that ends before, not wanting zeroes", 512, 512, false, 0],
  ])("of what is not allocated, with %s", async (_title, backingSize, offset, wantZero, flags) => {
    const below = backingSize === undefined ? undefined : statusNode({ size: backingSize }).node;
    const { node } = statusNode({
      answer: () => () => ({ flags: 0, length: 100 }),
      definition: { supportsBacking: true },
      ...(below === undefined ? {} : { below, role: Role.cow }),
    });
    expect(await node.io.blockStatus(offset, 100, { wantZero })).toMatchObject({ flags });
  });

  it("says where the node ends, and only where the run ends there", async () => {
    const { node } = statusNode({
      answer: () => (_offset, length) => ({ flags: data, length: Math.min(length, 1024) }),
    });
    expect(await node.io.blockStatus(0, 4096)).toMatchObject({
      flags: data | allocated,
      length: 1024,
    });
    expect(await node.io.blockStatus(3072, 4096)).toMatchObject({
      flags: data | allocated | eof,
      length: 1024,
    });
  });

  it.each([
    [100, 10, "0+512", 10, 100],
    [500, 100, "0+1024", 100, 500],
    [511, 4000, "0+4096", 3585, 511],
  ])(
    "at %d of %d bytes asks an aligned range and cuts the answer",
    async (offset, length, range, expected, mapped) => {
      const { node, asked } = statusNode({
        alignment: 512,
        answer: () => (start, askedLength) => ({
          flags: data | offsetValid,
          length: askedLength,
          offset: start,
        }),
      });
      const status = await node.io.blockStatus(offset, length);
      expect(asked).toEqual([range]);
      expect(status).toMatchObject({ length: expected, offset: mapped });
    },
  );

  it("asks the child again when the driver only maps", async () => {
    const below = statusNode({ answer: () => () => ({ flags: zero, length: 50 }) });
    const { node } = statusNode({
      below: below.node,
      answer: (child) => (offset, length) => ({
        flags: raw | offsetValid,
        length,
        offset: offset + 1000,
        child: child(),
      }),
    });
    expect(await node.io.blockStatus(10, 100)).toMatchObject({
      flags: zero | allocated,
      length: 50,
    });
    expect(below.asked).toEqual(["1010+100"]);
  });

  it("is zeroes where the mapped child has ended", async () => {
    const below = statusNode({ size: 512 });
    const { node } = statusNode({
      below: below.node,
      answer: (child) => (offset, length) => ({
        flags: raw | offsetValid,
        length,
        offset,
        child: child(),
      }),
    });
    expect(await node.io.blockStatus(512, 100)).toMatchObject({
      flags: zero | allocated,
      length: 100,
    });
  });

  it("does not call the child's end its own", async () => {
    const below = statusNode({ size: 1024 });
    const { node } = statusNode({
      below: below.node,
      answer: (child) => (offset, length) => ({
        flags: raw | offsetValid,
        length,
        offset,
        child: child(),
      }),
    });
    expect(await node.io.blockStatus(0, 2048)).toEqual({
      flags: data | offsetValid | allocated,
      length: 1024,
      offset: 0,
    });
  });

  it("of a filter without an answer is its child's", async () => {
    const below = statusNode({ answer: () => () => ({ flags: zero, length: 100 }) });
    const { node } = statusNode({
      below: below.node,
      role: Role.filtered,
      definition: { isFilter: true },
    });
    expect(await node.io.blockStatus(0, 100)).toMatchObject({
      flags: zero | allocated,
      length: 100,
    });
  });

  describe("looks for zeroes in the child", () => {
    const mapping =
      (flags: number): NonNullable<StatusNode["answer"]> =>
      (child) =>
      (offset, length) => ({ flags, length, offset, child: child() });

    it.each([
      ["zeroes there", { flags: zero, length: 60 }, 4096, data | zero, 60],
      ["data there", { flags: data, length: 60 }, 4096, data, 60],
      ["the end with zeroes", { flags: zero, length: 60 }, 60, data | zero, 100],
      ["nothing, beyond the end", { flags: data, length: 60 }, 0, data | zero, 100],
    ])("%s", async (_title, answer, size, flags, length) => {
      const below = statusNode({ size, answer: () => () => answer });
      const { node } = statusNode({
        below: below.node,
        answer: mapping(data | offsetValid | recurse),
      });
      const status = await node.io.blockStatus(0, 100);
      expect(status).toMatchObject({ flags: flags | offsetValid | allocated, length });
    });

    it("not when zeroes do not matter, and not when the driver does not say so", async () => {
      const below = statusNode({ answer: () => () => ({ flags: zero, length: 60 }) });
      const asking = statusNode({
        below: below.node,
        answer: mapping(data | offsetValid | recurse),
      });
      const silent = statusNode({ below: below.node, answer: mapping(data | offsetValid) });
      expect(await asking.node.io.blockStatus(0, 100, { wantZero: false })).toMatchObject({
        length: 100,
      });
      expect(await silent.node.io.blockStatus(0, 100)).toMatchObject({ length: 100 });
      expect(below.asked).toEqual([]);
    });

    it("and believes the driver when the child fails", async () => {
      const below = statusNode({
        answer: () => () => {
          throw new Error("no answer");
        },
      });
      const { node } = statusNode({
        below: below.node,
        answer: mapping(data | offsetValid | recurse),
      });
      expect(await node.io.blockStatus(0, 100)).toMatchObject({
        flags: data | offsetValid | allocated,
        length: 100,
      });
    });
  });

  it("is a defect of the driver when it is empty", async () => {
    const { node } = statusNode({ answer: () => () => ({ flags: data, length: 0 }) });
    await expect(node.io.blockStatus(0, 100)).rejects.toThrow(
      "driver 'x-test' answers no block status",
    );
    expect(node.io.inFlight).toBe(0);
  });
});

describe("the cached run of data", () => {
  function protocol(): ReturnType<typeof statusNode> {
    return statusNode({
      answer: () => (offset, length) => ({
        flags: data | offsetValid,
        length: Math.min(length, 2048),
        offset,
      }),
    });
  }

  it("answers without the driver", async () => {
    const { node, asked } = protocol();
    await node.io.blockStatus(0, 4096);
    expect(await node.io.blockStatus(512, 4096)).toEqual({
      flags: data | offsetValid | allocated,
      length: 1536,
      offset: 512,
    });
    expect(await node.io.blockStatus(512, 10)).toMatchObject({ length: 10 });
    expect(asked).toHaveLength(1);
    await node.io.blockStatus(512, 4096, { wantZero: false });
    expect(asked).toHaveLength(2);
  });

  it.each([
    ["write-zeroes in it", "pwriteZeroes", 1024, 2],
    ["write-zeroes beside it", "pwriteZeroes", 2048, 1],
    ["a discard in it", "pdiscard", 1024, 2],
    ["a discard beside it", "pdiscard", 2048, 1],
    ["a truncation into it", "truncate", 1024, 2],
    ["a write into it", "pwrite", 1024, 1],
    ["emptying the node", "makeEmpty", 0, 2],
    ["a replacement of the content", "replaced", 0, 2],
  ] as const)("after %s", async (_title, operation, offset, count) => {
    const { node, asked } = protocol();
    Object.assign(node.driver, { makeEmpty: () => Promise.resolve() });
    const edge = rootEdge(node);
    await node.io.blockStatus(0, 4096);
    if (operation === "truncate") await edge.truncate(offset);
    else if (operation === "pwrite") await edge.pwrite(offset, new Uint8Array(512));
    else if (operation === "makeEmpty") await edge.makeEmpty();
    else if (operation === "replaced") await node.io.contentReplaced(0, node.size);
    else await edge[operation](offset, 512);
    await node.io.blockStatus(0, 512);
    expect(asked).toHaveLength(count);
  });

  it("is not kept from an answer that was under way while zeroes were written", async () => {
    let answer = (_status: BlockStatus): void => undefined;
    const { driver } = loggedDisk(
      { size: 4096 },
      {
        blockStatus: (offset, length) =>
          new Promise((resolve) => {
            asked += 1;
            answer = resolve;
            if (asked > 1) resolve({ flags: zero, length, offset });
          }),
      },
    );
    let asked = 0;
    const node = rigNode({ driver: () => driver });
    const first = node.io.blockStatus(0, 4096);
    await rootEdge(node).pwriteZeroes(0, 4096);
    answer({ flags: data | offsetValid, length: 4096, offset: 0 });
    await first;
    expect(await node.io.blockStatus(0, 4096)).toMatchObject({ flags: zero | allocated | eof });
    expect(asked).toBe(2);
  });

  it("is not used for nodes with children", async () => {
    const below = statusNode({});
    const { node, asked } = statusNode({
      below: below.node,
      answer: () => (offset, length) => ({ flags: data | offsetValid, length, offset }),
    });
    await node.io.blockStatus(0, 512);
    await node.io.blockStatus(0, 512);
    expect(asked).toHaveLength(2);
  });
});
