import type { BlockChild, NodeHost, RequestOptions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { MAX_LENGTH } from "@blocklayer/offsets";
import type { Geometry } from "../format/geometry.ts";
import { HostPins } from "./host-pins.ts";
import { MetadataMap, type Section } from "./metadata-map.ts";

/** What the image needs of the world above. */
export type ImageHost = Pick<
  NodeHost,
  "nodeName" | "options" | "children" | "reportCorruption" | "warn" | "resized" | "limitsChanged"
>;

/** Marks the image as damaged; set by who owns the header. */
export type OnCorruption = (message: string, offset: number, length: number) => Promise<never>;

const TITLES: Readonly<Record<Section, string>> = {
  "main-header": "qcow2_header",
  "active-l1": "active L1 table",
  "active-l2": "active L2 table",
  "refcount-table": "refcount table",
  "refcount-block": "refcount block",
  "snapshot-table": "snapshot table",
  "inactive-l1": "inactive L1 table",
  "inactive-l2": "inactive L2 table",
  "bitmap-directory": "bitmap directory",
};

/**
 * The file that holds the image. Every write names what it writes; a write that would hit other metadata is not
 * done and marks the image as damaged.
 *
 * @see spec/qcow2.md section 8
 */
export class HostFile {
  readonly geometry: Geometry;
  readonly metadata: MetadataMap;
  readonly pins: HostPins = new HostPins();
  readonly #host: Pick<NodeHost, "children">;
  onCorruption: OnCorruption = (message) =>
    Promise.reject(new BlockError("EIO", message, { operation: "pwrite" }));

  /** What the file holds is no longer known: a flush failed, or the write of a header. */
  onWriteLost: (error: unknown) => void = () => undefined;

  constructor(host: Pick<NodeHost, "children">, geometry: Geometry) {
    this.#host = host;
    this.geometry = geometry;
    this.metadata = new MetadataMap(geometry);
  }

  /** The edge to the file. */
  get child(): BlockChild {
    return childOf(this.#host, "file");
  }

  /** Bytes. */
  get size(): number {
    return this.child.size;
  }

  /** Fills all of `buffer`, with zeroes beyond the end. */
  read(offset: number, buffer: Uint8Array, options?: RequestOptions): Promise<void> {
    return this.child.pread(offset, buffer, options);
  }

  /** @param section - the metadata that is meant; without it guests' data */
  write(
    offset: number,
    bytes: Uint8Array,
    section?: Section,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#refuse(offset, bytes.length, section) ?? this.child.pwrite(offset, bytes, options);
  }

  writev(
    offset: number,
    buffers: readonly Uint8Array[],
    length: number,
    options?: RequestOptions,
  ): Promise<void> {
    return this.#refuse(offset, length) ?? this.child.pwritev(offset, buffers, options);
  }

  writeZeroes(
    offset: number,
    length: number,
    section?: Section,
    options?: RequestOptions,
  ): Promise<void> {
    return (
      this.#refuse(offset, length, section) ?? this.child.pwriteZeroes(offset, length, options)
    );
  }

  async flush(): Promise<void> {
    try {
      await this.child.flush();
    } catch (error) {
      this.onWriteLost(error);
      throw error;
    }
  }

  #refuse(offset: number, length: number, section?: Section): Promise<never> | undefined {
    if (offset + length > MAX_LENGTH) {
      const context = { operation: "pwrite", offset, length, limit: MAX_LENGTH };
      return Promise.reject(new BlockError("EFBIG", "the image file would be too large", context));
    }
    const hit = this.metadata.find(offset, length, section);
    if (hit === undefined) return undefined;
    const what = `Preventing invalid write on ${section === undefined ? "" : "metadata "}(overlaps with ${TITLES[hit]})`;
    return this.onCorruption(what, offset, length);
  }
}

/** @throws BlockError `ENOMEDIUM` the edge is not there */
export function childOf(host: Pick<NodeHost, "children">, name: string): BlockChild {
  const child = host.children.get(name);
  if (child !== undefined) return child;
  throw new BlockError("ENOMEDIUM", `the image has no child '${name}'`, { child: name });
}
