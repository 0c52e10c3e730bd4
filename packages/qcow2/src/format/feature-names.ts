import { BlockError } from "@blocklayer/errors";
import { Autoclear, Compatible, Incompatible } from "./constants.ts";
import type { FeatureWord } from "./feature-word.ts";

/** Bytes of a record of the feature name table. */
const RECORD = 48;
const NAME_BYTES = 46;
const KINDS = ["incompatible", "compatible", "autoclear"] as const;

/** What a bit of a feature word means, told by whoever wrote the image. */
export interface FeatureName {
  /** 0 incompatible, 1 compatible, 2 autoclear; others may come. */
  readonly kind: number;
  readonly bit: number;
  readonly name: string;
}

/** Names that are written into every image of version 3, in this order. */
export const FEATURE_NAMES: readonly FeatureName[] = [
  { kind: 0, bit: 0, name: "dirty bit" },
  { kind: 0, bit: 1, name: "corrupt bit" },
  { kind: 0, bit: 2, name: "external data file" },
  { kind: 0, bit: 3, name: "compression type" },
  { kind: 0, bit: 4, name: "extended L2 entries" },
  { kind: 1, bit: 0, name: "lazy refcounts" },
  { kind: 2, bit: 0, name: "bitmaps" },
  { kind: 2, bit: 1, name: "raw external data" },
];

/** Bits with a meaning here, by kind. */
const KNOWN: Readonly<Record<(typeof KINDS)[number], number>> = {
  incompatible:
    Incompatible.dirty |
    Incompatible.corrupt |
    Incompatible.dataFile |
    Incompatible.compressionType |
    Incompatible.extendedL2,
  compatible: Compatible.lazyRefcounts,
  autoclear: Autoclear.bitmaps | Autoclear.rawDataFile,
};

/** Reads as many whole records as there are. */
export function decodeFeatureNames(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; at + RECORD <= data.length; at += RECORD) {
    const text = data.subarray(at + 2, at + RECORD);
    const end = text.indexOf(0);
    names.push({
      kind: data[at] ?? 0,
      bit: data[at + 1] ?? 0,
      name: new TextDecoder().decode(end < 0 ? text : text.subarray(0, end)),
    });
  }
  return names;
}

/** Names longer than 46 bytes are cut. */
export function encodeFeatureNames(names: readonly FeatureName[]): Uint8Array {
  const data = new Uint8Array(names.length * RECORD);
  for (const [index, { kind, bit, name }] of names.entries()) {
    data[index * RECORD] = kind;
    data[index * RECORD + 1] = bit;
    data.set(new TextEncoder().encode(name).subarray(0, NAME_BYTES), index * RECORD + 2);
  }
  return data;
}

/**
 * Refuses an image that needs what is not known here, with the names that the image has for it.
 *
 * @throws BlockError `ENOTSUP`
 */
export function checkIncompatible(word: FeatureWord, names: readonly FeatureName[]): void {
  const known = bitsOf(KNOWN.incompatible);
  const unknown = word.bits().filter((bit) => !known.includes(bit));
  if (unknown.length === 0) return;
  const named = unknown
    .map((bit) => names.find((one) => one.kind === 0 && one.bit === bit))
    .filter((one) => one !== undefined);
  const nameless = word.hexWithout([...known, ...named.map(({ bit }) => bit)]);
  const texts = named.map(({ name }) => name);
  if (nameless !== "0") texts.push(`Unknown incompatible feature: ${nameless}`);
  throw new BlockError("ENOTSUP", `Unsupported qcow2 feature(s): ${texts.join(", ")}`, {
    bits: unknown,
  });
}

/** Without the bits that nobody here knows: they mean something that is no longer true once the image was written. */
export function knownAutoclear(word: FeatureWord): FeatureWord {
  return word.only(KNOWN.autoclear);
}

function bitsOf(mask: number): number[] {
  const bits: number[] = [];
  for (let bit = 0; bit < 32; bit += 1) if (((mask >>> bit) & 1) === 1) bits.push(bit);
  return bits;
}
