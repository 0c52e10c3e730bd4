import { type BlockNode, checkGraph, type GraphStep } from "@blocklayer/block-graph";
import type { NodeHost } from "@blocklayer/driver";
import { type PermissionSet, Permissions, Role } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, layer, type Rig, rig } from "./graph-rig.ts";

const { write } = Permissions;
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

/** Layers whose permissions do not follow from their parents'. */
function exclusiveWriters(): Rig {
  const exclusive = (): PermissionSet => ({ perm: write, shared: ALL & ~write });
  return rig((script) => [
    layer(script, {
      name: "exclusive",
      isFilter: true,
      children: [{ name: "file", role: Role.filtered | Role.primary, required: false }],
      permissions: exclusive,
    }),
    layer(script, {
      name: "exclusive-data",
      children: [{ name: "file", role: Role.data | Role.primary, required: false }],
      permissions: exclusive,
    }),
  ]);
}

describe("permissions of a changed graph", () => {
  it("update-perm-tree: an append that would make two writers is refused", async () => {
    const r = rig();
    const node = await r.disk("node");
    const filter = await r.open({ driver: "filter", "node-name": "filter", target: "node" });
    await r.graph.attachRoot(new FakeParent("w"), node, root(write, ALL & ~write));
    const error = await refused(r, [r.graph.append(filter, node)]);
    expect(error).toMatchObject({ code: "EPERM" });
    expect(String(error)).toMatch(/Permission conflict on node 'node': permissions 'write'/);
  });

  it("should-update-child: an edge inside the new node's own subtree stays", async () => {
    const r = rig();
    const node = await r.disk("node");
    const target = await r.open({ driver: "overlay", "node-name": "target", backing: "node" });
    const filter = await r.open({ driver: "filter", "node-name": "filter", target: "target" });
    const edge = await r.graph.attachRoot(new FakeParent("p"), node, root());
    await r.graph.change([r.graph.append(filter, node)]);
    expect([target.backing, edge.node, filter.children.get("file")?.node]).toEqual([
      node,
      filter,
      node,
    ]);
    checkGraph(r.graph);
  });

  it("parallel-perm-update: the writer moves from one branch to the other and back", async () => {
    let selected = "fl1";
    let host: NodeHost | undefined;
    const r = rig((script) => [
      layer(script, {
        name: "selector",
        children: [
          { name: "fl1", role: Role.data, required: true },
          { name: "fl2", role: Role.data, required: true },
        ],
        permissions: ({ name }) =>
          name === selected ? { perm: write, shared: ALL & ~write } : { perm: 0, shared: ALL },
        onOpen: (own) => {
          host = own;
        },
      }),
    ]);
    await r.disk("base");
    const fl1 = await r.open({ driver: "filter", "node-name": "one", file: "base" });
    const fl2 = await r.open({ driver: "filter", "node-name": "two", file: "base" });
    await r.open({ driver: "selector", "node-name": "ws", fl1: "one", fl2: "two" });
    const writes = (node: BlockNode): number => (node.children.get("file")?.perm ?? 0) & write;
    expect([writes(fl1), writes(fl2)]).toEqual([write, 0]);
    for (const [next, expected] of [
      ["fl2", [0, write]],
      ["fl1", [write, 0]],
      ["fl2", [0, write]],
    ] as const) {
      selected = next;
      await host?.refreshPermissions();
      expect([writes(fl1), writes(fl2)]).toEqual(expected);
      checkGraph(r.graph);
    }
  });

  it("parallel-exclusive-write: the permission of an edge that goes is not counted", async () => {
    const r = exclusiveWriters();
    await r.disk("base");
    const fl1 = await r.open({ driver: "filter", "node-name": "fl1", file: "base" });
    const fl2 = await r.open({ driver: "filter", "node-name": "fl2", file: "base" });
    const top = await r.open({ driver: "exclusive-data", "node-name": "top", file: "fl1" });
    await r.graph.change([r.graph.replaceNode(fl1, fl2)]);
    expect(top.children.get("file")?.node).toBe(fl2);
    checkGraph(r.graph);
  });

  it("append-greedy-filter: permissions are checked on the final graph only", async () => {
    const r = exclusiveWriters();
    const base = await r.disk("base");
    const top = await r.open({ driver: "exclusive-data", "node-name": "top", file: "base" });
    const filter = await r.open({ driver: "exclusive", "node-name": "filter" });
    await r.graph.change([r.graph.append(filter, base)]);
    expect([top.children.get("file")?.node, filter.children.get("file")?.node]).toEqual([
      filter,
      base,
    ]);
    checkGraph(r.graph);
  });
});

