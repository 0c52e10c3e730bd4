import { checkGraph, type GraphExtension } from "@blocklayer/block-graph";
import { beforeEach, describe, expect, it } from "vitest";
import { type Rig, rig } from "./graph-rig.ts";

let r: Rig;
let seen: string[];

/** Tells in `seen`, together with what the drivers do. */
function watcher(fails?: "inactivating" | "activated"): GraphExtension {
  const tell = (what: string): void => {
    seen.push(what);
    r.script.log.push(what);
    if (fails !== undefined && what.startsWith(fails)) throw new Error("it failed");
  };
  return {
    name: "watcher",
    nodeInactivating: (node) => tell(`inactivating ${node.name} ${node.isDrained}`),
    nodeActivated: (node, wasAway) => tell(`activated ${node.name} ${wasAway}`),
  };
}

/** What drivers and extensions did, without what does not matter here. */
const steps = (): string[] => r.script.log.filter((line) => line.includes("activat"));

beforeEach(async () => {
  r = rig();
  seen = [];
  await r.disk("a");
  await r.open({ driver: "plain", "node-name": "p", file: "a", tag: "one", mode: "x" });
});

describe("an extension", () => {
  it("is told before a driver gives its node up, and when it has it back", async () => {
    r.graph.use(watcher());
    await r.graph.inactivate();
    expect(steps()).toEqual(["inactivating p true", "inactivating a true", "a inactivate"]);
    r.script.log.length = 0;
    await r.graph.activate();
    expect(steps()).toEqual(["a activate", "activated a true", "activated p true"]);
  });

  it("that fails holds nothing up; it is logged", async () => {
    r.graph.use(watcher("inactivating"));
    await r.graph.inactivate();
    expect(r.graph.node("a").active).toBe(false);
    expect(r.lines).toEqual([
      "watcher of node 'p' at its inactivation: Error: it failed",
      "watcher of node 'a' at its inactivation: Error: it failed",
    ]);
  });

  it("is told when giving up is taken back", async () => {
    r.graph.use(watcher());
    const before = checkGraph(r.graph);
    r.script.fail.set("a inactivate", "EIO");
    await expect(r.graph.inactivate()).rejects.toMatchObject({ code: "EIO" });
    expect(checkGraph(r.graph)).toBe(before);
    expect(seen.slice(2)).toEqual(["activated a false", "activated p false"]);
  });

  it("that cannot take a node back fails the activation, and all of them are given up again", async () => {
    await r.graph.inactivate();
    const inactive = checkGraph(r.graph);
    const used = r.graph.use(watcher("activated"));
    r.script.log.length = 0;
    r.script.fail.set("a inactivate", "EIO");
    await expect(r.graph.activate()).rejects.toThrow("it failed");
    expect(checkGraph(r.graph)).toBe(inactive);
    expect(steps()).toEqual([
      "a activate",
      "activated a true",
      "inactivating a true",
      "a inactivate",
    ]);
    expect(r.lines).toEqual([expect.stringContaining("node 'a' could not be given up again")]);
    used[Symbol.dispose]();
    r.script.fail.clear();
    await r.graph.activate();
    expect(r.graph.node("a").active).toBe(true);
  });
});
