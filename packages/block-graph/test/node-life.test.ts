import { checkGraph, type GraphExtension } from "@blocklayer/block-graph";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, gate, type Rig, rig, settle } from "./graph-rig.ts";

const closes = ({ script }: Rig): string[] =>
  script.log.filter((line) => line.endsWith(" close")).map((line) => line.slice(0, -6));

describe("removing a node", () => {
  it.each([
    { name: "zz", code: "ENOENT", message: "Failed to find node with node-name='zz'" },
    { name: "used", code: "EBUSY", message: "Node used is in use" },
    { name: "low", code: "EBUSY", message: "Block device low is in use" },
    { name: "claimed", code: "EBUSY", message: "Block device claimed is in use" },
    { name: "inner", code: "EBUSY", message: "Node inner is not owned by the monitor" },
    { name: "blocked", code: "EBUSY", message: "Node 'blocked' is busy: for a test" },
    {
      name: "base",
      code: "EBUSY",
      message: "Node 'base' is busy: node is used as backing hd of 'overlay'",
    },
  ])("is refused: $message", async ({ name, code, message }) => {
    const r = rig();
    for (const disk of ["used", "low", "claimed", "blocked", "base"]) await r.disk(disk);
    await r.open({ driver: "plain", file: "low" });
    await r.open({ driver: "plain", file: { driver: "disk", "node-name": "inner" } });
    await r.open({ driver: "overlay", "node-name": "overlay", backing: "base" });
    await r.graph.createBackend({ node: "used", perm: [] });
    r.graph.node("claimed").use("something");
    r.graph.node("blocked").blockOperation("drive-del", "for a test");
    await expect(r.graph.remove(name)).rejects.toMatchObject({ code, message });
    checkGraph(r.graph);
  });

  it("closes it, then the children that nobody else holds", async () => {
    const r = rig();
    await r.disk("shared");
    await r.open({
      driver: "filter",
      "node-name": "top",
      file: { driver: "plain", "node-name": "mid", file: { driver: "disk", "node-name": "low" } },
      target: "shared",
    });
    await r.graph.remove("top");
    expect(closes(r)).toEqual(["top", "mid", "low"]);
    expect(r.graph.nodes().map(({ name }) => name)).toEqual(["shared"]);
    await r.disk("top");
  });

  it("reports what closing reported, when the node is gone", async () => {
    const r = rig();
    await r.open({
      driver: "plain",
      "node-name": "top",
      file: { driver: "disk", "node-name": "d" },
    });
    r.script.fail.set("top close", "ENOSPC");
    await expect(r.graph.remove("top")).rejects.toMatchObject({ code: "ENOSPC" });
    expect(closes(r)).toEqual(["top", "d"]);
    await r.open({
      driver: "plain",
      "node-name": "top",
      file: { driver: "disk", "node-name": "d" },
    });
    r.script.fail.set("d close", "EIO");
    await expect(r.graph.remove("top")).rejects.toThrow("closing 'top'");
    expect(r.graph.nodes()).toEqual([]);
  });

  it("waits for the requests in flight and closes nobody twice", async () => {
    const r = rig();
    const disk = await r.disk("d");
    const edge = await r.graph.attachRoot(new FakeParent("p"), disk, {
      name: "root",
      perm: 1,
      shared: ALL,
    });
    const held = gate();
    r.script.wait.set("d pread", held.promise);
    const read = edge.pread(0, new Uint8Array(4));
    const detaching = r.graph.detachRoot(edge);
    await detaching;
    const removing = r.graph.remove("d");
    const again = r.graph.remove("d").catch((error: unknown) => error);
    await settle();
    expect([closes(r), disk.state, r.graph.findNode("d")]).toEqual([[], "closing", undefined]);
    expect(await again).toMatchObject({ code: "ENOENT" });
    held.open();
    await Promise.all([read, removing]);
    expect([closes(r), disk.state]).toEqual([["d"], "closed"]);
  });

  it("is put off by those who use the node by name, until the last lets go", async () => {
    const r = rig();
    const top = await r.open({
      driver: "plain",
      "node-name": "top",
      file: { driver: "disk", "node-name": "d" },
    });
    const use = r.graph.node("d").use("a test");
    expect(use.name).toBe("a test");
    await r.graph.remove("top");
    expect([top.state, r.graph.findNode("d")?.state]).toEqual(["closed", "open"]);
    checkGraph(r.graph);
    r.script.fail.set("d close", "EIO");
    await expect(use.release()).rejects.toMatchObject({ code: "EIO" });
    await use.release();
    expect(closes(r)).toEqual(["top", "d"]);
  });

  it("leaves a closed node out of drained sections that go on", async () => {
    const r = rig();
    const disk = await r.disk("d");
    const hold = await disk.drain();
    await r.graph.remove("d");
    hold.end();
    expect(r.script.log).not.toContain("d drainEnd");
  });
});

