import { RequestFlag } from "@blocklayer/driver";
import { sameBytes } from "../disk/same-bytes.ts";
import type { SweepStage } from "./stage.ts";
import type { SweepScenario } from "./sweep.ts";

/** Puts a stored bitmap into an image, as a former process would have left it. */
async function storeBitmap(stage: SweepStage): Promise<void> {
  await stage.open("disk");
  const bitmap = await stage.bitmaps.add("disk", { name: "kept", persistent: true });
  bitmap.set(0, 1);
  await stage.graph.remove("disk");
}

/** A node with a stored bitmap is opened, used and closed. */
const openAndClose: SweepScenario = {
  name: "open and close",
  setUp: storeBitmap,
  act: async (stage) => {
    await stage.graph.open({
      driver: "raw",
      "node-name": "top",
      file: { driver: "x-blocklayer-failing", "node-name": "disk", store: "disk" },
    });
    const disk = await stage.backend("top");
    try {
      await stage.write(disk, "disk", 3000, 9);
    } finally {
      await disk.close();
    }
    await stage.graph.remove("top");
  },
  tidy: async (stage) => {
    // A failure while closing does not keep anything open; one before may leave the node to its owner.
    if (stage.graph.findNode("top") !== undefined) await stage.graph.remove("top");
    stage.expectBaseline([]);
    const { bitmaps } = stage.store("disk");
    stage.expect(bitmaps.length === 1, "bitmap lost", () => `${bitmaps.length} bitmaps`);
    // What was in use when it should have been stored counts for nothing, and only that.
    const [kept] = bitmaps;
    if (kept?.inUse === true) await replaceBitmap(stage);
  },
  verify: (stage) => {
    stage.expectContent("disk");
    const { unstableChanges, bitmaps } = stage.store("disk");
    stage.expect(unstableChanges === 0, "closed and not stable", () => String(unstableChanges));
    stage.expect(bitmaps[0]?.inUse === false, "not stored at close", () => "");
  },
};

/** An inconsistent bitmap can be removed, and made anew. */
async function replaceBitmap(stage: SweepStage): Promise<void> {
  await stage.open("disk");
  await stage.bitmaps.remove("disk", "kept");
  await stage.bitmaps.add("disk", { name: "kept", persistent: true });
  await stage.graph.remove("disk");
}

/** Every kind of request through `raw` with a bitmap, some of them not aligned; then the disk grows and shrinks. */
const requests: SweepScenario = {
  name: "requests",
  setUp: async (stage) => {
    await stage.graph.open({
      driver: "raw",
      "node-name": "top",
      discard: "unmap",
      file: {
        driver: "x-blocklayer-failing",
        "node-name": "disk-file",
        store: "disk",
        discard: "unmap",
      },
    });
    await stage.bitmaps.add("top", { name: "bm", granularity: 512 });
  },
  act: async (stage) => {
    const disk = await stage.backend("top");
    const { size } = disk;
    const before = stage.store("disk").content.slice();
    try {
      await stage.write(disk, "disk", 100, 5);
      await disk.write(8192, new Uint8Array(1024).fill(6), { flags: RequestFlag.fua });
      stage.meant("disk", (content) => content.fill(6, 8192, 8192 + 1024));
      await disk.writeZeroes(20_000, 5000, { flags: RequestFlag.mayUnmap });
      stage.meant("disk", (content) => content.fill(0, 20_000, 25_000));
      await disk.discard(65536, 4096);
      stage.meant("disk", (content) => content.fill(0, 65536, 65536 + 4096));
      await disk.flush();
      const { unstableChanges } = stage.store("disk");
      stage.expect(unstableChanges === 0, "flushed and not stable", () => String(unstableChanges));
      await disk.read(0, new Uint8Array(700));
      await disk.blockStatus(0, size);
      await disk.truncate(size + 65536);
      await disk.truncate(size);
    } finally {
      expectMarked(stage, before);
      await disk.close();
    }
  },
  tidy: async (stage) => {
    const disk = await stage.backend("top");
    await disk.truncate(137_216 - 2048);
    await disk.truncate(2 * 65536 + 4096);
    stage.meant("disk", (content) => content.fill(0, 137_216 - 2048));
    await disk.close();
    stage.bitmaps.lookup("top", "bm").clear();
    stage.expectBaseline(["top", "disk-file"]);
  },
  verify: (stage) => stage.expectContent("disk"),
};

/** What has changed is marked, whatever has failed. */
function expectMarked(stage: SweepStage, before: Uint8Array): void {
  const { map } = stage.bitmaps.lookup("top", "bm");
  const { content } = stage.store("disk");
  const end = Math.min(before.length, content.length);
  for (let at = 0; at < end; at += map.granularity) {
    const stop = Math.min(at + map.granularity, end);
    const isSame = sameBytes(before.subarray(at, stop), content.subarray(at, stop));
    stage.expect(isSame || map.get(at), "change not marked", () => `bytes at ${at}`);
  }
}

