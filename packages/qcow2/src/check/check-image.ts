import type { CheckOptions, CheckResult } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { alignUp } from "@blocklayer/offsets";
import { Autoclear, Incompatible } from "../format/constants.ts";
import type { Qcow2Image } from "../image/qcow2-image.ts";
import { countBitmaps } from "./bitmap-check.ts";
import { CheckFile } from "./check-file.ts";
import type { ClusterCounts } from "./cluster-counts.ts";
import { CopiedCheck } from "./copied-check.ts";
import { Findings, type OnFinding } from "./findings.ts";
import type { TableExtent } from "./l1-walk.ts";
import { L2Check } from "./l2-check.ts";
import { rebuildCounts } from "./rebuild.ts";
import { ReferenceCounter } from "./reference-counter.ts";
import { reloadImage, replaceSnapshots } from "./reload-image.ts";
import { type ScannedSnapshots, scanSnapshots } from "./snapshot-scan.ts";
import { type Comparison, StoredCounts } from "./stored-counts.ts";
import { countTrees } from "./tree-walk.ts";

/** Clusters whose references are counted at a time. */
const WINDOW: number = 2 ** 26;

export interface ImageCheckOptions extends CheckOptions {
  /** Told of each finding, in the words of `qemu-img check`. */
  readonly onFinding?: OnFinding;
  /** Clusters whose references are counted at a time, rounded up to whole refcount blocks. Default 2^26. */
  readonly windowClusters?: number;
}

/**
 * Checks an image, and mends what `repair` allows. Nobody uses the image meanwhile.
 *
 * Memory: a byte for each host cluster that is referenced, in pages of 32,768 clusters, for at most 2^26 clusters at a
 * time (an image file with more is walked once for each window); 8 MiB for the refcount table, 16 MiB for the
 * list of L2 tables, one cluster for each of a refcount block and an L2 table, and the snapshot table, 64 MiB at
 * most. A 1 TiB disk with clusters of 64 KiB takes about 16 MiB. Time: each L2 table is read once, by however many
 * snapshots it is shared; with repair or more windows, once more each.
 *
 * Where something could not be read, nothing is given back and nothing is rebuilt.
 *
 * Differs from `qemu-img check` (7.2):
 *
 * | what | here |
 * | --- | --- |
 * | a table that lies in part beyond the end of the file | counts as far as it is inside, so that a repair does not free it |
 * | an L2 table at no cluster | counts for the cluster that it begins in, and so does what it refers to |
 * | a compressed cluster with subcluster bits | its data counts as well |
 * | a refcount block at no cluster, or with reserved bits | the counts are rebuilt; no check error |
 * | a refcount block outside the file | never created by making the file longer: the counts are rebuilt |
 * | new counts | behind everything that is in use or counted, never in gaps: what a damaged table lost can be rescued |
 * | bitmaps that cannot be | the image can be checked; they are a corruption, and nothing is given back |
 * | a snapshot table that ends within a record, or goes on with zeroes | an error; a repair of everything drops what is missing |
 * | a write of a repair that would hit other metadata | not done, a check error; the image is not marked as corrupt |
 *
 * @throws BlockError `EIO` the counts have to be rebuilt, and only leaks may be mended; `EINVAL`, `EFBIG` the table of
 *   snapshots can not be read; `EROFS` a repair of an image that is read-only
 * @see spec/qcow2.md section 12
 */
export async function checkImage(
  image: Qcow2Image,
  options: ImageCheckOptions = {},
): Promise<CheckResult> {
  const { repair = "none" } = options;
  if (repair !== "none" && image.readOnly) {
    throw new BlockError("EROFS", "the image is read-only", { node: image.host.nodeName });
  }
  if (!image.readOnly) {
    await image.writeback.finish();
    // Counts that are written late are compared as well.
    if (image.refcounts.hasDirty) await image.refcounts.write();
    await image.file.flush();
  }
  return await new ImageCheck(image, options).run();
}

/** Counts that differ. */
interface Found {
  readonly corruptions: number;
  readonly leaks: number;
}

interface Window {
  readonly from: number;
  readonly to: number;
}

class ImageCheck {
  readonly #image: Qcow2Image;
  readonly #findings: Findings;
  readonly #options: ImageCheckOptions;
  #file: CheckFile;
  #snapshots: ScannedSnapshots | undefined;
  /** Number of the last cluster that is referenced or counted. */
  #highest = -1;
  /** Number of the last cluster that is referenced, the old counts included. */
  #highestReference = -1;
  /** What was counted, if one window holds everything: then it is not counted twice. */
  #kept: ClusterCounts | undefined;
  /** Clusters that the refcount table has blocks for. */
  #covered = 0;
  /** What the refcount table itself has wrong. */
  #tableCorruptions = 0;

