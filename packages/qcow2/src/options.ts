import { MAX_LENGTH } from "@blocklayer/offsets";
import {
  alternate,
  boolean,
  enumeration,
  integer,
  object,
  optional,
  type Schema,
  size,
} from "@blocklayer/schema";
import { OVERLAP_TEMPLATES, SECTIONS, type Section } from "./image/metadata-map.ts";
import type { DiscardClass } from "./image/pending-frees.ts";

/** Names of sets of sections that overlap checks look at. */
export type OverlapTemplate = keyof typeof OVERLAP_TEMPLATES;

/** Which metadata is looked at before each write to the image file: a template, with exceptions. */
export type OverlapFlags = { readonly template?: OverlapTemplate } & Readonly<
  Partial<Record<Section, boolean>>
>;

/** Options of the driver `qcow2`, without its children. Sizes in bytes. */
export interface Qcow2Options {
  /** Write counts late and mark the image as dirty instead. Default: what the image says. */
  readonly "lazy-refcounts"?: boolean;
  /** Discards of guests are passed on to the image file. Default: whether the node was opened with `discard: "unmap"`. */
  readonly "pass-discard-request"?: boolean;
  /** So is what deleting snapshots frees. Default `true`. */
  readonly "pass-discard-snapshot": boolean;
  /** So is metadata that is no longer used. Default `false`. */
  readonly "pass-discard-other": boolean;
  /** Default `"cached"`. */
  readonly "overlap-check": OverlapTemplate | OverlapFlags;
  readonly "cache-size"?: number;
  readonly "l2-cache-size"?: number;
  readonly "l2-cache-entry-size"?: number;
  readonly "refcount-cache-size"?: number;
  /** Seconds after which tables that nobody uses are forgotten; 0 for never. Default 600. */
  readonly "cache-clean-interval": number;
  /**
   * The image is opened to be checked, nothing else: also when it is marked as damaged, or has no refcount table or a
   * table of snapshots that cannot be read. Guests cannot write. Default `false`.
   */
  readonly "x-blocklayer-check": boolean;
}

const templates = enumeration("none", "constant", "cached", "all");

const overlapFlags: Schema<OverlapFlags> = object({
  template: optional(templates),
  "main-header": optional(boolean()),
  "active-l1": optional(boolean()),
  "active-l2": optional(boolean()),
  "refcount-table": optional(boolean()),
  "refcount-block": optional(boolean()),
  "snapshot-table": optional(boolean()),
  "inactive-l1": optional(boolean()),
  "inactive-l2": optional(boolean()),
  "bitmap-directory": optional(boolean()),
});

export const qcow2Schema: Schema<Qcow2Options> = object({
  "lazy-refcounts": optional(boolean()),
  "pass-discard-request": optional(boolean()),
  "pass-discard-snapshot": optional(boolean(), true),
  "pass-discard-other": optional(boolean(), false),
  "overlap-check": optional(alternate(templates, overlapFlags), "cached"),
  "cache-size": optional(size({ max: MAX_LENGTH })),
  "l2-cache-size": optional(size({ max: MAX_LENGTH })),
  "l2-cache-entry-size": optional(size({ max: MAX_LENGTH })),
  "refcount-cache-size": optional(size({ max: MAX_LENGTH })),
  "cache-clean-interval": optional(integer({ min: 0, max: 2 ** 31 - 1 }), 600),
  "x-blocklayer-check": optional(boolean(), false),
});

/** Returns the sections that the options have checked. */
export function checkedSections(options: Qcow2Options): readonly Section[] {
  const given = options["overlap-check"];
  const flags: OverlapFlags = typeof given === "string" ? { template: given } : given;
  const sections = new Set(OVERLAP_TEMPLATES[flags.template ?? "cached"]);
  for (const section of SECTIONS) {
    if (flags[section] === true) sections.add(section);
    if (flags[section] === false) sections.delete(section);
  }
  return [...sections];
}

/** Returns which classes of freed clusters give their space back. */
export function discardClasses(
  options: Qcow2Options,
  discard: "ignore" | "unmap",
): Readonly<Record<DiscardClass, boolean>> {
  return {
    never: false,
    always: true,
    request: options["pass-discard-request"] ?? discard === "unmap",
    snapshot: options["pass-discard-snapshot"],
    other: options["pass-discard-other"],
  };
}
