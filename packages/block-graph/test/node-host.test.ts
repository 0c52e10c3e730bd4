import { checkGraph } from "@blocklayer/block-graph";
import { type NodeHost, Role, type WriteRequest } from "@blocklayer/driver";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, layer, type Rig, rig } from "./graph-rig.ts";

/** A rig whose driver `open` gives its host away. */
async function hosted(options: Record<string, unknown> = {}): Promise<{ r: Rig; host: NodeHost }> {
  const { becomes, ...node } = options;
  const hosts: NodeHost[] = [];
  const r = rig((script) => [
    layer(script, {
      name: "hosted",
      supportsBacking: true,
      children: [
        { name: "file", role: Role.data | Role.primary, required: false },
        { name: "backing", role: Role.cow, required: false },
      ],
      onOpen: (own) => {
        hosts.push(own);
        if (becomes === true) own.becomeReadOnly("for a test");
      },
    }),
  ]);
  await r.disk("disk");
  await r.disk("base");
  await r.open({ driver: "hosted", "node-name": "n", file: "disk", backing: "base", ...node });
  const [host] = hosts;
  if (host === undefined) throw new Error("the driver was opened");
  return { r, host };
}

describe("the host of a driver", () => {
  it("shows the node, its options and its children", async () => {
    const { host } = await hosted({ backing: null });
    expect([host.nodeName, host.options.readOnly, host.autoReadOnly]).toEqual(["n", false, false]);
    expect([...host.children.keys()]).toEqual(["file"]);
    expect(["file", "backing", "x"].map((name) => host.childOption(name))).toEqual([
      "given",
      "null",
      "absent",
    ]);
    await expect(host.openChild("backing", Role.cow)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(host.openChild("x", Role.data)).rejects.toMatchObject({
      code: "EINVAL",
      message: 'A block device must be specified for "x"',
    });
    await expect(host.openChild("x", Role.data, "zz")).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("opens, attaches and detaches children later too", async () => {
    const { r, host } = await hosted();
    const extra = await host.openChild("extra", Role.data, { driver: "disk", "node-name": "e" });
    expect([extra.nodeName, host.children.get("extra")]).toEqual(["e", extra]);
    await host.detachChild("extra");
    expect(r.graph.findNode("e")).toBeUndefined();
    const base = await host.attachChild("again", Role.data, "base");
    expect(base.nodeName).toBe("base");
    await host.detachChild("again");
    await expect(host.attachChild("x", Role.data, "zz")).rejects.toMatchObject({ code: "ENOENT" });
    expect(() => host.detachChild("x")).toThrow("Node 'n' has no child 'x'");
    checkGraph(r.graph);
  });

  it("freezes the chain below", async () => {
    const { r, host } = await hosted();
    const hold = host.freezeChain();
    expect(r.graph.node("n").children.get("backing")?.isFrozen).toBe(true);
    expect(() => host.freezeChain("disk")).toThrow("Cannot freeze");
    hold.release();
    host.freezeChain("base").release();
    expect(() => host.freezeChain("zz")).toThrow("Cannot find device='' nor node-name='zz'");
  });

  it("lets a node fall back to read-only while it opens, if it may, and reopen keeps it so", async () => {
    const options = { "auto-read-only": true, becomes: true };
    const { r, host } = await hosted(options);
    const node = r.graph.node("n");
    expect([node.readOnly, host.options.readOnly, r.lines]).toEqual([
      true,
      true,
      ["node 'n' is read-only: for a test"],
    ]);
    const full = { driver: "hosted", "node-name": "n", file: "disk", backing: "base" };
    await r.graph.reopen([{ ...full, "auto-read-only": true }] as never);
    expect(node.readOnly).toBe(true);
    await r.graph.reopen([full] as never);
    expect(node.readOnly).toBe(false);
    expect(() => host.becomeReadOnly("late")).toThrow("while it opens");
    await expect(hosted({ becomes: true })).rejects.toThrow("that may be read-only");
    await hosted({ becomes: true, "read-only": true });
  });

  it("tells everybody above of a new length, and of new limits", async () => {
    const { r } = await hosted();
    const disk = r.graph.node("disk");
    const top = await r.open({ driver: "filter", "node-name": "top", file: "n" });
    const parent = new FakeParent("p");
    await r.graph.attachRoot(parent, top, { name: "root", perm: 0, shared: ALL });
    const sizes: unknown[] = [];
    top.addObserver({ resized: (request) => sizes.push({ ...request }) });
    await disk.driver.truncate?.(8192);
    disk.refresh();
    expect([disk.size, r.graph.node("n").size, top.size]).toEqual([8192, 8192, 8192]);
    expect(parent.events).toEqual(["resized 8192"]);
    expect(sizes).toEqual([{ oldSize: 1 << 20, newSize: 8192 }]);
  });

  it("hears of new limits below", async () => {
    const { r, host } = await hosted();
    const disk = r.graph.node("disk");
    Object.assign(disk.driver, { limits: { maxTransfer: 4096 } });
    disk.refreshLimits();
    expect(r.graph.node("n").limits.maxTransfer).toBe(4096);
    const node = r.graph.node("n");
    Object.defineProperty(node.driver, "limits", { value: { optTransfer: 512 } });
    host.limitsChanged();
    expect(node.limits.optTransfer).toBe(512);
    Object.defineProperty(node.driver, "size", { value: 1024 });
    host.resized();
    expect(node.size).toBe(1024);
  });

  it("announces content that was replaced, counts work, and reports damage", async () => {
    const { r, host } = await hosted();
    const node = r.graph.node("n");
    const seen: WriteRequest[] = [];
    const watching = node.addObserver({
      beforeWrite: (request) => {
        seen.push({ ...request });
        return undefined;
      },
    });
    await host.contentReplaced(512, 1024);
    expect(seen).toEqual([{ kind: "replace", offset: 512, length: 1024, flags: 0 }]);
    watching[Symbol.dispose]();
    watching[Symbol.dispose]();
    await host.contentReplaced(0, 1);
    expect([seen.length, node.observers]).toEqual([1, []]);
    const hold = host.holdInFlight();
    expect(node.io.inFlight).toBe(1);
    hold[Symbol.dispose]();
    node.holdInFlight()[Symbol.dispose]();
    expect(node.io.inFlight).toBe(0);
    const damage: unknown[] = [];
    r.graph.events.on("corrupted", (report) => damage.push(report));
    host.reportCorruption("bad table", { fatal: true, offset: 4096, length: 8 });
    host.warn("slow");
    expect(damage).toEqual([
      { node: "n", message: "bad table", fatal: true, offset: 4096, length: 8 },
    ]);
    expect(r.lines).toEqual(["node 'n' is damaged: bad table", "node 'n': slow"]);
  });
});

it("keeps the second of two equal observers when one goes", async () => {
  const r = rig();
  const node = await r.disk("d");
  const observer = {};
  const first = node.addObserver(observer);
  node.addObserver(observer);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  expect(node.observers).toEqual([observer]);
});
