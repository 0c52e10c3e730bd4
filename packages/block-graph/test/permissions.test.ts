import { checkGraph } from "@blocklayer/block-graph";
import { Role } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, layer, rig, WRITE } from "./graph-rig.ts";

const READ = 1;
const RESIZE = 8;
const root = (perm: number, shared = ALL): { name: string; perm: number; shared: number } => ({
  name: "root",
  perm,
  shared,
});

describe("attaching", () => {
  it("names both parents, the node, and the permissions in a conflict, whoever came first", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    await r.open({ driver: "overlay", "node-name": "q", file: "disk" });
    const before = checkGraph(r.graph);
    await expect(
      r.graph.attachRoot(new FakeParent("e"), disk, root(WRITE | RESIZE)),
    ).rejects.toMatchObject({
      code: "EPERM",
      message:
        "Permission conflict on node 'disk': permissions 'write, resize' are both required by export 'e' (uses node 'disk' as 'root' child) and unshared by node 'q' (uses node 'disk' as 'file' child).",
      context: { node: "disk", permissions: "write, resize" },
    });
    await expect(
      r.graph.attachRoot(new FakeParent("j", "job"), disk, root(0, READ)),
    ).rejects.toMatchObject({
      code: "EPERM",
      message:
        "Permission conflict on node 'disk': permissions 'write, resize' are both required by node 'q' (uses node 'disk' as 'file' child) and unshared by fake job 'j' (uses node 'disk' as 'root' child).",
    });
    expect(checkGraph(r.graph)).toBe(before);
  });

  it("refuses writers of a read-only node, and lets readers in", async () => {
    const r = rig();
    const disk = await r.disk("disk", { "read-only": true });
    for (const perm of [2, 4]) {
      await expect(r.graph.attachRoot(new FakeParent("e"), disk, root(perm))).rejects.toMatchObject(
        {
          code: "EPERM",
          message: "Block node is read-only",
          context: { node: "disk" },
        },
      );
    }
    await r.graph.attachRoot(new FakeParent("e"), disk, root(READ));
  });

  it("refuses to write without resizing what ends within an alignment unit", async () => {
    const r = rig();
    const disk = await r.disk("disk", { size: 1000, alignment: 512 });
    await expect(r.graph.attachRoot(new FakeParent("e"), disk, root(WRITE))).rejects.toMatchObject({
      code: "EPERM",
      message:
        "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment",
      context: { size: 1000, requestAlignment: 512 },
    });
    await r.graph.attachRoot(new FakeParent("e"), disk, root(WRITE | RESIZE));
  });

  it("asks the driver", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    r.script.fail.set("disk checkPermissions", "EAGAIN");
    const before = checkGraph(r.graph);
    await expect(r.graph.attachRoot(new FakeParent("e"), disk, root(READ))).rejects.toMatchObject({
      code: "EAGAIN",
    });
    expect(checkGraph(r.graph)).toBe(before);
  });

  it("shares everything on a node that was opened so", async () => {
    const r = rig();
    const disk = await r.disk("disk", { "read-only": true, "force-share": true });
    await r.graph.attachRoot(new FakeParent("a"), disk, root(READ, 0));
    await r.graph.attachRoot(new FakeParent("b"), disk, root(READ, 0));
    const top = await r.open({
      driver: "overlay",
      "node-name": "o",
      "read-only": true,
      file: "disk",
    });
    expect(top.children.get("file")?.shared).toBe(ALL);
    checkGraph(r.graph);
  });

  it("passes permissions down to the bottom", async () => {
    const r = rig();
    await r.disk("disk");
    await r.open({ driver: "filter", "node-name": "f", file: "disk" });
    const top = await r.open({ driver: "filter", "node-name": "t", file: "f" });
    const edge = await r.graph.attachRoot(new FakeParent("e"), top, root(WRITE, READ));
    const bottom = r.graph.node("f").children.get("file");
    expect([bottom?.perm, bottom?.shared]).toEqual([WRITE, READ]);
    await r.graph.detachRoot(edge);
    expect([bottom?.perm, bottom?.shared, edge.perm, edge.isAttached]).toEqual([0, ALL, 0, false]);
    checkGraph(r.graph);
  });
});

