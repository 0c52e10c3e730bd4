import { writeU16, writeU32, writeU64 } from "@blocklayer/offsets";
import { describe, expect, it } from "vitest";
import type { CheckFile } from "../src/check/check-file.ts";
import { ClusterCounts } from "../src/check/cluster-counts.ts";
import { Findings } from "../src/check/findings.ts";
import { L2Batch, type L2Visit } from "../src/check/l2-batch.ts";
import { rebuildCounts } from "../src/check/rebuild.ts";
import { ReferenceCounter } from "../src/check/reference-counter.ts";
import { scanSnapshots } from "../src/check/snapshot-scan.ts";
import { Geometry } from "../src/format/geometry.ts";
import type { Header } from "../src/format/header.ts";
import type { HeaderStore } from "../src/image/header-store.ts";

describe("counts of clusters", () => {
  it.each([0, 1, 254, 255, 256, 70_000])("hold %d references", (count) => {
    const counts = new ClusterCounts(65_536, 131_072);
    counts.add(70_000, count);
    counts.add(70_001, 1);
    counts.add(70_000, 2);
    expect([counts.get(69_999), counts.get(70_000), counts.get(70_001)]).toEqual([0, count + 2, 1]);
  });

  it("tell whether a range holds any", () => {
    const counts = new ClusterCounts(0, 2 ** 26);
    counts.add(100_000, 1);
    expect(counts.holds(0, 100_000)).toBe(false);
    expect(counts.holds(100_000, 100_001)).toBe(true);
    expect(counts.holds(99_999, 2 ** 27)).toBe(true);
    expect(counts.mayHold(0, 32_768)).toBe(false);
  });
});

describe("a counter of references", () => {
  const geometry = new Geometry({ clusterBits: 12, extendedL2: false, refcountOrder: 1 });
  const counted = (
    offset: number,
    length: number,
    times = 1,
  ): readonly [counts: number[], corruptions: number, highest: number] => {
    const findings = new Findings("none");
    const counter = new ReferenceCounter(geometry, findings, 20_000, { from: 1, to: 4 });
    counter.add(offset, length, times);
    const counts = [1, 2, 3].map((cluster) => counter.counts.get(cluster));
    return [counts, findings.corruptions, counter.highest];
  };

  it.each([
    ["nothing", 4096, 0, 1, [0, 0, 0], 0, -1],
    ["every cluster that is touched", 8191, 2, 1, [1, 1, 0], 0, 2],
    ["only clusters of its window", 0, 20_480, 1, [1, 1, 1], 0, 4],
    ["what lies inside the file", 8192, 40_960, 1, [0, 1, 1], 1, 4],
    ["nothing of what lies outside", 40_960, 512, 1, [0, 0, 0], 1, -1],
    ["less than a cluster behind the end", 16_384, 7000, 1, [0, 0, 0], 0, 4],
    ["no more than the width of counts holds", 4096, 1, 5, [3, 0, 0], 2, 1],
  ])("counts %s", (_what, offset, length, times, counts, corruptions, highest) => {
    expect(counted(offset, length, times)).toEqual([counts, corruptions, highest]);
  });
});

describe("a batch of L2 tables", () => {
  it("visits each once, in the order of the file", async () => {
    const visits: L2Visit[] = [];
    const batch = new L2Batch((visit) => {
      visits.push(visit);
      return Promise.resolve();
    });
    for (const offset of [8192, 4096, 8192]) await batch.add(offset, 1, 0);
    await batch.add(8192, 0, 3);
    await batch.flush();
    await batch.flush();
    expect(visits).toEqual([
      { offset: 4096, active: 1, inactive: 0 },
      { offset: 8192, active: 2, inactive: 3 },
    ]);
  });

  it("does not collect without end", async () => {
    let visited = 0;
    const batch = new L2Batch(() => {
      visited += 1;
      return Promise.resolve();
    });
    for (let table = 0; table < 200_000; table += 1) await batch.add(table * 512, 1, 0);
    expect(visited).toBe(131_072);
    await batch.flush();
    expect(visited).toBe(200_000);
  });
});

describe("findings", () => {
  it("that are muted do not count, but those of a window do where only walks are muted", async () => {
    const findings = new Findings("none");
    const find = (): Promise<void> => {
      findings.corruption(() => "one");
      findings.corruptionInWindow(() => "two");
      findings.allocated(1, 1, 1);
      return Promise.resolve();
    };
    await findings.muted(find);
    expect(findings.result(0)).toMatchObject({ corruptions: 0, allocatedClusters: 0 });
    await findings.muted(find, true);
    expect(findings.result(0)).toMatchObject({ corruptions: 1, allocatedClusters: 0 });
    await find();
    expect(findings.result(0)).toMatchObject({ corruptions: 3, allocatedClusters: 1 });
  });
});

describe("rebuilding counts", () => {
  it("fails with EFBIG where the refcount table would be too large", async () => {
    const geometry = new Geometry({ clusterBits: 9, extendedL2: false, refcountOrder: 6 });
    const work = rebuildCounts({
      file: {} as CheckFile,
      geometry,
      header: {} as HeaderStore,
      start: 2 ** 40,
      windows: [],
      count: () => Promise.reject(new Error("nothing is to be counted")),
    });
    await expect(work).rejects.toMatchObject({
      code: "EFBIG",
      message: "the refcount table would be too large",
      context: { limit: 2 ** 23 },
    });
  });
});

describe("a table of snapshots", () => {
  const geometry = new Geometry({ clusterBits: 16, extendedL2: false, refcountOrder: 4 });
  const length = 40 + 24 + 65_528 + 65_528;
  /** A file of records as long as they can be. */
  const file = {
    size: 2 ** 40,
    read: (offset: number, buffer: Uint8Array): Promise<void> => {
      buffer.fill(0x61);
      for (let at = (length - (offset % length)) % length; at + 64 <= buffer.length; at += length) {
        buffer.fill(0, at, at + 64);
        writeU64(buffer, at, 65_536);
        writeU16(buffer, at + 12, 65_528);
        writeU16(buffer, at + 14, 65_528);
        writeU32(buffer, at + 36, 24);
      }
      return Promise.resolve();
    },
  } as CheckFile;
  const header = {
    version: 3,
    snapshotCount: 1000,
    snapshotTableOffset: 0,
    size: 65_536,
  } as Header;

  it("that is too long is an error, and cut by a repair of everything", async () => {
    expect(length % 8).toBe(0);
    const scan = scanSnapshots(file, header, geometry, new Findings("leaks"));
    await expect(scan).rejects.toMatchObject({
      code: "EFBIG",
      message: "failed to read the snapshot table: it is too big",
      context: { overhanging: 489 },
    });
    const findings = new Findings("all");
    const { replacement } = await scanSnapshots(file, header, geometry, findings);
    expect([replacement?.count, replacement?.fixes, findings.corruptions]).toEqual([511, 489, 489]);
  });
});
