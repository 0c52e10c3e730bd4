import { checkGraph } from "@blocklayer/block-graph";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, gate, rig, settle } from "./graph-rig.ts";

type Hold = { end(): void };

describe("replacing a child inside drained sections", () => {
  it.each([
    { o: 0, n: 0 },
    { o: 0, n: 1 },
    { o: 0, n: 2 },
    { o: 1, n: 0 },
    { o: 1, n: 1 },
    { o: 2, n: 1 },
  ])("old drained $o times, new $n times: the parent is told $n in the end", async ({ o, n }) => {
    const r = rig();
    const [from, to] = [await r.disk("old"), await r.disk("new")];
    const parent = new FakeParent("p");
    const top = await r.open({ driver: "filter", "node-name": "top", file: "old" });
    const edge = await r.graph.attachRoot(parent, from, { name: "root", perm: 0, shared: ALL });
    const holds: Hold[] = [];
    for (let count = 0; count < o; count += 1) holds.push(await from.drain());
    for (let count = 0; count < n; count += 1) holds.push(await to.drain());
    parent.events = [];
    r.script.log.length = 0;
    const held = gate();
    if (o === 0) r.script.wait.set("old pread", held.promise);
    const read = o === 0 ? top.children.get("file")?.pread(0, new Uint8Array(8)) : undefined;
    const changing = r.graph.change([r.graph.replaceNode(from, to)]);
    await settle();
    held.open();
    await changing;
    await read;
    expect([parent.drained, edge.nodeName, top.quiesceCount]).toEqual([n, "new", n]);
    checkGraph(r.graph);
    const driver = r.script.log.filter((line) => line.startsWith("top drain"));
    const expected: Record<string, string[]> = {
      "0 0": ["top drainBegin", "top drainEnd"],
      "0 1": ["top drainBegin"],
      "0 2": ["top drainBegin"],
      "1 0": ["top drainEnd"],
      "1 1": [],
      "2 1": [],
    };
    expect(driver).toEqual(expected[`${o} ${n}`]);
    for (const hold of holds) hold.end();
    expect([parent.drained, top.quiesceCount, from.quiesceCount, to.quiesceCount]).toEqual([
      0, 0, 0, 0,
    ]);
  });

  it("sends requests held back by the old child's drain to the new child", async () => {
    const r = rig();
    const [from, to] = [await r.disk("old"), await r.disk("new")];
    const backend = await r.graph.createBackend({ node: from, perm: ["consistent-read", "write"] });
    const hold = await from.drain();
    const write = backend.write(0, Uint8Array.of(1, 2, 3));
    await r.graph.change([r.graph.replaceNode(from, to)]);
    await write;
    const buffer = new Uint8Array(3);
    await backend.read(0, buffer);
    expect([...buffer]).toEqual([1, 2, 3]);
    expect([from.io.highestWriteOffset, to.io.highestWriteOffset]).toEqual([0, 3]);
    hold.end();
  });
});
