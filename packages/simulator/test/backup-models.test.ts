import { Graph, isAllocated } from "@blocklayer/block-graph";
import { manualEnv } from "@blocklayer/env";
import { Decisions, Medium } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { OverlayStore } from "../src/disk/overlay-store.ts";
import { simulatedDisk } from "../src/disk/simulated-disk.ts";
import { simulatedOverlay } from "../src/disk/simulated-overlay.ts";
import { DiskContent, WrittenSectors } from "../src/worlds/backup-disk.ts";

const UNIT = 4096;
const SIZE = 4 * UNIT;

function medium(name: string, fill: number): Medium {
  const made = new Medium({
    name,
    size: SIZE,
    sectorSize: UNIT,
    decisions: new Decisions([]),
    post: (_tag, deliver) => deliver(),
    report: () => undefined,
  });
  made.format(new Uint8Array(SIZE).fill(fill));
  return made;
}

async function overlay() {
  const base = medium("base", 7);
  const store = new OverlayStore(medium("top", 0), new Decisions([]));
  const drivers = [
    simulatedDisk(new Map([["base", base]])),
    simulatedOverlay(new Map([["top", store]])),
  ] as const;
  const graph = new Graph({ env: manualEnv(), drivers });
  await graph.open({ driver: "x-blocklayer-simulated", "node-name": "base", medium: "base" });
  const node = await graph.open({
    driver: "x-blocklayer-simulated-overlay",
    "node-name": "top",
    discard: "unmap",
    store: "top",
    backing: "base",
  });
  const disk = await graph.createBackend({ node, perm: ["consistent-read", "write"] });
  const content = new DiskContent(store.medium, store, () => base.cache.visible);
  return { base, store, graph, node, disk, content };
}

describe("a simulated overlay", () => {
  it("shows its backing node where it holds nothing, and holds whole units", async () => {
    const { disk, base, node, content } = await overlay();
    await disk.write(UNIT + 10, new Uint8Array(20).fill(9));
    const expected = new Uint8Array(SIZE).fill(7);
    expected.fill(9, UNIT + 10, UNIT + 30);
    const buffer = new Uint8Array(SIZE);
    await disk.read(0, buffer);
    expect(buffer).toEqual(expected);
    expect(content.now()).toEqual(expected);
    expect(base.cache.visible.every((byte) => byte === 7)).toBe(true);
    const runs = [0, UNIT, 2 * UNIT].map((at) => isAllocated(node, at, SIZE - at));
    expect(await Promise.all(runs)).toEqual([
      { allocated: false, length: UNIT },
      { allocated: true, length: UNIT },
      { allocated: false, length: 2 * UNIT },
    ]);
  });

  it("discards nothing that it does not hold", async () => {
    const { disk } = await overlay();
    await disk.write(0, new Uint8Array(UNIT).fill(9));
    await disk.discard(0, 2 * UNIT);
    const buffer = new Uint8Array(2 * UNIT);
    await disk.read(0, buffer);
    expect([buffer[0], buffer[UNIT]]).toEqual([0, 7]);
  });
});

describe("the content of an overlay", () => {
  it.each([
    [0, UNIT, false],
    [UNIT, 2 * UNIT, true],
    [0, 2 * UNIT, false],
  ])("from %i to %i is held by itself: %s", async (at, end, isHeld) => {
    const { disk, content } = await overlay();
    await disk.write(UNIT, new Uint8Array(UNIT).fill(7));
    expect(content.holds(new Uint8Array(SIZE).fill(7), at, end)).toBe(isHeld);
    expect(content.allocation()(at, end)).toBe(end > UNIT);
  });
});

it("sectors that somebody has tried to write are known", () => {
  const written = new WrittenSectors(SIZE);
  written.touch(UNIT + 1, 1);
  expect([0, 1, 2].map((at) => written.isTouched(at * UNIT, (at + 1) * UNIT))).toEqual([
    false,
    true,
    false,
  ]);
});
