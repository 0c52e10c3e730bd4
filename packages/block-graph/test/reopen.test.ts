import { checkGraph, type EdgeParent } from "@blocklayer/block-graph";
import { beforeEach, describe, expect, it } from "vitest";
import { ALL, FakeParent, type Rig, rig, settle, WRITE } from "./graph-rig.ts";

let r: Rig;
const reopen = (...list: Record<string, unknown>[]): Promise<void> => r.graph.reopen(list as never);
const root = (perm: number): { name: string; perm: number; shared: number } => ({
  name: "root",
  perm,
  shared: ALL,
});
const child = (node: string, name = "file"): string | undefined =>
  r.graph.node(node).children.get(name)?.nodeName;

beforeEach(async () => {
  r = rig();
  await r.disk("a");
  await r.disk("b");
  await r.open({ driver: "plain", "node-name": "p", file: "a", tag: "one", mode: "x" });
  await r.open({
    driver: "overlay",
    "node-name": "o",
    file: { driver: "disk", "node-name": "of" },
    backing: { driver: "disk", "node-name": "ob" },
  });
  await r.open({ driver: "overlay", "node-name": "o2", backing: null });
});

describe("a reopen that is refused", () => {
  const full = { driver: "overlay", "node-name": "o", file: "of", backing: "ob" };
  const plain = { driver: "plain", "node-name": "p", file: "a", tag: "one", mode: "x" };
  it.each([
    { list: [{ driver: "plain", file: "a" }], message: "node-name not specified" },
    {
      list: [{ ...plain, "node-name": "zz" }],
      message: "Failed to find node with node-name='zz'",
      code: "ENOENT",
    },
    { list: [{ ...plain, driver: "overlay" }], message: "Cannot change the option 'driver'" },
    {
      list: [{ "node-name": "p", file: "a" }],
      message: "Parameter 'options[0].driver' is missing",
    },
    {
      list: [{ driver: "plain", "node-name": "p" }],
      message: "Parameter 'options[0].file' is missing",
    },
    { list: [{ ...plain, nope: 1 }], message: "Parameter 'options[0].nope' is unexpected" },
    { list: [{ ...plain, mode: "y" }], message: "Cannot change the option 'mode'" },
    {
      list: [{ driver: "plain", "node-name": "p", file: "a", tag: "one" }],
      message: "Option 'mode' cannot be reset to its default value",
    },
    {
      list: [{ driver: "disk", "node-name": "a", size: 512 }],
      message: "Cannot change the option 'size'",
    },
    {
      list: [{ ...plain, file: { driver: "disk" } }],
      message: "Cannot change the option 'file.driver'",
    },
    {
      list: [{ ...full, file: { "node-name": "new" } }],
      message: "Cannot change the option 'file.node-name'",
    },
    {
      list: [{ ...full, file: { size: 512 } }],
      message: "Cannot change the option 'size'",
    },
    {
      list: [{ ...plain, file: "zz" }],
      message: "Cannot find device='' nor node-name='zz'",
      code: "ENOENT",
    },
    {
      list: [{ ...plain, file: "p" }],
      message: "Making 'p' a file child of 'p' would create a cycle",
    },
    {
      list: [{ ...full, backing: "o" }],
      message: "Making 'o' a backing child of 'o' would create a cycle",
    },
    {
      list: [{ driver: "overlay", "node-name": "o", file: "of" }],
      message: "backing is missing for 'o'",
    },
    {
      list: [{ driver: "overlay", "node-name": "o", backing: "ob" }],
      message: "Option 'file' cannot be reset to its default value",
    },
    {
      list: [{ ...full, "detect-zeroes": "unmap" }],
      message:
        "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
    },
  ])("$message", async ({ list, message, code = "EINVAL" }) => {
    const before = checkGraph(r.graph);
    await expect(reopen(...(list as Record<string, unknown>[]))).rejects.toMatchObject({
      code,
      message,
    });
    expect(checkGraph(r.graph)).toBe(before);
    // A good entry beside a bad one is not carried out either.
    const good = { driver: "overlay", "node-name": "o2", backing: "b", tag: "new" };
    await expect(reopen(good, ...(list as Record<string, unknown>[]))).rejects.toMatchObject({
      code,
    });
    expect(checkGraph(r.graph)).toBe(before);
    expect(r.graph.node("o2").spec.driverOptions).toEqual({});
  });

  it("because a user needs to write", async () => {
    const p = r.graph.node("p");
    await r.graph.attachRoot(new FakeParent("w"), p, root(WRITE));
    const before = checkGraph(r.graph);
    await expect(r.graph.setReadOnly(p, true)).rejects.toMatchObject({
      code: "EPERM",
      message: "Read-only block node 'p' cannot support read-write users",
      context: { node: "p" },
    });
    expect(checkGraph(r.graph)).toBe(before);
    expect(r.script.log.filter((line) => line.includes("eopen"))).toEqual([
      "p prepareReopen ro",
      "p abortReopen",
    ]);
    await r.disk("ro", { "read-only": true });
    await expect(
      reopen({ driver: "plain", "node-name": "p", file: "ro", tag: "one", mode: "x" }),
    ).rejects.toMatchObject({ code: "EPERM", message: "Block node is read-only" });
  });

  it("because a link is frozen", async () => {
    const hold = r.graph.freezeChain(r.graph.node("o"));
    await expect(
      reopen({ driver: "overlay", "node-name": "o", file: "of", backing: null }),
    ).rejects.toMatchObject({
      code: "EPERM",
      message: "Cannot change frozen 'backing' link from 'o' to 'ob'",
    });
    hold.release();
    const p = r.graph.node("p").children.get("file");
    if (p !== undefined) p.frozenCount = 1;
    await expect(
      reopen({ driver: "plain", "node-name": "p", file: "b", tag: "one", mode: "x" }),
    ).rejects.toMatchObject({
      code: "EPERM",
      message: "Cannot change frozen 'file' link from 'p' to 'a'",
    });
  });

  it("because the format cannot, or reads are being copied", async () => {
    const stiff = await r.open({ driver: "stiff", "node-name": "s", file: "a" });
    const message = "Block format 'stiff' used by node 's' does not support reopening files";
    await expect(r.graph.setReadOnly(stiff, true)).rejects.toMatchObject({
      code: "EINVAL",
      message,
    });
    const p = r.graph.node("p");
    p.io.copyOnReadCount = 1;
    await expect(r.graph.setReadOnly(p, true)).rejects.toMatchObject({
      code: "EINVAL",
      message: "Can't set node 'p' to r/o with copy-on-read enabled",
    });
    await r.graph.remove("s");
    await expect(r.graph.setReadOnly(stiff, true)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("because a filter that a job put in between is not the user's", async () => {
    await r.open({ driver: "filter", "node-name": "f", file: "a" });
    await reopen({ driver: "plain", "node-name": "p", file: "f", tag: "one", mode: "x" });
    r.graph.node("f").isImplicit = true;
    const options = { driver: "plain", "node-name": "p", tag: "one", mode: "x" };
    // What is behind the filter counts as unchanged.
    await reopen({ ...options, file: "a" });
    expect(child("p")).toBe("f");
    await expect(reopen({ ...options, file: "b" })).rejects.toMatchObject({
      code: "EPERM",
      message: "Cannot replace implicit file child of p",
    });
  });

  it("because a driver fails, at every step, and everything prepared is taken back", async () => {
    const list = [
      { driver: "plain", "node-name": "p", file: "a", mode: "x", tag: "two", "read-only": true },
      { driver: "overlay", "node-name": "o", file: "of", backing: null, "read-only": true },
    ];
    const undone: string[] = [];
    r.graph.use({
      name: "x",
      nodeReopening: (node, readOnly) => {
        undone.push(`will ${node.name} ${readOnly}`);
        return Promise.resolve(() => void undone.push(`won't ${node.name}`));
      },
    });
    for (const step of ["p prepareReopen ro", "o prepareReopen ro", "of prepareReopen ro"]) {
      const before = checkGraph(r.graph);
      r.script.log.length = 0;
      r.script.fail.set(step, "EIO");
      await expect(reopen(...list)).rejects.toMatchObject({ code: "EIO" });
      expect(checkGraph(r.graph)).toBe(before);
      const count = (what: string): number =>
        r.script.log.filter((line) => line.includes(what)).length;
      expect(count("abortReopen")).toBe(count("prepareReopen") - 1);
      expect(count("commitReopen")).toBe(0);
      r.script.fail.clear();
    }
    expect(undone.filter((line) => line.startsWith("will"))).toHaveLength(1 + 2 + 3);
    expect(undone.filter((line) => line.startsWith("won't"))).toHaveLength(1 + 2 + 3);
    await reopen(...list);
    expect([r.graph.node("p").readOnly, r.graph.node("of").readOnly]).toEqual([true, true]);
    checkGraph(r.graph);
  });
});

describe("a reopen", () => {
  it("changes options that may change, and returns what is not said to its default", async () => {
    await reopen({ driver: "plain", "node-name": "p", file: "a", mode: "x", discard: "unmap" });
    const p = r.graph.node("p");
    expect([p.options.discard, p.spec.driverOptions]).toEqual(["unmap", { mode: "x" }]);
    await reopen({ driver: "plain", "node-name": "p", file: "a", mode: "x", tag: "two" });
    expect([p.options.discard, p.spec.driverOptions]).toEqual([
      "ignore",
      { mode: "x", tag: "two" },
    ]);
  });

  it("moves file and backing, and takes backing away and gives it back", async () => {
    await reopen({ driver: "plain", "node-name": "p", file: "b", tag: "one", mode: "x" });
    expect(child("p")).toBe("b");
    const o = { driver: "overlay", "node-name": "o", file: "of" };
    await reopen({ ...o, backing: null });
    // It was defined inside the options: nobody else held it.
    expect([child("o", "backing"), r.graph.findNode("ob")]).toEqual([undefined, undefined]);
    await reopen({ ...o, backing: "a" });
    expect(child("o", "backing")).toBe("a");
    await reopen({ ...o, backing: "b" });
    expect(child("o", "backing")).toBe("b");
    expect(() => r.graph.node("b").checkOperation("eject")).toThrow("used as backing hd of 'o'");
    r.graph.node("a").checkOperation("eject");
    checkGraph(r.graph);
  });

  it("exchanges two backing nodes in one go", async () => {
    await reopen(
      { driver: "overlay", "node-name": "o", file: "of", backing: "a" },
      { driver: "overlay", "node-name": "o2", backing: "b" },
    );
    await reopen(
      { driver: "overlay", "node-name": "o", file: "of", backing: "b" },
      { driver: "overlay", "node-name": "o2", backing: "a" },
    );
    expect([child("o", "backing"), child("o2", "backing")]).toEqual(["b", "a"]);
    checkGraph(r.graph);
  });

  it("reaches children defined inside, unless they say otherwise themselves", async () => {
    await r.graph.setReadOnly(r.graph.node("o"), true);
    expect([r.graph.node("of").readOnly, r.graph.node("ob").readOnly]).toEqual([true, true]);
    expect(r.script.log.filter((line) => line.includes("eopen"))).toEqual([
      "o prepareReopen ro",
      "of prepareReopen ro",
      "of commitReopen",
      "o commitReopen",
      "of cleanReopen",
    ]);
    await r.graph.setReadOnly(r.graph.node("o"), false);
    await reopen({
      driver: "overlay",
      "node-name": "o",
      "read-only": true,
      file: { "read-only": false },
      backing: "ob",
    });
    expect([r.graph.node("o").readOnly, r.graph.node("of").readOnly]).toEqual([true, false]);
    checkGraph(r.graph);
  });

  it("does not reach a child that is replaced by the same reopen", async () => {
    await r.open({
      driver: "plain",
      "node-name": "q",
      mode: "x",
      file: { driver: "disk", "node-name": "qf" },
    });
    await r.graph.attachRoot(new FakeParent("keeper"), r.graph.node("qf"), root(1));
    const options = { driver: "plain", "node-name": "q", mode: "x" };
    await reopen({ ...options, file: "a", "read-only": true });
    expect([r.graph.node("q").readOnly, r.graph.node("qf").readOnly]).toEqual([true, false]);
    // It is put in again, and was not there when the reopen began.
    await reopen({ ...options, file: "qf", "read-only": true });
    expect([child("q"), r.graph.node("qf").readOnly]).toEqual(["qf", false]);
    await reopen({ ...options, file: "qf", "read-only": true });
    expect(r.graph.node("qf").readOnly).toBe(true);
    checkGraph(r.graph);
  });

  it("gives and takes the permissions that go with writing", async () => {
    const o = r.graph.node("o");
    const file = o.children.get("file");
    expect(file?.perm).toBe(WRITE | 8);
    await r.graph.setReadOnly(o, true);
    expect(file?.perm).toBe(1);
    await expect(r.graph.attachRoot(new FakeParent("w"), o, root(WRITE))).rejects.toMatchObject({
      code: "EPERM",
    });
    await r.graph.setReadOnly(o, false);
    await r.graph.attachRoot(new FakeParent("w"), o, root(WRITE));
    checkGraph(r.graph);
  });

  it("tells extensions of a node that becomes read-only, before and after", async () => {
    const seen: string[] = [];
    r.graph.use({
      name: "x",
      nodeReopening: (node, readOnly) => {
        seen.push(`will ${node.name} ${readOnly} ${node.readOnly} ${node.isDrained}`);
        return undefined;
      },
      nodeReopened: (node, readOnly) =>
        void seen.push(`did ${node.name} ${readOnly} ${node.readOnly}`),
    });
    await r.graph.setReadOnly(r.graph.node("p"), true);
    expect(seen).toEqual(["will p true false true", "did p true true"]);
    r.graph.use({ name: "y", nodeReopening: () => Promise.reject(new Error("not stored")) });
    await expect(r.graph.setReadOnly(r.graph.node("p"), false)).rejects.toThrow("not stored");
    expect(r.graph.node("p").readOnly).toBe(true);
  });
});

describe("handing the nodes over", () => {
  it("makes every node inactive, parents first, and back, children first", async () => {
    const backend = await r.graph.createBackend({ node: "p", perm: ["consistent-read", "write"] });
    const before = checkGraph(r.graph);
    r.script.log.length = 0;
    await r.graph.inactivate();
    const { active } = r.graph.node("a");
    expect(active).toBe(false);
    expect(r.script.log.filter((line) => line.endsWith("activate"))).toHaveLength(4);
    await expect(backend.write(0, new Uint8Array(8))).rejects.toMatchObject({ code: "EPERM" });
    checkGraph(r.graph);
    await r.graph.activate();
    expect(checkGraph(r.graph)).toBe(before);
    await backend.write(0, new Uint8Array(8));
    await r.graph.inactivate();
    await r.graph.inactivate();
    await r.graph.activate();
    expect(checkGraph(r.graph)).toBe(before);
  });

  it("is refused while somebody writes who does not give it up", async () => {
    const quiet: EdgeParent = Object.assign(new FakeParent("gives up"), {
      inactivate: () => undefined,
      activate: () => undefined,
    });
    const edge = await r.graph.attachRoot(quiet, r.graph.node("p"), root(WRITE));
    await r.graph.inactivate();
    expect(edge.perm).toBe(0);
    await r.graph.activate();
    expect(edge.perm).toBe(WRITE);
    await r.graph.attachRoot(new FakeParent("keeps"), r.graph.node("p"), root(WRITE));
    const before = checkGraph(r.graph);
    r.script.log.length = 0;
    await expect(r.graph.inactivate()).rejects.toMatchObject({
      code: "EPERM",
      message: "Block node is read-only",
    });
    expect(checkGraph(r.graph)).toBe(before);
    expect(r.script.log.some((line) => line.includes("activate"))).toBe(false);
  });

  it("takes everything back when a driver fails on the way", async () => {
    const before = checkGraph(r.graph);
    r.script.fail.set("b inactivate", "EIO");
    await expect(r.graph.inactivate()).rejects.toMatchObject({ code: "EIO" });
    expect(checkGraph(r.graph)).toBe(before);
    r.script.fail.clear();
    await r.graph.inactivate();
    const inactive = checkGraph(r.graph);
    r.script.fail.set("of activate", "EIO");
    await expect(r.graph.activate()).rejects.toMatchObject({ code: "EIO" });
    expect(checkGraph(r.graph)).toBe(inactive);
    r.script.fail.clear();
    await r.graph.activate();
    await settle();
    expect(checkGraph(r.graph)).toBe(before);
  });
});
