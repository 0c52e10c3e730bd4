import {
  backingChainNext,
  chainContains,
  chainEdges,
  cowChild,
  filterChild,
  filterOrCowChild,
  findOverlay,
  primaryChild,
  skipFilters,
  skipImplicitFilters,
  subtree,
} from "@blocklayer/block-graph";
import { beforeEach, describe, expect, it } from "vitest";
import { type Rig, rig } from "./graph-rig.ts";

/** `f2 -> top -> f1 -> mid -> base`, each overlay with a file of its own. */
let r: Rig;
beforeEach(async () => {
  r = rig();
  for (const name of ["base", "mid-file", "top-file"]) await r.disk(name);
  await r.open({ driver: "overlay", "node-name": "mid", file: "mid-file", backing: "base" });
  await r.open({ driver: "filter", "node-name": "f1", file: "mid" });
  await r.open({ driver: "overlay", "node-name": "top", file: "top-file", backing: "f1" });
  await r.open({ driver: "filter", "node-name": "f2", file: "top" });
});
const node = (name: string): ReturnType<Rig["graph"]["node"]> => r.graph.node(name);

describe("chains", () => {
  it.each([
    { of: "f2", filter: "top", cow: undefined, primary: "top", next: "mid", skipped: "top" },
    { of: "top", filter: undefined, cow: "f1", primary: "top-file", next: "mid", skipped: "top" },
    { of: "f1", filter: "mid", cow: undefined, primary: "mid", next: "base", skipped: "mid" },
    {
      of: "mid",
      filter: undefined,
      cow: "base",
      primary: "mid-file",
      next: "base",
      skipped: "mid",
    },
    {
      of: "base",
      filter: undefined,
      cow: undefined,
      primary: undefined,
      next: undefined,
      skipped: "base",
    },
  ])("the children of $of", ({ of, filter, cow, primary, next, skipped }) => {
    const at = node(of);
    expect({
      filter: filterChild(at)?.nodeName,
      cow: cowChild(at)?.nodeName,
      either: filterOrCowChild(at)?.nodeName,
      primary: primaryChild(at)?.nodeName,
      next: backingChainNext(at)?.name,
      skipped: skipFilters(at).name,
    }).toEqual({ filter, cow, either: filter ?? cow, primary, next, skipped });
    expect([at.filterChild, at.cowChild, at.filterOrCowChild, at.primaryChild, at.backing]).toEqual(
      [filterChild(at), cowChild(at), filterOrCowChild(at), primaryChild(at), backingChainNext(at)],
    );
  });

  it.each([
    { below: "base", overlay: "mid" },
    { below: "mid", overlay: "top" },
    { below: "f1", overlay: "top" },
    { below: "top", overlay: undefined },
    { below: "top-file", overlay: undefined },
  ])("the overlay of $below is $overlay", ({ below, overlay }) => {
    expect(findOverlay(node("f2"), node(below))?.name).toBe(overlay);
  });

  it("contain what is in them, not what hangs beside", () => {
    const contained = r.graph.nodes().filter((at) => chainContains(node("f2"), at));
    expect(contained.map(({ name }) => name)).toEqual(["base", "mid", "f1", "top", "f2"]);
    expect(subtree(node("f1")).size).toBe(4);
    expect(chainEdges(node("f2"), node("mid")).map(({ nodeName }) => nodeName)).toEqual([
      "top",
      "f1",
      "mid",
    ]);
    expect(chainEdges(node("f1")).map(({ nodeName }) => nodeName)).toEqual(["mid", "base"]);
  });

  it("stop at filters that the user named when only implicit ones are skipped", () => {
    node("f2").isImplicit = true;
    expect(skipImplicitFilters(node("f2")).name).toBe("top");
    expect(skipImplicitFilters(node("f1")).name).toBe("f1");
  });
});

describe("freezing a chain", () => {
  it("holds every link down to the base, until it is released", () => {
    const frozen = (): string[] =>
      r.graph
        .nodes()
        .flatMap((at) => [...at.children.values()])
        .filter(({ isFrozen }) => isFrozen)
        .map(({ nodeName }) => nodeName);
    const hold = r.graph.freezeChain(node("f2"), node("mid"));
    expect(frozen()).toEqual(["mid", "f1", "top"]);
    const below = r.graph.freezeChain(node("mid"));
    expect(frozen()).toHaveLength(4);
    hold.release();
    hold[Symbol.dispose]();
    expect(frozen()).toEqual(["base"]);
    const again = r.graph.freezeChain(node("f2"), node("mid"));
    hold.release();
    expect(frozen()).toHaveLength(4);
    again.release();
    below.release();
    expect(frozen()).toEqual([]);
  });

  it("is refused where a link is frozen already or leads to what has to move, and freezes nothing then", () => {
    const hold = r.graph.freezeChain(node("f1"), node("mid"));
    expect(() => r.graph.freezeChain(node("f2"))).toThrow("Cannot freeze 'file' link to 'mid'");
    expect(node("f2").children.get("file")?.isFrozen).toBe(false);
    hold.release();
    node("mid").neverFreeze = true;
    const error = (() => {
      try {
        return r.graph.freezeChain(node("f2"));
      } catch (reason) {
        return reason;
      }
    })();
    expect(error).toMatchObject({
      code: "EPERM",
      message: "Cannot freeze 'file' link to 'mid'",
      hint: "the node moves by itself",
      context: { node: "f1", child: "file" },
    });
  });
});

describe("op blockers", () => {
  it("name the reason that was added last", () => {
    const at = node("base");
    const first = at.blockAllOperations("first", ["stream"]);
    const second = at.blockOperation("resize", "second");
    expect(() => at.checkOperation("resize")).toThrow("Node 'base' is busy: second");
    expect(() => at.checkOperation("eject")).toThrow("Node 'base' is busy: first");
    expect(at.operations.reasonAgainst("stream")).toBeUndefined();
    second[Symbol.dispose]();
    second[Symbol.dispose]();
    expect(() => at.checkOperation("resize")).toThrow("first");
    first.allow("resize");
    expect(first.reason).toBe("first");
    first.release();
    expect(at.operations.size).toBe(1);
  });
});
