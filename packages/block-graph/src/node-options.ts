import type { DriverDefinition } from "@blocklayer/driver";

/**
 * Options that every node has, as users write them.
 *
 * @see spec/graph.md section 1
 */
export interface GenericOptions {
  /** Letter first, then letters, digits, `-._`; at most 31. Generated when absent. */
  readonly "node-name"?: string;
  /** Default `false`. */
  readonly "read-only"?: boolean;
  /** Open read-only if the driver cannot write. Default `false`. */
  readonly "auto-read-only"?: boolean;
  /** Whether discards reach the driver. Default `"ignore"`, for children defined inline `"unmap"`. */
  readonly discard?: "ignore" | "unmap" | "off" | "on";
  /** Turns zeroes that are written into write-zeroes. `"unmap"` needs `discard: "unmap"`. Default `"off"`. */
  readonly "detect-zeroes"?: "off" | "on" | "unmap";
  readonly cache?: {
    /** Bypass the host's page cache. Default `false`. */
    readonly direct?: boolean;
    /** Ignore flushes to disk. Default `false`. */
    readonly "no-flush"?: boolean;
  };
  /** Tolerate every other user of the node. Needs `read-only`. Default `false`. */
  readonly "force-share"?: boolean;
}

/** Options of a node whose driver is known at run time only. */
export interface UntypedNodeOptions extends GenericOptions {
  readonly driver: string;
  readonly [option: string]: unknown;
}

/** A child in a node's options: the name of a node, the options of one to be opened, or `null` for none. */
export type ChildOption<Drivers extends readonly DriverDefinition[]> =
  | string
  | NodeOptions<Drivers>
  | null;

/**
 * Options of a node, typed by the drivers that a graph was given: the driver's name decides which options and
 * which children there are, all the way down.
 */
export type NodeOptions<Drivers extends readonly DriverDefinition[]> =
  string extends Drivers[number]["driverName"]
    ? UntypedNodeOptions
    : NodeOptionsOf<Drivers[number], Drivers>;

type NodeOptionsOf<Definition, Drivers extends readonly DriverDefinition[]> =
  Definition extends DriverDefinition<infer Name, infer Options, infer Children>
    ? GenericOptions & { readonly driver: Name } & Partial<Options> & {
          readonly [Child in Children]?: ChildOption<Drivers>;
        }
    : never;

/** Full options of a node that exists, for a reopen. */
export type ReopenOptions<Drivers extends readonly DriverDefinition[]> = NodeOptions<Drivers> & {
  readonly "node-name": string;
};
