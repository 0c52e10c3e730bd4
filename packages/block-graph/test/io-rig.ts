import {
  ALL_PERMISSIONS,
  type BlockDriver,
  type DriverDefinition,
  type GenericNodeOptions,
  type NodeHost,
  type Permission,
  type RoleMask,
} from "@blocklayer/driver";
import { ReferenceDisk } from "@blocklayer/driver-tests";
import { type Env, manualEnv } from "@blocklayer/env";
import { object } from "@blocklayer/schema";
import { BlockNode } from "../src/block-node.ts";
import { Edge } from "../src/edge.ts";
import type { Graph } from "../src/graph.ts";
import type { EdgeParent } from "../src/parent.ts";

/** A child of a node of the rig. */
export interface RigChild {
  readonly node: BlockNode;
  readonly role: RoleMask;
  readonly perm?: Permission;
}

/** A node without a graph around it. */
export interface RigNode {
  readonly name?: string;
  readonly env?: Env;
  readonly driver: (host: Pick<NodeHost, "nodeName" | "children">) => BlockDriver;
  readonly definition?: Partial<DriverDefinition>;
  readonly generic?: Partial<GenericNodeOptions>;
  readonly children?: Readonly<Record<string, RigChild>>;
}

const GENERIC: GenericNodeOptions = {
  readOnly: false,
  discard: "unmap",
  detectZeroes: "off",
  cacheDirect: false,
  cacheNoFlush: false,
  forceShare: false,
};

/** What `NodeIo` needs of a graph. */
export function stubGraph(env: Env = manualEnv()): Graph {
  return { env, core: { env, drainAllCount: 0 } } as unknown as Graph;
}

/** Builds an open node whose driver and children are given: the request path alone, without a graph. */
export function rigNode(rig: RigNode): BlockNode {
  const name = rig.name ?? "node0";
  const definition: DriverDefinition = {
    driverName: "x-test",
    schema: object({}),
    children: [],
    isFilter: false,
    isProtocol: rig.children === undefined,
    supportsBacking: false,
    open: () => Promise.reject(new Error("not opened")),
    ...rig.definition,
  };
  const node = new BlockNode(stubGraph(rig.env), {
    name,
    definition,
    generic: { ...GENERIC, ...rig.generic },
    autoReadOnly: false,
    driverOptions: {},
    children: new Map(),
    written: {},
  });
  for (const [edgeName, child] of Object.entries(rig.children ?? {})) {
    node.children.set(edgeName, link(node, edgeName, child.role, child.node, child.perm));
  }
  node.driver = rig.driver({ nodeName: name, children: node.children });
  node.state = "open";
  node.refresh();
  return node;
}

/** A node over {@link ReferenceDisk}, which asserts that no invalid request reaches it. */
export function diskNode(
  options: ConstructorParameters<typeof ReferenceDisk>[0],
  rig: Partial<RigNode> = {},
): { readonly node: BlockNode; readonly disk: ReferenceDisk } {
  const disk = new ReferenceDisk(options);
  return { node: rigNode({ driver: () => disk, ...rig }), disk };
}

/** An edge from outside the graph. */
export function rootEdge(
  node: BlockNode,
  perm: Permission = ALL_PERMISSIONS,
  parent: EdgeParent = { kind: "other", describe: () => "the test" },
): Edge {
  return link(parent, "root", 0, node, perm);
}

function link(
  parent: EdgeParent,
  name: string,
  role: RoleMask,
  node: BlockNode,
  perm: Permission = ALL_PERMISSIONS,
): Edge {
  const edge = new Edge(parent, name, role, node, { perm, shared: ALL_PERMISSIONS });
  edge.isAttached = true;
  node.parents.add(edge);
  return edge;
}