describe("replaceNode", () => {
  it("moves every parent but a job, and one step sees what the step before it did", async () => {
    const r = rig();
    const [a, b, c] = [await r.disk("a"), await r.disk("b"), await r.disk("c")];
    const parent = new FakeParent("p");
    const [edge, jobEdge] = await Promise.all([
      r.graph.attachRoot(parent, a, root()),
      r.graph.attachRoot(new FakeParent("j", "job"), a, root()),
    ]);
    await r.graph.change([r.graph.replaceNode(a, b), r.graph.replaceNode(b, c)]);
    expect([edge.nodeName, jobEdge.nodeName]).toEqual(["c", "a"]);
    expect(parent.events.filter((event) => event.startsWith("node"))).toEqual(["node c"]);
  });

  it("closes a node that lost its last owner, once, and its implicit child after it", async () => {
    const r = rig();
    const top = await r.open({
      driver: "plain",
      "node-name": "top",
      file: { driver: "filter", "node-name": "f", file: { driver: "disk", "node-name": "d" } },
    });
    const other = await r.disk("other");
    const edge = top.children.get("file");
    if (edge === undefined) throw new Error("top has a file");
    await r.graph.change([r.graph.replaceChild(edge, other)]);
    expect(r.script.log.filter((line) => line.endsWith(" close"))).toEqual(["f close", "d close"]);
    expect(r.graph.nodes().map(({ name }) => name)).toEqual(["top", "other"]);
    expect(() => r.graph.node("f")).toThrow("Cannot find device='' nor node-name='f'");
    checkGraph(r.graph);
  });

  it.each([
    {
      what: "a frozen link",
      message: "Cannot change 'file' link to 'base'",
      code: "EPERM",
      steps: async (r: Rig) => {
        r.graph.freezeChain(r.graph.node("top"));
        return [r.graph.replaceNode(r.graph.node("base"), await r.disk("x"))];
      },
    },
    {
      what: "an edge that may not follow and may not be left out",
      message: "Should not change root link to 'base'",
      code: "EINVAL",
      steps: async (r: Rig) => {
        await r.graph.attachRoot(new FakeParent("j", "job"), r.graph.node("base"), root());
        return [r.graph.replaceNode(r.graph.node("base"), await r.disk("x"), { skip: false })];
      },
    },
    {
      what: "a backing link that would close a circle",
      message: "Making 'o2' a backing child of 'o1' would create a cycle",
      code: "EINVAL",
      steps: (r: Rig) => [r.graph.setBacking(r.graph.node("o1"), r.graph.node("o2"))],
    },
    {
      what: "a child that would close a circle",
      message: "Making 'top' a target child of 'top' would create a cycle",
      code: "EINVAL",
      steps: (r: Rig) => {
        const top = r.graph.node("top");
        return [r.graph.attachChild(top, "target", Role.data, top)];
      },
    },
    {
      what: "a moved child that would close a circle",
      message: "Making 'top' a file child of 'top' would create a cycle",
      code: "EINVAL",
      steps: (r: Rig) => {
        const top = r.graph.node("top");
        const edge = top.children.get("file");
        return edge === undefined ? [] : [r.graph.replaceChild(edge, top)];
      },
    },
    {
      what: "a second child of a name",
      message: "Node 'top' has a child 'file' already",
      code: "EINVAL",
      steps: (r: Rig) => [
        r.graph.attachChild(r.graph.node("top"), "file", Role.data, r.graph.node("spare")),
      ],
    },
    {
      what: "a second primary child",
      message: "Child 'x' of node 'top' cannot have the role of child 'file'",
      code: "EINVAL",
      steps: (r: Rig) => [
        r.graph.attachChild(r.graph.node("top"), "x", Role.image, r.graph.node("spare")),
      ],
    },
    {
      what: "an impossible role",
      message: "a child has at least one of the roles data, metadata, filtered, cow",
      code: "EINVAL",
      steps: (r: Rig) => [r.graph.attachChild(r.graph.node("top"), "x", 0, r.graph.node("spare"))],
    },
    {
      what: "a backing node under a driver without",
      message: "Driver 'disk' of node 'base' does not support backing files",
      code: "EINVAL",
      steps: (r: Rig) => [r.graph.setBacking(r.graph.node("base"), r.graph.node("spare"))],
    },
    {
      what: "an overlay that can have none",
      message: "The overlay does not support backing images",
      code: "EINVAL",
      steps: (r: Rig) => [r.graph.append(r.graph.node("spare"), r.graph.node("base"))],
    },
    {
      what: "dropping what is no filter",
      message: "Node 'base' is not a filter",
      code: "EINVAL",
      steps: (r: Rig) => [r.graph.dropFilter(r.graph.node("base"))],
    },
    {
      what: "another backing node behind a frozen link",
      message: "Cannot change frozen 'backing' link from 'o2' to 'o1'",
      code: "EPERM",
      steps: (r: Rig) => {
        r.graph.freezeChain(r.graph.node("o2"));
        return [r.graph.setBacking(r.graph.node("o2"), r.graph.node("spare"))];
      },
    },
    {
      what: "no backing node behind a frozen link",
      message: "Cannot change frozen 'backing' link from 'o2' to 'o1'",
      code: "EPERM",
      steps: (r: Rig) => {
        r.graph.freezeChain(r.graph.node("o2"));
        return [r.graph.setBacking(r.graph.node("o2"), undefined)];
      },
    },
    {
      what: "detaching a frozen child",
      message: "Cannot change frozen 'file' link from 'top' to 'base'",
      code: "EPERM",
      steps: (r: Rig) => {
        r.graph.freezeChain(r.graph.node("top"));
        const edge = r.graph.node("top").children.get("file");
        return edge === undefined ? [] : [r.graph.detachChild(edge)];
      },
    },
  ])("refuses $what", async ({ steps, message, code }) => {
    const r = rig();
    await r.disk("base");
    await r.disk("spare");
    await r.open({ driver: "filter", "node-name": "top", file: "base" });
    await r.open({ driver: "overlay", "node-name": "o1", backing: null });
    await r.open({ driver: "overlay", "node-name": "o2", backing: "o1" });
    const list = await steps(r);
    const first = r.graph.replaceNode(r.graph.node("spare"), r.graph.node("o2"));
    // Alone, and after a step that worked.
    expect(await refused(r, list)).toMatchObject({ code, message });
    expect(await refused(r, [first, ...list])).toMatchObject({ code });
  });

  it("refuses a node that was closed, and an edge that was detached", async () => {
    const r = rig();
    const [a, b] = [await r.disk("a"), await r.disk("b")];
    const edge = await r.graph.attachRoot(new FakeParent("p"), a, root());
    await r.graph.detachRoot(edge);
    await r.graph.detachRoot(edge);
    const detached = await refused(r, [r.graph.replaceChild(edge, b)]);
    expect(detached).toMatchObject({ code: "ENOMEDIUM", message: "The 'root' link was detached" });
    await r.graph.remove("b");
    const closed = await refused(r, [r.graph.replaceNode(a, b)]);
    expect(closed).toMatchObject({ code: "ENOMEDIUM", message: "Node 'b' is closed" });
    await expect(r.graph.attachRoot(new FakeParent("q"), b, root())).rejects.toMatchObject({
      code: "ENOMEDIUM",
    });
  });
});

