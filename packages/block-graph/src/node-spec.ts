import type { DriverDefinition, GenericNodeOptions } from "@blocklayer/driver";

/** A node's options after parsing, with those of the children that are defined inside it. */
export interface NodeSpec {
  readonly name: string;
  readonly definition: DriverDefinition;
  readonly generic: GenericNodeOptions;
  readonly autoReadOnly: boolean;
  /** The driver's own options. */
  readonly driverOptions: unknown;
  /** Children by edge name: a node to be opened, the name of one, or `null` for explicitly none. */
  readonly children: ReadonlyMap<string, NodeSpec | string | null>;
  /** What the user wrote, children excluded; reopen compares with it. */
  readonly written: Readonly<Record<string, unknown>>;
}
