import type { BlockNode } from "@blocklayer/block-graph";
import type { TransactionStep } from "@blocklayer/jobs";
import { bytes, type Disk, Rig } from "./bitmap-rig.ts";
import { imageOf, type KeptBitmap, type KeptImage } from "./keeping-disk.ts";

export const GROUP: number = 65536;

export interface Opened {
  readonly rig: Rig;
  readonly node: BlockNode;
  readonly image: KeptImage;
}

/** A process of its own, which finds the images of the one before. */
export async function start(
  before?: Rig,
  options: Record<string, unknown> = {},
): Promise<Opened & { readonly disk: Disk }> {
  const opened = await open(new Rig(before?.shelf), options);
  return { ...opened, disk: await opened.rig.backend(opened.node, options["read-only"] !== true) };
}

export async function open(rig: Rig, options: Record<string, unknown> = {}): Promise<Opened> {
  const node = await rig.open({ driver: "keeper", "node-name": "disk", image: "i", ...options });
  return { rig, node, image: imageOf(rig.shelf, "i") };
}

/** A process that has stored a bitmap with group 0 dirty, and one that is disabled. */
export async function stored(): Promise<Rig> {
  const { rig, node, disk } = await start();
  await rig.bitmaps.add(node, { name: "x", persistent: true });
  await disk.write(0, bytes(1));
  const off = await rig.bitmaps.add(node, { name: "off", persistent: true, granularity: 512 });
  off.set(1024, 1);
  off.disable();
  await rig.bitmaps.add(node, { name: "passing" });
  await stop(rig, disk);
  imageOf(rig.shelf, "i").log.length = 0;
  return rig;
}

export async function stop(rig: Rig, disk: Disk): Promise<void> {
  await disk.close();
  await rig.graph.close();
}

export const kept = (image: KeptImage): Partial<KeptBitmap>[] =>
  image.bitmaps.map(({ name, enabled, inUse }) => ({ name, enabled, inUse }));

export function refuse(): TransactionStep {
  return {
    prepare: () => {
      throw new Error("refused");
    },
  };
}
