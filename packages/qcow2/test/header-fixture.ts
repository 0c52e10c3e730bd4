import { encodeFeatureNames, type FeatureName } from "../src/format/feature-names.ts";
import { FeatureWord } from "../src/format/feature-word.ts";
import { encodeHeader, type Header } from "../src/format/header.ts";
import { encodeExtensions, NO_EXTENSIONS } from "../src/format/header-extensions.ts";

type HeaderChange = Partial<Omit<Header, "incompatible" | "compatible" | "autoclear">> & {
  readonly incompatible?: readonly [number];
  readonly compatible?: readonly [number];
  readonly autoclear?: readonly [number];
};

/** The header of a new disk of 64 MiB, with changes. */
export function headerOf(change: HeaderChange = {}): Header {
  const { incompatible = [0], compatible = [0], autoclear = [0], ...rest } = change;
  return {
    version: 3,
    backingNameOffset: 0,
    backingNameLength: 0,
    clusterBits: 16,
    size: 64 * 2 ** 20,
    cryptMethod: "none",
    l1Size: 1,
    l1Offset: 0x30000,
    refcountTableOffset: 0x10000,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotTableOffset: 0,
    refcountOrder: 4,
    headerLength: 112,
    compressionType: "zlib",
    unknownFields: new Uint8Array(0),
    ...rest,
    incompatible: new FeatureWord(0, incompatible[0]),
    compatible: new FeatureWord(0, compatible[0]),
    autoclear: new FeatureWord(0, autoclear[0]),
  };
}

/** Cluster 0 of a new disk of 64 MiB. */
export function cluster0(
  options: { readonly featureNames?: readonly FeatureName[] } = {},
): Uint8Array {
  const bytes = new Uint8Array(65536);
  const header = encodeHeader(headerOf());
  bytes.set(header);
  const names =
    options.featureNames === undefined ? undefined : encodeFeatureNames(options.featureNames);
  bytes.set(encodeExtensions(NO_EXTENSIONS, names), header.length);
  return bytes;
}
