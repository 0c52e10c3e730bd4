import { Role } from "@blocklayer/driver";
import { PassThroughFilter } from "@blocklayer/driver-tests";
import { MemoryDriver } from "@blocklayer/memory";
import type { BlockNode } from "../src/block-node.ts";
import { type RigNode, rigNode } from "./io-rig.ts";

/** A sparse disk of clusters, over `backing` if there is one. */
export function memoryLayer(
  name: string,
  options: { readonly size: number; readonly clusterSize?: number; readonly backing?: BlockNode },
  rig: Partial<RigNode> = {},
): BlockNode {
  const { size, clusterSize = 512, backing } = options;
  return rigNode({
    name,
    driver: (host) => new MemoryDriver(host, { size, clusterSize }),
    definition: { driverName: "memory", supportsBacking: true, isProtocol: true },
    ...(backing === undefined ? {} : { children: { backing: { node: backing, role: Role.cow } } }),
    ...rig,
  });
}

/** A filter that changes nothing, over `below`. */
export function filterLayer(name: string, below: BlockNode, rig: Partial<RigNode> = {}): BlockNode {
  return rigNode({
    name,
    definition: { driverName: "pass-through", isFilter: true },
    children: { file: { node: below, role: Role.filtered | Role.primary } },
    driver: (host) => {
      const child = host.children.get("file");
      if (child === undefined) throw new Error("the filter has no child");
      return new PassThroughFilter(child);
    },
    ...rig,
  });
}
