import { checkGraph } from "@blocklayer/block-graph";
import { manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, gate, type Rig, rig, settle } from "./graph-rig.ts";

type Kind = "drain" | "subtree" | "all";
type Hold = { end(): void };

async function begin({ graph }: Rig, kind: Kind, name: string): Promise<Hold> {
  if (kind === "all") return graph.drainAll();
  const node = graph.node(name);
  return kind === "drain" ? node.drain() : node.drainSubtree();
}

function counts({ graph }: Rig, ...names: string[]): number[] {
  checkGraph(graph);
  return names.map((name) => graph.node(name).quiesceCount);
}

async function chain(): Promise<Rig> {
  const r = rig();
  await r.disk("backing");
  await r.open({ driver: "overlay", "node-name": "node", size: 1 << 20, backing: "backing" });
  return r;
}

async function shared(): Promise<Rig> {
  const r = rig();
  await r.disk("backing");
  await r.open({ driver: "overlay", "node-name": "A", size: 1 << 20, backing: "backing" });
  await r.open({ driver: "overlay", "node-name": "B", size: 1 << 20, backing: "backing" });
  return r;
}

describe("the counters of drained sections", () => {
  it.each([
    { kind: "drain", expected: [1, 0] },
    { kind: "subtree", expected: [1, 1] },
    { kind: "all", expected: [1, 1] },
  ] as const)("$kind counts node and backing $expected", async ({ kind, expected }) => {
    const r = await chain();
    const hold = await begin(r, kind, "node");
    expect(counts(r, "node", "backing")).toEqual(expected);
    hold.end();
    hold.end();
    expect(counts(r, "node", "backing")).toEqual([0, 0]);
  });

  const kinds: readonly Kind[] = ["drain", "subtree", "all"];
  const pairs = kinds.flatMap((outer) => kinds.map((inner) => ({ outer, inner })));
  it.each(pairs)("$outer around $inner counts the node twice", async ({ outer, inner }) => {
    const r = await chain();
    const outerHold = await begin(r, outer, "node");
    const innerHold = await begin(r, inner, "node");
    const below = [outer, inner].filter((kind) => kind !== "drain").length;
    expect(counts(r, "node", "backing")).toEqual([2, below]);
    innerHold.end();
    expect(counts(r, "node")).toEqual([1]);
    outerHold.end();
    expect(counts(r, "node", "backing")).toEqual([0, 0]);
  });

  it("drains both parents of a shared backing node once for each subtree", async () => {
    const r = await shared();
    const first = await begin(r, "subtree", "A");
    expect(counts(r, "A", "B", "backing")).toEqual([1, 1, 1]);
    const second = await begin(r, "subtree", "B");
    expect(counts(r, "A", "B", "backing")).toEqual([2, 2, 2]);
    first.end();
    expect(counts(r, "A", "B", "backing")).toEqual([1, 1, 1]);
    second.end();
    expect(counts(r, "A", "B", "backing")).toEqual([0, 0, 0]);
  });

  it("carries subtree sections to a child that is attached, and takes them back", async () => {
    const r = rig();
    const backing = await r.disk("backing");
    await r.open({ driver: "overlay", "node-name": "A", size: 1 << 20, backing: "backing" });
    const b = await r.open({ driver: "overlay", "node-name": "B", size: 1 << 20, backing: null });
    const holds: Hold[] = [];
    for (const name of ["A", "A", "A", "B", "B"]) holds.push(await begin(r, "subtree", name));
    expect(counts(r, "A", "B", "backing")).toEqual([3, 2, 3]);
    await r.graph.change([r.graph.setBacking(b, backing)]);
    expect(counts(r, "A", "B", "backing")).toEqual([5, 5, 5]);
    await r.graph.change([r.graph.setBacking(b, undefined)]);
    expect(counts(r, "A", "B", "backing")).toEqual([3, 2, 3]);
    await r.graph.change([r.graph.setBacking(b, backing)]);
    expect(counts(r, "A", "B", "backing")).toEqual([5, 5, 5]);
    for (const hold of holds) hold.end();
    expect(counts(r, "A", "B", "backing")).toEqual([0, 0, 0]);
  });

  it("counts each way through a diamond, and ends them all", async () => {
    const r = await shared();
    await r.open({ driver: "filter", "node-name": "top", file: "A", target: "B" });
    const hold = await begin(r, "subtree", "top");
    expect(counts(r, "A", "B", "backing")).toEqual([2, 2, 2]);
    hold.end();
    expect(counts(r, "top", "A", "B", "backing")).toEqual([0, 0, 0, 0]);
  });

  it("starts nodes inside a section of the whole graph with its count, and forgets those removed", async () => {
    const r = await chain();
    const hold = await r.graph.drainAll();
    await r.disk("new");
    expect(counts(r, "new")).toEqual([1]);
    const parent = new FakeParent("e");
    const options = { name: "root", perm: 1, shared: ALL };
    await r.graph.attachRoot(parent, r.graph.node("new"), options);
    expect(parent.drained).toBe(1);
    await r.graph.remove("node");
    await r.graph.remove("backing");
    hold.end();
    expect(counts(r, "new")).toEqual([0]);
    expect(parent.drained).toBe(0);
    expect(r.script.log.filter((line) => line === "new drainEnd")).toHaveLength(1);
  });

  it("drains an overlay that is put on top of a drained base", async () => {
    const r = rig();
    const base = await r.disk("base");
    const overlay = await r.open({ driver: "overlay", "node-name": "o", size: 1 << 20 });
    const hold = await base.drain();
    await r.graph.change([r.graph.append(overlay, base)]);
    expect(counts(r, "base", "o")).toEqual([1, 1]);
    expect([base.io.inFlight, overlay.io.inFlight]).toEqual([0, 0]);
    hold.end();
    expect(counts(r, "base", "o")).toEqual([0, 0]);
  });
});

