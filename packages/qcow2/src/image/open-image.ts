import type { NodeHost } from "@blocklayer/driver";
import { type BlockChild, Role } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import type { Codecs } from "../codecs.ts";
import { Autoclear, Incompatible, SNAPSHOT_TABLE_BYTES_MAX } from "../format/constants.ts";
import { checkIncompatible, knownAutoclear } from "../format/feature-names.ts";
import type { Geometry } from "../format/geometry.ts";
import { checkHeader, decodeHeader, HEADER_PROBE_BYTES, type Header } from "../format/header.ts";
import { decodeExtensions, decodeText } from "../format/header-extensions.ts";
import { entryOffset } from "../format/l2-entry.ts";
import { decodeSnapshots, type SnapshotRecord } from "../format/snapshot-table.ts";
import { checkedSections, type Qcow2Options } from "../options.ts";
import { cacheSizes } from "./cache-sizes.ts";
import { type HeaderContent, HeaderStore } from "./header-store.ts";
import { HostFile } from "./host-file.ts";
import { imageSettings } from "./image-settings.ts";
import { Qcow2Image } from "./qcow2-image.ts";
import { TableFile } from "./table-file.ts";

/** Bytes of cluster 0 that are read: header, extensions, names. */
const CLUSTER0_MAX: number = 2 * 2 ** 20;

/** What is found in an image before anything of it is used. */
interface ImageContent extends HeaderContent {
  readonly geometry: Geometry;
}

/** What opening yields beside the image. */
export interface OpenedImage {
  readonly image: Qcow2Image;
  readonly snapshots: readonly SnapshotRecord[];
}

/**
 * Opens an image: reads what its header says, checks everything, and only then takes memory and opens other files.
 *
 * @throws BlockError `EINVAL` damaged; `ENOTSUP` features that are not known, encryption; `EFBIG` tables too large;
 *   `EACCES` marked as damaged and to be written
 * @see spec/qcow2.md section 1
 */
export async function openImage(
  host: NodeHost,
  options: Qcow2Options,
  env: Env,
  codecs: Codecs,
): Promise<OpenedImage> {
  const child = await host.openChild("file", Role.image);
  const forCheck = options["x-blocklayer-check"];
  const content = await readContent(child, forCheck);
  const { header, geometry } = content;
  const isCorrupt = header.incompatible.has(Incompatible.corrupt);
  if (isCorrupt && !forCheck && !host.options.readOnly) {
    const message = "qcow2: Image is corrupt; cannot be opened read/write";
    throw new BlockError("EACCES", message, { node: host.nodeName });
  }
  if (content.extensions.bitmaps !== undefined && !header.autoclear.has(Autoclear.bitmaps)) {
    host.warn(
      "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent",
    );
  }
  const file = new HostFile(host, geometry);
  file.metadata.check(checkedSections(options));
  const l1 = await readTable(file, "active-l1", header.l1Offset, header.l1Size * 8);
  const caches = cacheSizes(options, geometry, header.size);
  const tableBytes = header.refcountTableClusters * geometry.clusterSize;
  const refcountTable = await readTable(
    file,
    "refcount-table",
    header.refcountTableOffset,
    tableBytes,
  );
  const { snapshots, length } = forCheck ? NO_SNAPSHOTS : await readSnapshots(file, header);
  const image = new Qcow2Image({
    env,
    host,
    file,
    header: new HeaderStore(file, content),
    l1,
    refcountTable,
    caches,
    settings: imageSettings(options, header, host.options.discard),
    codecs,
    forCheck,
  });
  registerMetadata(image, snapshots);
  file.metadata.setExtents("snapshot-table", [{ offset: header.snapshotTableOffset, length }]);
  await openOthers(host, content);
  return { image, snapshots };
}

/** Reads and checks cluster 0. */
export async function readContent(
  file: Pick<BlockChild, "pread" | "size">,
  forCheck = false,
): Promise<ImageContent> {
  const probe = new Uint8Array(Math.min(HEADER_PROBE_BYTES, file.size));
  await file.pread(0, probe);
  const first = decodeHeader(probe);
  const length = Math.min(2 ** first.clusterBits, CLUSTER0_MAX, file.size);
  const bytes = new Uint8Array(length);
  await file.pread(0, bytes);
  const header = decodeHeader(bytes);
  refuseEncryption(header);
  const end = header.backingNameOffset + header.backingNameLength;
  const extensions = decodeExtensions(bytes, header, 2 ** header.clusterBits);
  checkIncompatible(header.incompatible, extensions.featureNames);
  const geometry = checkHeader(header, forCheck);
  const hasName = header.backingNameOffset !== 0 && header.backingNameLength > 0;
  if (hasName && end > bytes.length) {
    throw new BlockError("EINVAL", "Could not read backing file name", {
      offset: header.backingNameOffset,
    });
  }
  const name = hasName ? decodeText(bytes.subarray(header.backingNameOffset, end)) : undefined;
  return { header, extensions, backingName: name, geometry };
}

function refuseEncryption({ cryptMethod }: Header): void {
  if (cryptMethod === "none") return;
  const what = cryptMethod === "luks" ? "LUKS" : "AES-CBC";
  throw new BlockError("ENOTSUP", `the image is encrypted (${what}); encryption is not supported`, {
    cryptMethod,
  });
}

