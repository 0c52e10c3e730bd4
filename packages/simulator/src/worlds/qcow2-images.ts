import { Graph } from "@blocklayer/block-graph";
import { ALL_PERMISSIONS, type BlockChild, Permissions } from "@blocklayer/driver";
import { type Env, manualEnv } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";
import { type Codecs, qcow2Definition } from "@blocklayer/qcow2";
import { Decisions } from "../decisions.ts";
import { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import type { Qcow2Shape } from "./qcow2-plan.ts";

/** Bit of the word of compatible features that nobody has given a meaning. */
export const UNKNOWN_COMPATIBLE = 0x80;
/** The same of the word of features that whoever changes the image has to know. */
export const UNKNOWN_AUTOCLEAR = 0x20;

/** A way to compress that is quick to run: words that repeat are counted. */
export const runLengths: Codecs = {
  zlib: {
    compress: (cluster, limit) => Promise.resolve(packed(cluster, limit)),
    decompress: (input, length) => Promise.resolve(unpacked(input, length)),
  },
};

function packed(cluster: Uint8Array, limit: number): Uint8Array | undefined {
  const words = new Uint32Array(cluster.slice().buffer);
  const output: number[] = [];
  for (let at = 0; at < words.length; ) {
    let end = at + 1;
    while (end < words.length && words[end] === words[at] && end - at < 255) end += 1;
    const word = words[at] ?? 0;
    output.push(end - at, word & 255, (word >>> 8) & 255, (word >>> 16) & 255, word >>> 24);
    at = end;
  }
  return output.length <= limit ? new Uint8Array(output) : undefined;
}

/** @throws Error the input is none */
function unpacked(input: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length);
  let filled = 0;
  for (let at = 0; filled < length; at += 5) {
    const count = input[at] ?? 0;
    if (count === 0 || filled + count * 4 > length) throw new Error("this was not compressed");
    for (let copies = 0; copies < count; copies += 1, filled += 4) {
      output.set(input.subarray(at + 1, at + 5), filled);
    }
  }
  return output;
}

const images = new Map<string, Uint8Array>();

/**
 * Returns an image in which nothing was written yet but `content`. Lives draw nothing meanwhile, so it is made once
 * for all that need one like it: nobody may change it.
 */
export async function madeImage(
  shape: Qcow2Shape,
  size: number,
  content?: Uint8Array,
): Promise<Uint8Array> {
  const { version, clusterSize, extendedL2, refcountBits, lazyRefcounts, hasUnknown } = shape;
  const { isCrowded } = shape;
  const options = {
    size,
    version,
    "cluster-size": clusterSize,
    "extended-l2": extendedL2,
    "refcount-bits": refcountBits,
    "lazy-refcounts": lazyRefcounts,
  };
  const key = JSON.stringify([options, hasUnknown, isCrowded, content?.length, shape.cellSize]);
  const known = images.get(key);
  if (known !== undefined) return known;
  const made = await make(options, content);
  const image = isCrowded && content === undefined ? crowded(made, clusterSize) : made;
  if (hasUnknown) addUnknown(image);
  images.set(key, image);
  return image;
}

/** All that is asked is done within the call, and nothing is left to decide. */
export function promptMedium(name: string): Medium {
  const medium = new Medium({
    name,
    size: 0,
    grows: true,
    decisions: new Decisions([]),
    post: () => assert(false, "a prompt medium posts nothing"),
    report: (kind, message) => assert(false, () => `${kind}: ${message}`),
  });
  return medium;
}

async function make(options: object, content: Uint8Array | undefined): Promise<Uint8Array> {
  const medium = promptMedium("new image");
  const env: Env = manualEnv();
  const definition = qcow2Definition({ codecs: runLengths });
  const graph = new Graph({
    env,
    drivers: [definition, simulatedDisk(new Map([["new image", medium]]))] as const,
  });
  const disk = { driver: "x-blocklayer-simulated", medium: "new image" } as const;
  const node = await graph.open({ ...disk, "node-name": "file" });
  const edge = await graph.attachRoot({ kind: "other", describe: () => "maker" }, node, {
    name: "root",
    perm: Permissions.consistentRead | Permissions.write | Permissions.resize,
    shared: ALL_PERMISSIONS,
  });
  const parsed = definition.createSchema?.parse(options);
  assert(parsed?.ok === true && definition.create !== undefined, "the options are those of qcow2");
  await definition.create(parsed.value, { env, file: edge as BlockChild });
  await graph.detachRoot(edge);
  if (content !== undefined) await fill(graph as unknown as Graph, content);
  await graph.close();
  return medium.cache.visible.slice();
}

async function fill(graph: Graph, content: Uint8Array): Promise<void> {
  await graph.open({ driver: "qcow2", "node-name": "image", file: "file" } as never);
  const disk = await graph.createBackend({ node: "image", perm: ["write"] });
  await disk.write(0, content);
  await disk.close();
}

/** The L1 table moves to the end, and fills all but a few of the clusters that the first block counts. */
function crowded(image: Uint8Array, clusterSize: number): Uint8Array {
  const perBlock = clusterSize / 8;
  const first = Math.ceil(image.length / clusterSize);
  const end = perBlock - 3;
  const larger = new Uint8Array(end * clusterSize);
  larger.set(image);
  const view = new DataView(larger.buffer);
  const [l1Size, l1Offset] = [view.getUint32(36), view.getUint32(44)];
  larger.set(image.subarray(l1Offset, l1Offset + l1Size * 8), first * clusterSize);
  view.setUint32(36, ((end - first) * clusterSize) / 8);
  view.setUint32(44, first * clusterSize);
  const block = view.getUint32(view.getUint32(52) + 4);
  const count = (cluster: number, value: number): void => {
    view.setUint32(block + cluster * 8 + 4, value);
  };
  for (let cluster = first; cluster < end; cluster += 1) count(cluster, 1);
  const old = Math.ceil((l1Size * 8) / clusterSize);
  for (let cluster = 0; cluster < old; cluster += 1) count(l1Offset / clusterSize + cluster, 0);
  return larger;
}

/** Features and an extension of the header, behind those that are there. */
function addUnknown(image: Uint8Array): void {
  const view = new DataView(image.buffer, image.byteOffset);
  view.setUint32(84, view.getUint32(84) + UNKNOWN_COMPATIBLE);
  view.setUint32(92, view.getUint32(92) + UNKNOWN_AUTOCLEAR);
  let at = view.getUint32(100);
  while (view.getUint32(at) !== 0) at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  view.setUint32(at, 0x12345678);
  view.setUint32(at + 4, 8);
  view.setUint32(at + 8, 0xfeedface);
  view.setUint32(at + 12, 0xcafebabe);
  view.setUint32(at + 16, 0);
  view.setUint32(at + 20, 0);
}

/** Whether the extension that nobody knows is still there. */
export function hasUnknownExtension(image: Uint8Array): boolean {
  const view = new DataView(image.buffer, image.byteOffset);
  for (let at = view.getUint32(100); at + 16 <= image.length && view.getUint32(at) !== 0; ) {
    const isIt = view.getUint32(at) === 0x12345678 && view.getUint32(at + 8) === 0xfeedface;
    if (isIt) return true;
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  }
  return false;
}
