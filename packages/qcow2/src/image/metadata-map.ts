import type { Geometry } from "../format/geometry.ts";
import { ClusterSet } from "./cluster-set.ts";

/** What a part of the host file holds that guests must never overwrite. */
export const SECTIONS = [
  "main-header",
  "active-l1",
  "active-l2",
  "refcount-table",
  "refcount-block",
  "snapshot-table",
  "inactive-l1",
  "inactive-l2",
  "bitmap-directory",
] as const;
export type Section = (typeof SECTIONS)[number];

/** Which sections are looked at before a write, by the name of a template. */
export const OVERLAP_TEMPLATES: Readonly<
  Record<"none" | "constant" | "cached" | "all", readonly Section[]>
> = {
  none: [],
  constant: ["main-header", "active-l1", "refcount-table", "snapshot-table", "bitmap-directory"],
  cached: SECTIONS.filter((one) => one !== "inactive-l2"),
  all: SECTIONS,
};

interface Extent {
  readonly start: number;
  readonly end: number;
}

/**
 * Knows which clusters hold metadata, so that a write to any of them by mistake is stopped.
 *
 * @see spec/qcow2.md section 8
 */
export class MetadataMap {
  readonly #geometry: Geometry;
  /** Few and long: tables that are found by the header. */
  readonly #extents = new Map<Section, readonly Extent[]>();
  /** Many and short: one cluster each. */
  readonly #clusters = new Map<Section, ClusterSet>([
    ["active-l2", new ClusterSet()],
    ["refcount-block", new ClusterSet()],
    ["inactive-l2", new ClusterSet()],
  ]);
  #checked: ReadonlySet<Section> = new Set(OVERLAP_TEMPLATES.cached);

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.setExtents("main-header", [{ offset: 0, length: geometry.clusterSize }]);
  }

  /** Looks at these sections only. */
  check(sections: Iterable<Section>): void {
    this.#checked = new Set(sections);
  }

  /** Whether a section is looked at. */
  checks(section: Section): boolean {
    return this.#checked.has(section);
  }

  /** Replaces where a section's tables are, in bytes. */
  setExtents(
    section: Section,
    extents: readonly { readonly offset: number; readonly length: number }[],
  ): void {
    const { clusterSize } = this.#geometry;
    const whole = extents
      .filter(({ length }) => length > 0)
      .map(({ offset, length }) => ({
        start: Math.floor(offset / clusterSize),
        end: Math.ceil((offset + length) / clusterSize),
      }));
    this.#extents.set(section, whole);
  }

  addCluster(section: Section, offset: number): void {
    this.#clusters.get(section)?.add(offset / this.#geometry.clusterSize);
  }

  deleteCluster(section: Section, offset: number): void {
    this.#clusters.get(section)?.delete(offset / this.#geometry.clusterSize);
  }

  clearClusters(section: Section): void {
    this.#clusters.get(section)?.clear();
  }

  /**
   * Returns which metadata a write to the host file would hit, `undefined` for none.
   *
   * @param except - what is meant to be written
   */
  find(offset: number, length: number, except?: Section): Section | undefined {
    const { clusterSize } = this.#geometry;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + length) / clusterSize);
    for (const section of this.#checked) {
      if (section !== except && this.#holds(section, first, end)) return section;
    }
    return undefined;
  }

  #holds(section: Section, first: number, end: number): boolean {
    const extents = this.#extents.get(section) ?? [];
    if (extents.some((extent) => extent.start < end && first < extent.end)) return true;
    const clusters = this.#clusters.get(section);
    if (clusters === undefined) return false;
    for (let cluster = first; cluster < end; cluster += 1) if (clusters.has(cluster)) return true;
    return false;
  }
}