describe("filters and overlays", () => {
  it("inserts a filter under live requests, drops it, and no byte goes astray", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    const backend = await r.graph.createBackend({
      node: disk,
      perm: ["consistent-read", "write"],
    });
    await backend.write(0, Uint8Array.of(1));
    const options = { driver: "filter", "node-name": "f", file: "disk" };
    const filter = await r.graph.insertNode(options as never, disk);
    await backend.write(1, Uint8Array.of(2));
    expect(filter.io.highestWriteOffset).toBe(2);
    await r.graph.change([r.graph.dropFilter(filter)]);
    await backend.write(2, Uint8Array.of(3));
    expect(filter.io.highestWriteOffset).toBe(2);
    const buffer = new Uint8Array(3);
    await backend.read(0, buffer);
    expect([...buffer]).toEqual([1, 2, 3]);
    expect([...filter.children]).toEqual([]);
    await r.graph.remove("f");
    checkGraph(r.graph);
  });

  it("closes the new node again when it cannot be put in place", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    await r.graph.attachRoot(new FakeParent("w"), disk, root(write, ALL & ~write));
    const before = checkGraph(r.graph);
    const insert = (options: Record<string, unknown>): Promise<BlockNode> =>
      r.graph.insertNode(options as never, disk);
    await expect(
      insert({ driver: "filter", "node-name": "f", file: "disk", target: "disk" }),
    ).rejects.toMatchObject({
      code: "EPERM",
      message: expect.stringMatching(/^Could not replace node: Permission conflict on node 'disk'/),
    });
    await expect(insert({ driver: "nosuch" })).rejects.toMatchObject({
      code: "EINVAL",
      message: "Could not create node: Parameter 'driver' does not accept value 'nosuch'",
    });
    expect(checkGraph(r.graph)).toBe(before);
    expect(r.script.log).toContain("f close");
  });

  it("blocks most commands on a backing node, and unblocks them with the link", async () => {
    const r = rig();
    const base = await r.disk("base");
    const overlay = await r.open({ driver: "overlay", "node-name": "o" });
    await r.graph.change([r.graph.append(overlay, base)]);
    expect(() => base.checkOperation("mirror-source")).toThrow(
      "Node 'base' is busy: node is used as backing hd of 'o'",
    );
    for (const allowed of ["commit-target", "stream", "backup-source", "backup-target"] as const) {
      base.checkOperation(allowed);
    }
    await expect(r.graph.remove("base")).rejects.toMatchObject({
      code: "EBUSY",
      message: "Node 'base' is busy: node is used as backing hd of 'o'",
    });
    await r.graph.change([r.graph.setBacking(overlay, undefined)]);
    base.checkOperation("mirror-source");
    await r.graph.remove("base");
  });

  it("refuses a filter that takes no filtered child, and node parents where others belong", async () => {
    const r = rig((script) => [layer(script, { name: "odd", isFilter: true, children: [] })]);
    const disk = await r.disk("disk");
    const odd = await r.open({ driver: "odd", "node-name": "odd" });
    expect(await refused(r, [r.graph.append(odd, disk)])).toMatchObject({
      code: "EINVAL",
      message: "Node 'odd' has no filtered child",
    });
    await expect(r.graph.attachRoot(odd, disk, root())).rejects.toThrow("as children");
    const top = await r.open({ driver: "filter", "node-name": "top", file: "disk" });
    const edge = top.children.get("file");
    if (edge === undefined) throw new Error("top has a file");
    await expect(r.graph.setPermissions(edge, root())).rejects.toThrow("follow from its own");
  });

  it("detaches a child, and closes it when nobody else holds it", async () => {
    const r = rig();
    const filter = await r.open({
      driver: "filter",
      "node-name": "f",
      target: { driver: "disk", "node-name": "t" },
    });
    const edge = filter.children.get("target");
    if (edge === undefined) throw new Error("the filter has a target");
    await r.graph.change([r.graph.detachChild(edge)]);
    expect(r.graph.findNode("t")).toBeUndefined();
    await r.graph.change([r.graph.detachChild(edge)]);
    await expect(edge.pread(0, new Uint8Array(1))).rejects.toMatchObject({ code: "ENOMEDIUM" });
  });
});