describe("draining", () => {
  it("waits for the request in flight and for the driver to become quiet", async () => {
    const r = await chain();
    const held = gate();
    const entering = gate();
    r.script.wait.set("backing pread", held.promise);
    r.script.wait.set("backing drainBegin", entering.promise);
    const backend = await r.graph.createBackend({ node: "node", perm: ["consistent-read"] });
    const read = backend.read(0, new Uint8Array(8));
    let isDrained = false;
    const draining = r.graph
      .node("backing")
      .drain()
      .then((begun) => {
        isDrained = true;
        return begun;
      });
    await settle();
    expect(isDrained).toBe(false);
    held.open();
    await read;
    await settle();
    expect(isDrained).toBe(false);
    entering.open();
    const hold = await draining;
    expect([r.graph.node("node").io.inFlight, backend.isDrained]).toEqual([0, true]);
    hold.end();
    expect(r.script.log.filter((line) => line.includes("drain"))).toEqual([
      "node drainBegin",
      "backing drainBegin",
      "backing drainEnd",
      "node drainEnd",
    ]);
  });

  it("tells a driver once however often sections nest, and again for the next one", async () => {
    const r = rig();
    const node = await r.disk("disk");
    const holds = [await node.drain(), await node.drain()];
    for (const hold of holds) hold.end();
    (await node.drain()).end();
    const told = r.script.log.filter((line) => line.includes("drain"));
    expect(told).toEqual(
      ["begin", "end", "begin", "end"].map(
        (what) => `disk drain${what === "begin" ? "Begin" : "End"}`,
      ),
    );
  });

  it("ends the driver's drain when it became quiet too late", async () => {
    const r = rig();
    const node = await r.disk("disk");
    const entering = gate();
    r.script.wait.set("disk drainBegin", entering.promise);
    const hold = node.beginDrain();
    hold.end();
    expect(r.script.log).not.toContain("disk drainEnd");
    entering.open();
    await settle();
    expect(r.script.log.at(-1)).toBe("disk drainEnd");
    expect(node.isDriverQuiet).toBe(false);
  });

  it("logs a driver that fails to become quiet and goes on", async () => {
    const r = rig();
    const node = await r.disk("disk");
    r.script.fail.set("disk drainBegin", "EIO");
    (await node.drain()).end();
    expect(r.lines[0]).toContain("the driver did not become quiet");
  });

  it("polls parents, also those of parents, until they are quiet", async () => {
    const r = await chain();
    const job = new FakeParent("j", "job");
    await r.graph.attachRoot(job, r.graph.node("node"), {
      name: "main node",
      perm: 0,
      shared: ALL,
    });
    job.busy = gate();
    let isDrained = false;
    const draining = r.graph.node("backing").drain();
    void draining.then(() => {
      isDrained = true;
    });
    await settle();
    expect([isDrained, job.drained]).toEqual([false, 1]);
    const { open } = job.busy;
    job.busy = undefined;
    open();
    (await draining).end();
    expect(job.drained).toBe(0);
  });

  it("pauses a job once for each of its nodes", async () => {
    const r = await chain();
    const job = new FakeParent("j", "job");
    await r.disk("target");
    const options = { name: "main node", perm: 0, shared: ALL };
    await r.graph.attachRoot(job, r.graph.node("node"), options);
    await r.graph.attachRoot(job, r.graph.node("target"), options);
    for (const [kind, name, count] of [
      ["drain", "node", 1],
      ["drain", "backing", 1],
      ["subtree", "node", 1],
      ["drain", "target", 1],
      ["all", "", 2],
    ] as const) {
      const hold = await begin(r, kind, name);
      expect(job.drained).toBe(count);
      hold.end();
      expect(job.drained).toBe(0);
    }
  });

  it("bears a parent whose end of drain detaches the edges that are being told", async () => {
    const r = await shared();
    const job = new FakeParent("j", "job");
    const edges = await Promise.all(
      ["A", "B", "backing"].map((name) =>
        r.graph.attachRoot(job, r.graph.node(name), { name, perm: 0, shared: ALL }),
      ),
    );
    let finishing: Promise<unknown> = Promise.resolve();
    job.onDrainedEnd = () => {
      job.onDrainedEnd = () => undefined;
      finishing = Promise.all([
        ...edges.map((edge) => r.graph.detachRoot(edge)),
        r.graph.change([
          r.graph.setBacking(r.graph.node("A"), undefined),
          r.graph.setBacking(r.graph.node("B"), undefined),
        ]),
      ]);
    };
    (await r.graph.node("backing").drainSubtree()).end();
    await finishing;
    expect(counts(r, "A", "B", "backing")).toEqual([0, 0, 0]);
    expect(job.drained).toBe(0);
    expect(job.events.filter((event) => event === "begin")).toHaveLength(
      job.events.filter((event) => event === "end").length,
    );
  });

  it("bears a graph that changes while it waits: children of a drained subtree are exchanged", async () => {
    const r = rig();
    const [a, b, c] = [await r.disk("a"), await r.disk("b"), await r.disk("c")];
    const pb = await r.open({ driver: "filter", "node-name": "pb", file: "b", target: "a" });
    await r.open({ driver: "overlay", "node-name": "pa", size: 1 << 20, backing: "a" });
    const busy = gate();
    r.script.wait.set("b drainBegin", busy.promise);
    const draining = pb.drainSubtree();
    await settle();
    const edge = b.parents.values().next().value;
    if (edge === undefined) throw new Error("b has a parent");
    const changing = r.graph.change([r.graph.replaceChild(edge, c)]);
    busy.open();
    await changing;
    const hold = await draining;
    expect(counts(r, "c", "b", "a")).toEqual([1, 0, 1]);
    hold.end();
    expect([a, b, c, pb].map((node) => node.quiesceCount)).toEqual([0, 0, 0, 0]);
  });

  it("reports what is in flight when nothing moves", async () => {
    const env = manualEnv();
    const r = rig(() => [], env);
    const node = await r.disk("disk");
    const held = gate();
    r.script.wait.set("disk pread", held.promise);
    const backend = await r.graph.createBackend({ node, perm: ["consistent-read"] });
    const read = backend.read(512, new Uint8Array(256));
    const stuck: unknown[] = [];
    r.graph.events.on("drainStuck", (report) => stuck.push(report));
    const draining = node.drain();
    await env.clock.advance(30_000);
    expect(stuck).toMatchObject([
      { afterMs: 30_000, requests: [{ node: "disk", kind: "read", offset: 512, length: 256 }] },
    ]);
    expect(r.lines.at(-1)).toContain("read of 256 bytes at 512 of 'disk'");
    held.open();
    await read;
    (await draining).end();
    expect(env.clock.sleeping).toBe(0);
  });
});