describe("closing the graph", () => {
  it("closes parents before children", async () => {
    const r = rig();
    await r.disk("d");
    await r.open({ driver: "plain", "node-name": "p", file: "d" });
    await r.open({ driver: "overlay", "node-name": "o", backing: "p" });
    await r.graph[Symbol.asyncDispose]();
    expect(closes(r)).toEqual(["o", "p", "d"]);
  });

  it.each([
    {
      what: "export 'e'",
      hold: (r: Rig) =>
        r.graph.attachRoot(new FakeParent("e"), r.graph.node("d"), {
          name: "x",
          perm: 0,
          shared: ALL,
        }),
    },
    { what: "a saving", hold: (r: Rig) => Promise.resolve(r.graph.node("d").use("a saving")) },
  ])("is refused while $what is there", async ({ what, hold }) => {
    const r = rig();
    await r.disk("d");
    await hold(r);
    await expect(r.graph.close()).rejects.toMatchObject({
      code: "EBUSY",
      message: `Node 'd' is in use by ${what}`,
    });
    expect(closes(r)).toEqual([]);
  });

  it("closes everything even if something fails", async () => {
    const r = rig();
    await r.disk("a");
    await r.disk("b");
    await r.disk("c");
    r.script.fail.set("a close", "EIO");
    await expect(r.graph.close()).rejects.toMatchObject({ code: "EIO" });
    await r.disk("a");
    await r.disk("b");
    r.script.fail.set("b close", "ENOSPC");
    await expect(r.graph.close()).rejects.toBeInstanceOf(AggregateError);
    expect(r.graph.nodes()).toEqual([]);
    await r.graph.close();
  });
});

describe("extensions", () => {
  it("see nodes after their driver opened and before it closes, drained", async () => {
    const r = rig();
    const seen: string[] = [];
    const extension: GraphExtension = {
      name: "watcher",
      nodeOpened: (node) => void seen.push(`opened ${node.name} ${node.state} ${node.size}`),
      nodeClosing: (node) => void seen.push(`closing ${node.name} ${node.isDrained}`),
    };
    const used = r.graph.use(extension);
    r.graph.events.on("nodeOpened", ({ name }) => seen.push(`event ${name}`));
    r.graph.events.on("nodeClosed", ({ name }) => seen.push(`event ${name} gone`));
    await r.disk("d", { size: 4096 });
    await r.graph.remove("d");
    used[Symbol.dispose]();
    await r.disk("e");
    expect(seen).toEqual([
      "opened d opening 4096",
      "event d",
      "closing d true",
      "event d gone",
      "event e",
    ]);
    expect(r.script.log.indexOf("d close")).toBeGreaterThan(0);
  });

  it("cannot keep a node from closing, but are heard", async () => {
    const r = rig();
    r.graph.use({ name: "x", nodeClosing: () => Promise.reject(new Error("not stored")) });
    const failed: unknown[] = [];
    r.graph.events.on("closeFailed", (report) => failed.push(report));
    await r.disk("d");
    await expect(r.graph.remove("d")).rejects.toThrow("not stored");
    expect(failed).toMatchObject([{ node: "d", error: { message: "not stored" } }]);
    expect(closes(r)).toEqual(["d"]);
  });
});

it("does not let a listener that throws break what it is told of", async () => {
  const r = rig();
  r.graph.events.on("nodeOpened", () => {
    throw new Error("a bad listener");
  });
  const node = await r.disk("d");
  expect(node.state).toBe("open");
  expect(r.lines).toEqual(["a listener of 'nodeOpened' failed: Error: a bad listener"]);
});