describe("setting permissions", () => {
  it("refuses a conflict and keeps what was there", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    await r.graph.attachRoot(new FakeParent("a"), disk, root(READ, READ));
    const edge = await r.graph.attachRoot(new FakeParent("b"), disk, root(READ));
    const before = checkGraph(r.graph);
    for (const tighter of [root(WRITE), root(READ, 0)]) {
      await expect(r.graph.setPermissions(edge, tighter)).rejects.toMatchObject({ code: "EPERM" });
    }
    expect(checkGraph(r.graph)).toBe(before);
    await r.graph.setPermissions(edge, root(0, READ));
    expect([edge.perm, edge.shared]).toEqual([0, READ]);
  });

  it("hides the failure of what only loosens", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    const edge = await r.graph.attachRoot(new FakeParent("a"), disk, root(WRITE, READ));
    r.script.fail.set("disk preparePermissions 1/15", "EIO");
    await r.graph.setPermissions(edge, root(READ));
    expect([edge.perm, edge.shared]).toEqual([WRITE, READ]);
    expect(r.lines.at(-1)).toContain("export 'a' keeps its permissions");
    checkGraph(r.graph);
  });

  it("detaches whatever the drivers say", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    const edge = await r.graph.attachRoot(new FakeParent("a"), disk, root(WRITE));
    r.script.fail.set("disk preparePermissions 0/15", "EIO");
    await r.graph.detachRoot(edge);
    expect([edge.isAttached, disk.parents.size]).toEqual([false, 0]);
    expect(r.lines.at(-1)).toContain("not all permissions are given up");
    checkGraph(r.graph);
  });

  it("refuses what a driver does not get ready for when it is more", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    const edge = await r.graph.attachRoot(new FakeParent("a"), disk, root(READ));
    r.script.fail.set(`disk preparePermissions ${WRITE}/${ALL}`, "EIO");
    await expect(r.graph.setPermissions(edge, root(WRITE))).rejects.toMatchObject({ code: "EIO" });
    expect([edge.perm, disk.granted?.perm]).toEqual([READ, READ]);
    checkGraph(r.graph);
  });

  it("serialises those who make a driver get ready", async () => {
    const r = rig();
    const disk = await r.disk("disk");
    await Promise.all([
      r.graph.attachRoot(new FakeParent("a"), disk, root(READ)),
      r.graph.attachRoot(new FakeParent("b"), disk, root(WRITE)),
    ]);
    const told = r.script.log.filter((line) => line.includes("ermissions"));
    expect(told.slice(-4)).toEqual([
      "disk preparePermissions 1/15",
      "disk setPermissions 1/15",
      "disk preparePermissions 3/15",
      "disk setPermissions 3/15",
    ]);
  });
});

it("lets a driver compute its children's permissions anew, or keeps the old ones", async () => {
  let perm = 0;
  let refresh: () => Promise<void> = () => Promise.resolve();
  const r = rig((script) => [
    layer(script, {
      name: "fickle",
      children: [{ name: "file", role: Role.data, required: true }],
      permissions: () => ({ perm, shared: ALL }),
      onOpen: (host) => {
        refresh = () => host.refreshPermissions();
      },
    }),
  ]);
  await r.disk("disk", { "read-only": true });
  const node = await r.open({ driver: "fickle", "node-name": "f", file: "disk" });
  perm = READ;
  await refresh();
  expect(node.children.get("file")?.perm).toBe(READ);
  perm = WRITE;
  await expect(refresh()).rejects.toMatchObject({ code: "EPERM" });
  expect(node.children.get("file")?.perm).toBe(READ);
});