  constructor(image: Qcow2Image, options: ImageCheckOptions) {
    this.#image = image;
    this.#options = options;
    this.#findings = new Findings(options.repair ?? "none", options.onFinding);
    this.#file = new CheckFile(image.file, options.signal);
  }

  async run(): Promise<CheckResult> {
    const { geometry, header, size } = this.#image;
    const findings = this.#findings;
    findings.totalClusters = geometry.clustersOf(size);
    this.#snapshots = await scanSnapshots(this.#file, header.header, geometry, findings);
    if (this.#snapshots.l1Tables.length > 0 && this.#image.hasDataFile) {
      findings.corruption(() => "ERROR snapshots in an image with an external data file");
    }
    const found = await this.#detect();
    if (findings.repair !== "none" && !findings.isIncomplete) await this.#repairAndReload(found);
    return findings.result((this.#highest + 1) * geometry.clusterSize);
  }

  /** Walks everything and compares; without repair the flags as well. */
  async #detect(): Promise<Found> {
    const stored = await this.#readStored();
    const found = { corruptions: 0, leaks: 0 };
    for (const window of this.#windows()) {
      const isFirst = window.from === 0;
      const count = (): Promise<ReferenceCounter> => this.#count(window, stored);
      const { counts } = isFirst ? await count() : await this.#findings.muted(count, true);
      if (isFirst && window.to >= this.#clusters) this.#kept = counts;
      const comparison = await stored.compare(counts, this.#clusters, false);
      found.corruptions += comparison.corruptions;
      found.leaks += comparison.leaks;
      this.#highest = Math.max(this.#highest, comparison.highest);
      if (this.#findings.repair === "none") await this.#checkCopied(window, comparison, false);
    }
    return found;
  }

  /** However a repair ends, the image knows what is in the file then. */
  async #repairAndReload(found: Found): Promise<void> {
    const { file } = this.#image;
    try {
      await this.#repair(found);
    } catch (error) {
      await this.#reload().catch((reason: unknown) => file.onWriteLost(reason));
      throw error;
    }
  }

  async #repair(found: Found): Promise<void> {
    const { header } = this.#image;
    const findings = this.#findings;
    const isAll = findings.repair === "all";
    if (findings.needsRebuild) {
      if (!isAll) throw new BlockError("EIO", "need to rebuild refcount structures");
      await this.#rebuild();
      findings.countsFixed(found.corruptions + this.#tableCorruptions, found.leaks);
    } else {
      findings.countsFixed(isAll ? found.corruptions : 0, found.leaks);
    }
    if (header.extensions.bitmaps !== undefined && !this.#hasBitmaps) {
      // They are no longer valid, and now their clusters are free.
      await header.update({ extensions: { bitmaps: undefined } });
    }
    await this.#fix();
    await this.#reload();
    await this.#replaceSnapshots();
    if (!findings.isClean) return;
    await this.#file.flush();
    await header.setIncompatible((word) => word.without(Incompatible.dirty | Incompatible.corrupt));
  }

  /** Writes the mended table of snapshots; then the old one counts for nothing. */
  async #replaceSnapshots(): Promise<void> {
    const { replacement } = this.#snapshots ?? {};
    if (this.#snapshots === undefined || replacement === undefined) return;
    const extent = await replaceSnapshots(this.#image, replacement);
    this.#snapshots = { ...this.#snapshots, extent, replacement: undefined };
    this.#findings.countsFixed(replacement.fixes, 0);
    this.#file = new CheckFile(this.#image.file, this.#options.signal);
    this.#kept = undefined;
    await this.#fix();
    await this.#reload();
  }

  /** Mends the counts where they are, and the flags that follow from them. */
  async #fix(): Promise<void> {
    const findings = this.#findings;
    const fixesFlags = findings.repair === "all" || findings.isClean;
    const stored = await this.#readStored();
    this.#highest = -1;
    for (const window of this.#windows()) {
      const counts = this.#kept ?? (await this.#countAgain(window, stored));
      const comparison = await findings.muted(() => stored.compare(counts, this.#clusters, true));
      this.#highest = Math.max(this.#highest, comparison.highest);
      await this.#file.flush();
      await this.#checkCopied(window, comparison, fixesFlags);
    }
  }

  async #rebuild(): Promise<void> {
    const { geometry, header } = this.#image;
    // The old table and blocks stand in nobody's way, wherever they are said to be.
    this.#image.file.metadata.setExtents("refcount-table", []);
    this.#image.file.metadata.clearClusters("refcount-block");
    await rebuildCounts({
      file: this.#file,
      geometry,
      header,
      start: Math.max(this.#highest, this.#highestReference) + 1,
      windows: this.#windows(),
      count: (window) => this.#countAgain(window, undefined),
    });
    this.#kept = undefined;
    await this.#reload();
    this.#file = new CheckFile(this.#image.file, this.#options.signal);
  }

  #reload(): Promise<void> {
    const { l1Tables, extent, replacement } = this.#snapshots ?? {};
    // A table that is about to be replaced may only seem to be where other metadata is.
    const table = replacement === undefined ? extent : undefined;
    return reloadImage(this.#image, l1Tables ?? [], table);
  }

  /**
   * Counts once more what was counted before.
   *
   * @throws BlockError `EIO` some of it can not be read any more: what seems to be unused may be in use
   */
  async #countAgain(window: Window, stored: StoredCounts | undefined): Promise<ClusterCounts> {
    const { counts } = await this.#findings.muted(() => this.#count(window, stored));
    if (!this.#findings.isIncomplete) return counts;
    throw new BlockError("EIO", "metadata that could be read before can not be read again");
  }

  /** Counts everything in a window; the refcount table and its blocks last. */
  async #count(window: Window, stored: StoredCounts | undefined): Promise<ReferenceCounter> {
    const { geometry, header, hasDataFile, size } = this.#image;
    const findings = this.#findings;
    const file = this.#file;
    const counter = new ReferenceCounter(geometry, findings, file.size, window);
    const parts = { file, geometry, findings, counter };
    counter.add(0, geometry.clusterSize);
    const l2 = new L2Check({ ...parts, hasDataFile });
    const snapshots = this.#snapshots?.l1Tables ?? [];
    await countTrees({ active: this.#activeL1, snapshots }, { ...parts, l2 });
    const table = this.#snapshots?.extent;
    if (table !== undefined) counter.add(table.offset, table.length);
    const { bitmaps } = header.extensions;
    if (bitmaps !== undefined && this.#hasBitmaps) await countBitmaps(bitmaps, size, parts);
    const before = findings.corruptions;
    stored?.count(counter);
    this.#tableCorruptions += findings.corruptions - before;
    this.#highestReference = Math.max(this.#highestReference, counter.highest);
    return counter;
  }

  async #checkCopied(window: Window, comparison: Comparison, fixes: boolean): Promise<void> {
    const { geometry, hasDataFile } = this.#image;
    const isLast = window.to >= this.#clusters;
    const check = new CopiedCheck({
      file: this.#file,
      geometry,
      findings: this.#findings,
      hasDataFile,
      fixes,
      isSingle: (cluster) => {
        if (cluster < window.from || (cluster >= window.to && !isLast)) return undefined;
        const block = Math.floor(cluster / geometry.refcountsPerBlock);
        return comparison.unknown.has(block) ? undefined : comparison.single.has(cluster);
      },
    });
    await check.run(this.#activeL1);
  }

  async #readStored(): Promise<StoredCounts> {
    const { geometry, header } = this.#image;
    const { refcountTableOffset: offset, refcountTableClusters } = header.header;
    const extent = { offset, length: refcountTableClusters * geometry.clusterSize };
    const stored = await StoredCounts.read(this.#file, geometry, this.#findings, extent);
    this.#covered = stored.covered;
    return stored;
  }

  get #activeL1(): TableExtent {
    const { l1Offset, l1Size } = this.#image.header.header;
    return { offset: l1Offset, length: l1Size * 8 };
  }

  get #hasBitmaps(): boolean {
    return this.#image.header.header.autoclear.has(Autoclear.bitmaps);
  }

  /** Clusters to look at: those of the file, as far as they are referenced or have counts. */
  get #clusters(): number {
    return Math.min(this.#file.clusters, Math.max(this.#highestReference + 1, this.#covered));
  }

  /** Goes on as far as the walk of the first window finds references. */
  *#windows(): Generator<Window, void, undefined> {
    const { refcountsPerBlock } = this.#image.geometry;
    const length = alignUp(this.#options.windowClusters ?? WINDOW, refcountsPerBlock);
    for (let from = 0; from === 0 || from < this.#clusters; from += length) {
      yield { from, to: from + length };
    }
  }
}