describe("a graph that changes while a drain waits", () => {
  it("may lose the node that is drained", async () => {
    const r = rig();
    const node = await r.disk("d");
    const parent = new FakeParent("p");
    const edge = await r.graph.attachRoot(parent, node, { name: "root", perm: 1, shared: ALL });
    const held = gate();
    r.script.wait.set("d pread", held.promise);
    const gone = edge.pread(0, new Uint8Array(1)).then(async () => {
      await r.graph.detachRoot(edge);
      await r.graph.remove("d");
    });
    const draining = node.drain();
    await settle();
    held.open();
    (await draining).end();
    await gone;
    expect([node.state, parent.drained, node.quiesceCount]).toEqual(["closed", 0, 0]);
  });

  it("may lose a parent by the drain of one of its children", async () => {
    const r = await shared();
    const a = r.graph.node("A");
    const busy = gate();
    r.script.wait.set("backing drainBegin", busy.promise);
    const outer = a.drainSubtree();
    const inner = r.graph.node("backing").drain();
    const removing = r.graph.remove("A");
    await settle();
    busy.open();
    await removing;
    (await outer).end();
    (await inner).end();
    expect(counts(r, "B", "backing")).toEqual([0, 0]);
    expect([a.state, a.quiesceCount]).toEqual(["closed", 0]);
  });

  it("ends the section when a parent's poll fails", async () => {
    const r = await chain();
    const parent = Object.assign(new FakeParent("p"), {
      drainedPoll: (): Promise<void> => Promise.reject(new Error("a bad parent")),
    });
    const node = r.graph.node("node");
    await r.graph.attachRoot(parent, node, { name: "root", perm: 0, shared: ALL });
    await expect(node.drain()).rejects.toThrow("a bad parent");
    await expect(node.drainSubtree()).rejects.toThrow("a bad parent");
    await expect(r.graph.drainAll()).rejects.toThrow("a bad parent");
    expect([parent.drained, ...counts(r, "node", "backing")]).toEqual([0, 0, 0]);
  });
});
