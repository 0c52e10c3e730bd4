import type { BlockChild, CreateContext } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { alignUp, writeU64 } from "@blocklayer/offsets";
import { Reader } from "../data/reader.ts";
import { Writer } from "../data/writer.ts";
import { Zeroer } from "../data/zeroer.ts";
import { Autoclear, Compatible, Incompatible } from "../format/constants.ts";
import { FeatureWord } from "../format/feature-word.ts";
import type { Geometry } from "../format/geometry.ts";
import type { Header } from "../format/header.ts";
import { NO_EXTENSIONS } from "../format/header-extensions.ts";
import { refcountAccess } from "../format/refcount-block.ts";
import { cacheSizes } from "../image/cache-sizes.ts";
import { encodeCluster0, type HeaderContent, HeaderStore } from "../image/header-store.ts";
import { HostFile, type ImageHost } from "../image/host-file.ts";
import { Qcow2Image } from "../image/qcow2-image.ts";
import { TableFile } from "../image/table-file.ts";
import { checkCreateOptions, type Qcow2CreateOptions } from "./create-options.ts";
import { resize } from "./resize.ts";

/** What is in the first clusters of a new image: header, refcount table, one refcount block. */
const FIRST_CLUSTERS = 3;

/**
 * Makes an image in a file that is open, whatever was in it.
 *
 * @param options - parsed by the create schema
 * @throws BlockError `EINVAL` options that do not go together; `EFBIG` too large
 * @see spec/qcow2.md section 15
 */
export async function createImage(options: unknown, context: CreateContext): Promise<void> {
  const given = options as Qcow2CreateOptions;
  const geometry = checkCreateOptions(given);
  const { file, dataFile } = filesOf(context);
  const content: HeaderContent = {
    header: firstHeader(given, geometry),
    extensions: {
      ...NO_EXTENSIONS,
      backingFormat: given["backing-fmt"],
      dataFile: given["data-file"],
    },
    backingName: given["backing-file"],
  };
  const { bytes, header } = encodeCluster0(content);
  const { clusterSize } = geometry;
  await file.truncate(0);
  // An image that is cut short here is none: the header comes last.
  await file.pwrite(clusterSize, firstTable(geometry));
  await file.pwrite(2 * clusterSize, firstBlock(geometry));
  await file.flush();
  await file.pwrite(0, bytes);
  await file.flush();
  const size = alignUp(given.size, 512);
  if (size === 0) return;
  const image = openNew(file, dataFile, { ...content, header }, geometry, size, context.env);
  const writer = new Writer(image, new Reader(image));
  const zeroer = new Zeroer(image);
  const { preallocation } = given;
  await resize(image, { writer, zeroer }, size, { preallocation });
  await image.clean();
}

/** A data file is a second file of the context, where there is one. */
function filesOf(context: CreateContext): {
  readonly file: BlockChild;
  readonly dataFile: BlockChild | undefined;
} {
  const { file } = context;
  if (file !== undefined) return { file, dataFile: context.dataFile };
  throw new BlockError("EINVAL", "a qcow2 image needs a file to be created in");
}

/** The header of a disk without any length. */
function firstHeader(options: Qcow2CreateOptions, geometry: Geometry): Header {
  const isV3 = options.version === "v3";
  const hasDataFile = options["data-file"] !== undefined;
  const bits = (flag: boolean, bit: number): number => (flag ? bit : 0);
  const incompatible =
    bits(hasDataFile, Incompatible.dataFile) +
    bits(options["compression-type"] !== "zlib", Incompatible.compressionType) +
    bits(geometry.extendedL2, Incompatible.extendedL2);
  return {
    version: isV3 ? 3 : 2,
    backingNameOffset: 0,
    backingNameLength: 0,
    clusterBits: geometry.clusterBits,
    size: 0,
    cryptMethod: "none",
    l1Size: 0,
    l1Offset: 0,
    refcountTableOffset: geometry.clusterSize,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotTableOffset: 0,
    incompatible: new FeatureWord(0, incompatible),
    compatible: new FeatureWord(0, bits(options["lazy-refcounts"], Compatible.lazyRefcounts)),
    autoclear: new FeatureWord(0, bits(options["data-file-raw"], Autoclear.rawDataFile)),
    refcountOrder: geometry.refcountOrder,
    headerLength: 0,
    compressionType: options["compression-type"],
    unknownFields: new Uint8Array(0),
  };
}

function firstTable({ clusterSize }: Geometry): Uint8Array {
  const table = new Uint8Array(clusterSize);
  writeU64(table, 0, 2 * clusterSize);
  return table;
}

function firstBlock({ clusterSize, refcountBits }: Geometry): Uint8Array {
  const block = new Uint8Array(clusterSize);
  const access = refcountAccess(refcountBits);
  for (let cluster = 0; cluster < FIRST_CLUSTERS; cluster += 1) access.set(block, cluster, 1);
  return block;
}

function openNew(
  file: BlockChild,
  dataFile: BlockChild | undefined,
  content: HeaderContent,
  geometry: Geometry,
  size: number,
  env: Env,
): Qcow2Image {
  const host = soloHost(file, dataFile);
  const hostFile = new HostFile(host, geometry);
  const { header } = content;
  return new Qcow2Image({
    env,
    host,
    file: hostFile,
    header: new HeaderStore(hostFile, content),
    l1: new TableFile(hostFile, "active-l1", header.l1Offset, new Uint8Array(0)),
    refcountTable: new TableFile(
      hostFile,
      "refcount-table",
      header.refcountTableOffset,
      firstTable(geometry),
    ),
    caches: cacheSizes({}, geometry, size),
    settings: {
      lazyRefcounts: false,
      discards: { never: false, always: false, request: false, snapshot: false, other: false },
    },
    codecs: {},
    forCheck: false,
  });
}

/** A host for an image that is not a node yet. */
function soloHost(file: BlockChild, dataFile: BlockChild | undefined): ImageHost {
  const children = new Map([["file", file]]);
  if (dataFile !== undefined) children.set("data-file", dataFile);
  return {
    nodeName: "new image",
    children,
    options: {
      readOnly: false,
      discard: "ignore",
      detectZeroes: "off",
      cacheDirect: false,
      cacheNoFlush: false,
      forceShare: false,
    },
    reportCorruption: () => undefined,
    warn: () => undefined,
    resized: () => undefined,
    limitsChanged: () => undefined,
  };
}
