import { checkGraph, type GraphStep } from "@blocklayer/block-graph";
import { type PermissionSet, Permissions } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, gate, type Rig, rig, settle, WRITE } from "./graph-rig.ts";

const { resize } = Permissions;
const root = (perm = 0, shared = ALL): { name: string } & PermissionSet => ({
  name: "root",
  perm,
  shared,
});

/** Runs a change that has to fail, and checks that it left nothing. */
async function refused({ graph }: Rig, steps: readonly GraphStep[]): Promise<unknown> {
  const before = checkGraph(graph);
  const error: unknown = await graph.change(steps).then(
    () => new Error("the change succeeded"),
    (reason: unknown) => reason,
  );
  expect(checkGraph(graph)).toBe(before);
  return error;
}

describe("a change", () => {
  it("commits everything in one turn, with the other packages' steps, and cleans up after the drain", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const edge = await r.graph.attachRoot(new FakeParent("p"), a, root());
    const seen: string[] = [];
    const other = {
      prepare: () => void seen.push(`prepare ${edge.nodeName} ${a.quiesceCount}`),
      commit: () => void seen.push(`commit ${edge.nodeName} ${a.quiesceCount}`),
      clean: () => void seen.push(`clean ${edge.nodeName} ${a.quiesceCount}`),
      abort: () => void seen.push("abort"),
    };
    await r.graph.change([other, r.graph.replaceNode(a, b)]);
    expect(seen).toEqual(["prepare a 1", "commit b 1", "clean b 0"]);
  });

  it("undoes in reverse when a step fails, also a custom one's apply", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const seen: string[] = [];
    const named = (name: string, more: Partial<GraphStep> = {}): GraphStep => ({
      touches: [a],
      prepare: () => void seen.push(`prepare ${name}`),
      apply: () => {
        seen.push(`apply ${name}`);
        return () => void seen.push(`undo ${name}`);
      },
      abort: () => void seen.push(`abort ${name}`),
      clean: () => void seen.push(`clean ${name}`),
      ...more,
    });
    const failing = named("3", {
      apply: () => {
        throw new Error("no");
      },
    });
    const error = await refused(r, [named("1"), r.graph.replaceNode(a, b), named("2"), failing]);
    expect(String(error)).toBe("Error: no");
    expect(seen.join(", ")).toBe(
      "prepare 1, prepare 2, prepare 3, apply 1, apply 2, undo 2, undo 1, abort 3, abort 2, abort 1, clean 3, clean 2, clean 1",
    );
  });

  it("reports what could not be undone beside the error", async () => {
    const r = rig();
    const bad = {
      prepare: () => undefined,
      abort: () => {
        throw new Error("stuck");
      },
      clean: () => Promise.reject(new Error("dirty")),
    };
    const failing = { prepare: () => Promise.reject(new Error("no")) };
    await expect(r.graph.change([bad, failing])).rejects.toMatchObject({
      code: "EIO",
      message: "change failed: no",
      context: { undoErrors: [{ message: "stuck" }, { message: "dirty" }] },
    });
  });

  it("says so when everything was committed and something could not be finished", async () => {
    const r = rig();
    const bad = {
      prepare: () => undefined,
      commit: () => {
        throw new Error("half");
      },
    };
    await expect(r.graph.change([bad])).rejects.toThrow("committed, but could not be finished");
    r.script.fail.set("t close", "EIO");
    const filter = await r.open({
      driver: "filter",
      "node-name": "f",
      target: { driver: "disk", "node-name": "t" },
    });
    const edge = filter.children.get("target");
    if (edge === undefined) throw new Error("the filter has a target");
    await expect(r.graph.change([r.graph.detachChild(edge)])).rejects.toBeInstanceOf(
      AggregateError,
    );
    expect(r.graph.findNode("t")).toBeUndefined();
  });

  it("waits for the change before it, and opening does not wait for either", async () => {
    const r = rig();
    const a = await r.disk("a");
    const held = gate();
    const slow = { touches: [a], prepare: () => held.promise };
    const order: string[] = [];
    const first = r.graph.change([slow]).then(() => order.push("first"));
    const second = r.graph
      .change([{ prepare: () => void order.push("second prepares") }])
      .then(() => order.push("second"));
    await r.open({ driver: "filter", "node-name": "f", file: "a" });
    order.push("opened");
    held.open();
    await Promise.all([first, second]);
    expect(order).toEqual(["opened", "first", "second prepares", "second"]);
  });

  it("prepares drivers for new permissions, on the graph as it is then", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const parent = new FakeParent("p");
    const edge = await r.graph.attachRoot(parent, a, root(WRITE));
    r.script.log.length = 0;
    parent.events = [];
    const held = gate();
    r.script.wait.set("b preparePermissions 3/15", held.promise);
    const changing = r.graph.change([r.graph.replaceNode(a, b)]);
    await settle();
    expect([edge.nodeName, b.parents.size]).toEqual(["a", 0]);
    expect(parent.events).toEqual(["begin"]);
    held.open();
    await changing;
    expect(parent.events).toEqual(["begin", "node b", "end"]);
    expect(r.script.log.filter((line) => line.includes("ermissions"))).toEqual([
      "b preparePermissions 3/15",
      "a preparePermissions 0/15",
      "b setPermissions 3/15",
      "a setPermissions 0/15",
    ]);
  });

  it("prepares again when the graph has become another one meanwhile", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    await r.graph.attachRoot(new FakeParent("p"), a, root(WRITE));
    const leaving = await r.graph.attachRoot(new FakeParent("q"), a, root(resize));
    r.script.log.length = 0;
    const held = gate();
    r.script.wait.set("b preparePermissions 11/15", held.promise);
    const changing = r.graph.change([r.graph.replaceNode(a, b)]);
    await settle();
    leaving.perm = 0;
    held.open();
    await changing;
    expect(r.script.log.filter((line) => line.startsWith("b ") && line.includes("ermis"))).toEqual([
      "b preparePermissions 11/15",
      "b abortPermissions",
      "b preparePermissions 3/15",
      "b setPermissions 3/15",
    ]);
    checkGraph(r.graph);
  });

  it("leaves everything as it was when a driver cannot get ready", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const [c, d] = [await r.disk("c"), await r.disk("d")];
    await r.graph.attachRoot(new FakeParent("p"), a, root(WRITE));
    await r.graph.attachRoot(new FakeParent("q"), c, root(WRITE));
    r.script.fail.set("b preparePermissions 3/15", "EACCES");
    const error = await refused(r, [r.graph.replaceNode(a, b), r.graph.replaceNode(c, d)]);
    expect(error).toMatchObject({ code: "EACCES" });
    expect(r.script.log).toContain("d abortPermissions");
    expect(r.script.log).not.toContain("b abortPermissions");
  });

  it("is not kept from happening by a driver that cannot give something up", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const edge = await r.graph.attachRoot(new FakeParent("p"), a, root(WRITE));
    r.script.fail.set("a preparePermissions 0/15", "EACCES");
    r.script.log.length = 0;
    await r.graph.change([r.graph.replaceNode(a, b)]);
    expect([edge.node, a.granted?.perm, b.granted?.perm]).toEqual([b, WRITE, WRITE]);
    expect(r.script.log).toContain("b setPermissions 3/15");
    expect(r.script.log).not.toContain("a setPermissions 0/15");
    expect(r.lines.at(-1)).toContain("node 'a' does not give up permissions");
    checkGraph(r.graph);
  });

  it("is not kept from happening by a driver that cannot let others in again", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const edge = await r.graph.attachRoot(new FakeParent("p"), a, root(WRITE, WRITE));
    r.script.fail.set("a preparePermissions 0/15", "EACCES");
    await r.graph.change([r.graph.replaceNode(a, b)]);
    expect([edge.node, a.granted, b.granted]).toEqual([
      b,
      { perm: WRITE, shared: WRITE },
      { perm: WRITE, shared: WRITE },
    ]);
    expect(r.lines.at(-1)).toContain("node 'a' does not give up permissions");
    checkGraph(r.graph);
  });

  it("does not happen when a driver cannot keep others off", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    await r.graph.attachRoot(new FakeParent("p"), a, root(WRITE));
    await r.graph.attachRoot(new FakeParent("q"), b, root(0, WRITE));
    r.script.fail.set("a preparePermissions 3/3", "EACCES");
    expect(await refused(r, [r.graph.replaceNode(b, a)])).toMatchObject({ code: "EACCES" });
    expect(a.granted).toEqual({ perm: WRITE, shared: ALL });
  });

  it("closes, after a failure too, what somebody let go of meanwhile", async () => {
    const r = rig();
    const filter = await r.open({
      driver: "filter",
      "node-name": "f",
      target: { driver: "disk", "node-name": "t" },
    });
    const target = r.graph.node("t");
    const edge = await r.graph.attachRoot(new FakeParent("p"), target, root());
    const targetEdge = filter.children.get("target");
    if (targetEdge === undefined) throw new Error("the filter has a target");
    await r.graph.change([r.graph.detachChild(targetEdge)]);
    const failing: GraphStep = {
      touches: [target],
      prepare: async () => {
        await r.graph.detachRoot(edge);
        expect(target.state).toBe("open");
        throw new Error("no");
      },
    };
    await expect(r.graph.change([failing])).rejects.toThrow("no");
    expect([target.state, r.script.log.at(-1)]).toEqual(["closed", "t close"]);
    // The mutex is free again.
    await r.graph.change([]);
  });

  it("tells parents of the other length of the node they get", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b", { size: 4096 })];
    const top = await r.open({ driver: "plain", "node-name": "top", file: "a" });
    const parents = [new FakeParent("p"), new FakeParent("q")];
    await r.graph.attachRoot(parents[0] as FakeParent, a, root());
    await r.graph.attachRoot(parents[1] as FakeParent, top, root());
    await r.graph.change([r.graph.replaceNode(a, b)]);
    expect(top.size).toBe(4096);
    for (const { events } of parents) expect(events).toContain("resized 4096");
  });

  it("keeps chains within a depth", async () => {
    const r = rig();
    await r.disk("n0");
    for (let index = 1; index < 256; index += 1) {
      await r.open({ driver: "filter", "node-name": `n${index}`, file: `n${index - 1}` });
    }
    const over = { driver: "filter", "node-name": "over", file: "n255" };
    await expect(r.open(over)).rejects.toMatchObject({
      code: "ELOOP",
      message: "Node 'n255' would be in a chain of 257 nodes, more than 256",
    });
    (await r.graph.node("n0").drain()).end();
    expect(r.graph.node("n255").quiesceCount).toBe(0);
  });
});
