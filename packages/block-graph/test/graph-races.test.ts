import { checkGraph, type EdgeParent } from "@blocklayer/block-graph";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, gate, type Rig, rig, settle, WRITE } from "./graph-rig.ts";

const READ = 1;
const root = (perm: number, shared = ALL): { name: string; perm: number; shared: number } => ({
  name: "root",
  perm,
  shared,
});

describe("two at a time", () => {
  it("a change of permissions that fails keeps what another one set while it waited", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    await r.graph.attachRoot(new FakeParent("a"), disk, root(READ, READ | 8));
    const edge = await r.graph.attachRoot(new FakeParent("b"), disk, root(READ));
    const first = r.graph.setPermissions(edge, root(READ | 8));
    const second = r.graph.setPermissions(edge, root(WRITE | 8));
    await first;
    await expect(second).rejects.toMatchObject({ code: "EPERM" });
    expect(edge.perm).toBe(READ | 8);
    checkGraph(r.graph);
  });

  it("a change of permissions that only loosens is judged by what is there when its turn comes", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    const edge = await r.graph.attachRoot(new FakeParent("b"), disk, root(READ));
    r.script.fail.set("disk preparePermissions 1/15", "EIO");
    const first = r.graph.setPermissions(edge, root(WRITE));
    const second = r.graph.setPermissions(edge, root(READ));
    await first;
    await second;
    expect(edge.perm).toBe(WRITE);
    checkGraph(r.graph);
  });

  it("reopens see what the one before them left", async () => {
    const r = rig();
    await r.disk("a");
    await r.disk("b");
    const node = await r.open({ driver: "plain", "node-name": "p", file: "a", tag: "one" });
    const options = { driver: "plain", "node-name": "p", file: "a" };
    await Promise.all([
      r.graph.reopen([{ ...options, tag: "two", discard: "unmap" }] as never),
      r.graph.setReadOnly(node, true),
    ]);
    expect([node.options.discard, node.readOnly]).toEqual(["unmap", true]);
    expect(node.spec.driverOptions).toMatchObject({ tag: "two" });
    await Promise.all([
      r.graph.reopen([{ ...options, file: "b" }] as never),
      r.graph.reopen([options] as never),
    ]);
    expect(node.children.get("file")?.nodeName).toBe("a");
    checkGraph(r.graph);
  });

  it("a reopen of a node that is removed before its turn comes is refused", async () => {
    const r = rig();
    const node = await r.disk("a");
    const removed = r.graph.remove("a");
    const reopened = r.graph.setReadOnly(node, true);
    await removed;
    await expect(reopened).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("handing the nodes over while others come and go", () => {
  /** The node opened last writes back first, and waits for `pass`. */
  async function waitingDisk(r: Rig): Promise<() => void> {
    await r.disk("a");
    const { promise, open } = gate();
    r.script.wait.set("a inactivate", promise);
    return open;
  }

  it("takes the permissions of a backend that came meanwhile too, and gives them back", async () => {
    const r = rig();
    const pass = await waitingDisk(r);
    const handing = r.graph.inactivate();
    await settle();
    const backend = await r.graph.createBackend({ node: "a", perm: ["write"] });
    pass();
    await handing;
    expect(backend.edge?.perm).toBe(0);
    checkGraph(r.graph);
    await r.graph.activate();
    expect(backend.edge?.perm).toBe(2);
    checkGraph(r.graph);
  });

  it("tells nothing to the driver of a node that is closed meanwhile", async () => {
    const r = rig();
    await r.open({ driver: "plain", "node-name": "p", file: { driver: "disk", "node-name": "f" } });
    const backend = await r.graph.createBackend({ node: "f", perm: [] });
    await r.graph.remove("p");
    const pass = await waitingDisk(r);
    const handing = r.graph.inactivate();
    await settle();
    await backend.close();
    expect(r.graph.findNode("f")).toBeUndefined();
    pass();
    await handing;
    expect(r.script.log).not.toContain("f inactivate");
    expect(r.graph.node("a").active).toBe(false);
  });

  /** A node `f` that only a backend holds, and `a`, which becomes active before it and inactive after it. */
  async function leavingNode(r: Rig): Promise<{ close(): Promise<void> }> {
    await r.disk("a");
    await r.open({ driver: "plain", "node-name": "p", file: { driver: "disk", "node-name": "f" } });
    const backend = await r.graph.createBackend({ node: "f", perm: [] });
    await r.graph.remove("p");
    return backend;
  }

  it("takes nothing back from the driver of a node that is closed meanwhile", async () => {
    const r = rig();
    const backend = await leavingNode(r);
    const { promise, open: fail } = gate();
    const failed = promise.then(() => Promise.reject(new Error("a cannot")));
    r.script.wait.set("a inactivate", failed);
    const handing = r.graph.inactivate();
    await settle();
    expect(r.script.log).toContain("f inactivate");
    await backend.close();
    fail();
    await expect(handing).rejects.toThrow("a cannot");
    expect(r.script.log).not.toContain("f activate");
    expect(r.graph.node("a").active).toBe(true);
    checkGraph(r.graph);
  });

  it("activates no driver of a node that is closed meanwhile", async () => {
    const r = rig();
    const backend = await leavingNode(r);
    await r.graph.inactivate();
    const { promise, open: pass } = gate();
    r.script.wait.set("a activate", promise);
    const taking = r.graph.activate();
    await settle();
    await backend.close();
    pass();
    await taking;
    expect(r.script.log).not.toContain("f activate");
    checkGraph(r.graph);
  });

  it("tells a parent once, however often drivers have to get ready", async () => {
    const r = rig();
    const disk = await r.disk("a");
    const told: string[] = [];
    const parent: EdgeParent = Object.assign(new FakeParent("willing"), {
      inactivate: () => void told.push("inactivate"),
      activate: () => void told.push("activate"),
    });
    await r.graph.attachRoot(parent, disk, root(WRITE));
    await r.graph.inactivate();
    expect(told).toEqual(["inactivate"]);
    await r.graph.activate();
    expect(told).toEqual(["inactivate", "activate"]);
  });

  it("is refused by a parent that throws, and everybody is active again", async () => {
    const r = rig();
    const disk = await r.disk("a");
    const told: string[] = [];
    const willing: EdgeParent = Object.assign(new FakeParent("willing"), {
      inactivate: () => void told.push("inactivate"),
      activate: () => void told.push("activate"),
    });
    const unwilling: EdgeParent = Object.assign(new FakeParent("unwilling"), {
      inactivate: () => {
        throw new Error("not now");
      },
    });
    await r.graph.attachRoot(willing, disk, root(WRITE));
    await r.graph.attachRoot(unwilling, disk, root(READ));
    const before = checkGraph(r.graph);
    await expect(r.graph.inactivate()).rejects.toThrow("not now");
    expect(checkGraph(r.graph)).toBe(before);
    expect(told).toEqual(["inactivate", "activate"]);
  });
});

describe("a listener of a backend that throws", () => {
  it("breaks neither drained sections nor changes nor writes", async () => {
    const r = rig();
    const a = await r.disk("a", { size: 4096 });
    const b = await r.disk("b", { size: 8192 });
    const backend = await r.graph.createBackend({
      node: "a",
      perm: ["write", "resize"],
      allowBeyondEnd: true,
    });
    for (const name of ["resized", "drained", "undrained", "nodeChanged"] as const) {
      backend.events.on(name, () => {
        throw new Error(`${name} listener`);
      });
    }
    await r.graph.change([r.graph.replaceNode(a, b)]);
    checkGraph(r.graph);
    expect([backend.isDrained, backend.node?.name]).toEqual([false, "b"]);
    const told: string[] = [];
    b.addObserver({ afterWrite: ({ offset, length }) => void told.push(`${offset}+${length}`) });
    await backend.write(8192, new Uint8Array(512));
    expect([told, b.size]).toEqual([["8192+512"], 8704]);
    const drained = await b.drain();
    drained.end();
    expect(r.lines.filter((line) => line.includes("listener"))).not.toEqual([]);
    checkGraph(r.graph);
  });
});

describe("an edge that was detached", () => {
  it("asks its former node nothing", async () => {
    const r = rig();
    const disk = await r.disk("a");
    const edge = await r.graph.attachRoot(new FakeParent("x"), disk, root(READ));
    await r.graph.detachRoot(edge);
    await r.graph.remove("a");
    const error = { code: "ENOMEDIUM" };
    await expect(edge.blockStatus(0, 512)).rejects.toMatchObject(error);
    await expect(edge.chainStatus(0, 512)).rejects.toMatchObject(error);
    await expect(edge.getInfo()).rejects.toMatchObject(error);
    await expect(edge.check()).rejects.toMatchObject(error);
    await expect(edge.allocatedSize()).rejects.toMatchObject(error);
    await expect(edge.freeSpace()).rejects.toMatchObject(error);
  });
});

it("gives a device name back even if closing the node fails", async () => {
  const r = rig();
  await r.open({ driver: "plain", "node-name": "p", file: { driver: "disk", "node-name": "f" } });
  const backend = await r.graph.createBackend({ node: "f", perm: [], name: "sda" });
  await r.graph.remove("p");
  r.script.fail.set("f close", "EIO");
  await expect(backend.close()).rejects.toMatchObject({ code: "EIO" });
  await r.disk("b");
  const again = await r.graph.createBackend({ node: "b", perm: [], name: "sda" });
  await again.close();
});

it("goes on when a driver fails to take a permission that it had agreed to", async () => {
  const r = rig();
  const disk = await r.disk("a");
  r.script.fail.set("a setPermissions 1/15", "EIO");
  const edge = await r.graph.attachRoot(new FakeParent("x"), disk, root(READ));
  expect(edge.perm).toBe(READ);
  expect(r.lines.at(-1)).toContain("a setPermissions 1/15 failed as told");
  checkGraph(r.graph);
  await r.graph.detachRoot(edge);
  checkGraph(r.graph);
});