/** Bitmaps are added, merged, stored, taken back and removed. */
const bitmaps: SweepScenario = {
  name: "bitmaps",
  setUp: (stage) => stage.open("disk"),
  act: async (stage) => {
    const node = stage.graph.node("disk");
    const one = await stage.bitmaps.add(node, { name: "one", persistent: true });
    const disk = await stage.backend("disk");
    try {
      await stage.write(disk, "disk", 65536, 4);
    } finally {
      await disk.close();
    }
    const two = await stage.bitmaps.add(node, { name: "two", granularity: 512 });
    await stage.bitmaps.merge(two, [one]);
    stage.expect(two.map.get(65536), "not merged", () => "");
    one.clear();
    await stage.graph.setReadOnly(node, true);
    await stage.graph.setReadOnly(node, false);
    const again = await stage.backend("disk");
    try {
      await stage.write(again, "disk", 0, 7);
    } finally {
      await again.close();
    }
    await stage.bitmaps.remove(node, "one");
    await stage.bitmaps.remove(node, "two");
  },
  tidy: async (stage) => {
    const node = stage.graph.node("disk");
    if (node.readOnly) await stage.graph.setReadOnly(node, false);
    for (const { name, busy } of stage.bitmaps.list(node)) {
      stage.expect(!busy, "bitmap left busy", () => name ?? "");
      await stage.bitmaps.remove(node, name ?? "");
    }
    stage.expectBaseline(["disk"]);
    const left = stage.store("disk").bitmaps;
    stage.expect(left.length === 0, "bitmap left in the image", () => left[0]?.name ?? "");
  },
  verify: (stage) => stage.expectContent("disk"),
};

/** A disk's place is taken by others while its user goes on, and two nodes are reopened together. */
const surgery: SweepScenario = {
  name: "surgery",
  setUp: async (stage) => {
    await stage.open("disk");
    await stage.open("target");
  },
  act: async (stage) => {
    const { graph } = stage;
    const disk = await stage.backend("disk");
    try {
      await stage.write(disk, "disk", 500, 3);
      await graph.insertNode(
        { driver: "copy-before-write", "node-name": "filter", file: "disk", target: "target" },
        graph.node("disk"),
      );
      await stage.write(disk, "disk", 70_000, 8);
      await graph.change([graph.dropFilter(graph.node("filter"))]);
      await graph.remove("filter");
      await stage.open("other");
      await graph.change([graph.replaceNode(graph.node("disk"), graph.node("other"))]);
      await stage.write(disk, "other", 0, 6);
      await graph.change([graph.replaceNode(graph.node("other"), graph.node("disk"))]);
      await graph.reopen([
        { driver: "x-blocklayer-failing", "node-name": "disk", store: "disk", discard: "ignore" },
        { driver: "x-blocklayer-failing", "node-name": "other", store: "other", discard: "unmap" },
      ]);
      await graph.reopen([
        { driver: "x-blocklayer-failing", "node-name": "disk", store: "disk", discard: "unmap" },
      ]);
      await graph.remove("other");
    } finally {
      await disk.close();
    }
  },
  tidy: async (stage, error) => {
    const { graph } = stage;
    const filter = graph.findNode("filter");
    if (filter !== undefined) await graph.remove("filter");
    if (graph.findNode("other") !== undefined) await graph.remove("other");
    const { discard } = graph.node("disk").options;
    if (discard !== "unmap") {
      stage.expect(error !== undefined, "half reopened", () => discard);
      await graph.reopen([
        { driver: "x-blocklayer-failing", "node-name": "disk", store: "disk", discard: "unmap" },
      ]);
    }
    stage.expectBaseline(["disk", "target"]);
    stage.store("target").content.fill(0x77);
  },
  verify: (stage) => {
    stage.expectContent("disk");
    stage.expectContent("other");
  },
  absorbed: {
    "disk status": "what the source holds is then taken for data",
  },
};

/** The nodes are handed over to another process and taken back. */
const handOver: SweepScenario = {
  name: "hand over and take back",
  setUp: async (stage) => {
    await storeBitmap(stage);
    await stage.graph.open({
      driver: "raw",
      "node-name": "top",
      file: { driver: "x-blocklayer-failing", "node-name": "disk", store: "disk" },
    });
  },
  act: async (stage) => {
    const disk = await stage.writer("top");
    try {
      await stage.write(disk, "disk", 512, 3);
    } finally {
      await disk.close();
    }
    await stage.graph.inactivate();
    const { unstableChanges } = stage.store("disk");
    stage.expect(unstableChanges === 0, "handed over and not stable", () => "");
    await stage.graph.activate();
  },
  tidy: async (stage) => {
    await stage.graph.activate();
    const inactive = stage.graph.nodes().filter(({ active }) => !active);
    stage.expect(inactive.length === 0, "left inactive", () => inactive.map(String).join());
    stage.expectBaseline(["top", "disk"]);
  },
  verify: (stage) => stage.expectContent("disk"),
};

export const diskScenarios: readonly SweepScenario[] = [
  openAndClose,
  requests,
  bitmaps,
  surgery,
  handOver,
];
