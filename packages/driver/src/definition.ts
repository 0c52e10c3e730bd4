import type { Env } from "@blocklayer/env";
import type { Schema } from "@blocklayer/schema";
import type { BlockChild } from "./child.ts";
import type { BlockDriver } from "./driver.ts";
import type { NodeHost } from "./host.ts";
import type { AmendProgress } from "./image.ts";
import type { RoleMask } from "./role.ts";

/** A child in a node's options: the name of an existing node, or the options of one to be opened. */
export type NodeReference<NodeOptions = Readonly<Record<string, unknown>>> = string | NodeOptions;

/** A child that a driver takes. */
export interface ChildSpec {
  readonly name: string;
  /** Its role, or how it follows from the driver's options. */
  readonly role: RoleMask | ((options: never) => RoleMask);
  readonly required: boolean;
}

/** What `create` gets. */
export interface CreateContext {
  readonly env: Env;
  /** The file to write the format into, for formats; opened writable and resizable. */
  readonly file?: BlockChild;
  /** A second file for the data alone, for formats that keep it apart; opened like `file`. */
  readonly dataFile?: BlockChild;
  readonly progress?: AmendProgress;
  readonly signal?: AbortSignal;
}

export interface MeasureResult {
  /** Bytes that an image of this content needs. */
  readonly required: number;
  /** Bytes when every cluster is allocated. */
  readonly fullyAllocated: number;
  /** Bytes for the bitmaps of the source. */
  readonly bitmaps?: number;
}

/**
 * What a graph registers: a driver's name, its options, its children, and how to open it. Drivers are used
 * through a graph.
 *
 * `Options` are the driver's own options after parsing; `driver`, `node-name`, the generic node options and the
 * children are the graph's and not in it.
 */
export interface DriverDefinition<
  Name extends string = string,
  Options = unknown,
  Children extends string = string,
> {
  readonly driverName: Name;
  /** Other names that users may write. */
  readonly aliases?: readonly string[];
  /** The driver's own options, an object schema without the children. */
  readonly schema: Schema<Options>;
  readonly children: readonly (ChildSpec & { readonly name: Children })[];
  /** Shows the data of exactly one filtered child. */
  readonly isFilter: boolean;
  /** Has no child to store data in: a file, a device, RAM, a remote export. */
  readonly isProtocol: boolean;
  /** Takes a `backing` child. */
  readonly supportsBacking: boolean;
  /**
   * Opens the node. The options were parsed; the children are opened by `host.openChild` from here. A failure
   * leaves nothing open: the graph detaches and closes children that were opened.
   */
  open(host: NodeHost, options: Options, env: Env): Promise<BlockDriver>;
  /** Makes an image. The options are of the driver's own create schema. */
  create?(options: unknown, context: CreateContext): Promise<void>;
  readonly createSchema?: Schema<unknown>;
  measure?(options: unknown, source: BlockChild | undefined): Promise<MeasureResult>;
  /**
   * Says how sure it is that an image with these first bytes is of this format: 0 (not at all) to 100.
   * `raw` says 1 to everything.
   */
  probe?(firstBytes: Uint8Array, fileName?: string): number;
  /** Turns a file name or URL of this driver's kind into options, `undefined` if it is none. */
  parseFilename?(fileName: string): Readonly<Record<string, unknown>> | undefined;
  readonly amendSchema?: Schema<unknown>;
  /** Options that a reopen may change; a change of any other is refused. */
  readonly reopenable?: readonly string[];
}

/** The driver's own options of a definition. */
export type OptionsOf<Definition> =
  Definition extends DriverDefinition<string, infer Options> ? Options : never;

/** Returns the definition, with its name, options and children kept as literal types. */
export function defineDriver<
  const Name extends string,
  Options,
  const Children extends string = never,
>(
  definition: DriverDefinition<Name, Options, Children>,
): DriverDefinition<Name, Options, Children> {
  return definition;
}
