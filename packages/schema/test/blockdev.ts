import {
  alternate,
  array,
  boolean,
  enumeration,
  integer,
  lazy,
  type MembersSchema,
  nullable,
  object,
  optional,
  type Schema,
  size,
  string,
  union,
} from "@blocklayer/schema";

/** Options of some drivers, described as the reference describes them. */
export type BlockdevOptions = {
  readonly "node-name"?: string;
  readonly "read-only": boolean;
  readonly cache?: { readonly direct?: boolean; readonly "no-flush"?: boolean };
} & (
  | { readonly driver: "null-co"; readonly size?: number; readonly "read-zeroes"?: boolean }
  | { readonly driver: "file"; readonly filename: string; readonly locking: "auto" | "on" | "off" }
  | { readonly driver: "raw"; readonly file: BlockdevRef; readonly size?: number }
  | { readonly driver: "qcow2"; readonly file: BlockdevRef; readonly backing?: BlockdevRef | null }
  | {
      readonly driver: "quorum";
      readonly children: readonly BlockdevRef[];
      readonly "vote-threshold": number;
    }
  | { readonly driver: "nbd"; readonly server: SocketAddress }
);
export type BlockdevRef = string | BlockdevOptions;
export type SocketAddress =
  | { readonly type: "inet"; readonly host: string; readonly port: string; readonly to?: number }
  | { readonly type: "unix"; readonly path: string };

export const socketAddress: MembersSchema<SocketAddress> = union("type", {
  inet: object({
    host: string(),
    port: string(),
    to: optional(integer({ min: 0, max: 65535 })),
  }),
  unix: object({ path: string() }),
});

export const blockdevRef: Schema<BlockdevRef> = alternate(
  "BlockdevRef",
  lazy(() => blockdevOptions),
  string(),
);

export const blockdevOptions: MembersSchema<BlockdevOptions> = union(
  "driver",
  {
    "null-co": object({ size: optional(size()), "read-zeroes": optional(boolean()) }),
    file: object({
      filename: string(),
      locking: optional(enumeration("auto", "on", "off"), "auto"),
    }),
    raw: object({ file: blockdevRef, size: optional(size()) }),
    qcow2: object({ file: blockdevRef, backing: optional(nullable(blockdevRef)) }),
    quorum: object({ children: array(blockdevRef), "vote-threshold": integer() }),
    nbd: object({ server: socketAddress }),
  },
  {
    base: {
      "node-name": optional(
        string({
          check: (name) =>
            /^[a-z][a-z0-9._-]*$/i.test(name) ? undefined : `Invalid node-name: '${name}'`,
        }),
      ),
      "read-only": optional(boolean(), false),
      cache: optional(object({ direct: optional(boolean()), "no-flush": optional(boolean()) })),
    },
  },
);