async function readTable(
  file: HostFile,
  section: "active-l1" | "refcount-table",
  offset: number,
  bytes: number,
): Promise<TableFile> {
  const table = new Uint8Array(bytes);
  if (bytes > 0) await file.read(offset, table);
  return new TableFile(file, section, offset, table);
}

/** Snapshots, and the bytes that their table takes. */
export type ReadSnapshots = ReturnType<typeof decodeSnapshots>;

const NO_SNAPSHOTS: ReadSnapshots = { snapshots: [], length: 0 };
/** Bytes that are read at most: the longest table, and the texts of a record that goes beyond. */
const SNAPSHOT_BYTES_MAX: number = SNAPSHOT_TABLE_BYTES_MAX + 2 ** 18;

/** Reads the table of snapshots. */
export async function readSnapshots(file: HostFile, header: Header): Promise<ReadSnapshots> {
  const { snapshotCount, snapshotTableOffset, version, size } = header;
  if (snapshotCount === 0) return NO_SNAPSHOTS;
  const context = { geometry: file.geometry, version, diskSize: size };
  // The table ends where its last record does: read on until it is whole.
  for (let length = 65536; ; length = Math.min(length * 4, SNAPSHOT_BYTES_MAX)) {
    const inside = Math.min(length, Math.max(0, file.size - snapshotTableOffset));
    const bytes = new Uint8Array(inside);
    await file.read(snapshotTableOffset, bytes);
    try {
      return decodeSnapshots(bytes, snapshotCount, context);
    } catch (error) {
      const isWhole = inside < length || length === SNAPSHOT_BYTES_MAX;
      if (isWhole || !isCutShort(error)) throw error;
    }
  }
}

/** Whether the table may go on behind what was read. */
function isCutShort(error: unknown): boolean {
  if (!(error instanceof BlockError)) return false;
  const { index } = error.context;
  return index !== undefined;
}

/** Tells the overlap checks where everything is. */
export function registerMetadata(
  image: Qcow2Image,
  snapshots: readonly Pick<SnapshotRecord, "l1Offset" | "l1Size">[],
): void {
  const { file, l2, refcounts, header } = image;
  const { metadata } = file;
  metadata.clearClusters("active-l2");
  metadata.clearClusters("refcount-block");
  for (let index = 0; index < l2.l1.entries; index += 1) {
    const offset = entryOffset(l2.l1.high(index), l2.l1.low(index));
    if (isInside(offset, file)) metadata.addCluster("active-l2", offset);
  }
  for (let index = 0; index < refcounts.table.entries; index += 1) {
    const offset = entryOffset(refcounts.table.high(index), refcounts.table.low(index));
    if (isInside(offset, file)) metadata.addCluster("refcount-block", offset);
  }
  metadata.setExtents(
    "inactive-l1",
    snapshots.map(({ l1Offset, l1Size }) => ({ offset: l1Offset, length: l1Size * 8 })),
  );
  const { bitmaps } = header.extensions;
  const hasBitmaps = bitmaps !== undefined && header.header.autoclear.has(Autoclear.bitmaps);
  metadata.setExtents(
    "bitmap-directory",
    hasBitmaps ? [{ offset: bitmaps.directoryOffset, length: bitmaps.directorySize }] : [],
  );
}

/** What refers beyond the file takes no memory: there is nothing to write over. */
function isInside(offset: number, file: HostFile): boolean {
  return offset !== 0 && offset < file.size;
}

/** Opens what the image is built on: an external data file, a backing file. */
async function openOthers(host: NodeHost, content: ImageContent): Promise<void> {
  const { header, extensions, backingName } = content;
  const hasDataFile = header.incompatible.has(Incompatible.dataFile);
  if (hasDataFile) {
    await openDataFile(host, extensions.dataFile);
  } else if (host.childOption("data-file") === "given") {
    throw new BlockError(
      "EINVAL",
      "'data-file' can only be set for images with an external data file",
    );
  }
  if (hasDataFile && header.autoclear.has(Autoclear.rawDataFile) && backingName !== undefined) {
    throw new BlockError("EINVAL", "data-file-raw requires that there is no backing file");
  }
  const state = host.childOption("backing");
  if (state === "given") {
    await host.openChild("backing", Role.cow);
  } else if (state === "absent" && backingName !== undefined) {
    const reference = { fileName: backingName, format: extensions.backingFormat, role: "backing" };
    await host.openChild("backing", Role.cow, await host.policy.resolve(reference, host.nodeName));
  }
}

async function openDataFile(host: NodeHost, name: string | undefined): Promise<void> {
  if (host.childOption("data-file") === "given") {
    await host.openChild("data-file", Role.data);
    return;
  }
  if (name === undefined) {
    throw new BlockError("EINVAL", "'data-file' is required for this image", {
      node: host.nodeName,
    });
  }
  const reference = { fileName: name, format: "raw", role: "data-file" };
  await host.openChild("data-file", Role.data, await host.policy.resolve(reference, host.nodeName));
}

/** What the first write to an image clears: bits that nobody here keeps true. */
export function autoclearOf(header: Header): Header["autoclear"] {
  return knownAutoclear(header.autoclear);
}
