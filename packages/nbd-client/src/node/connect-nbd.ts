import { BlockError } from "@blocklayer/errors";
import { type ListOptions, listExportsOver } from "../list-exports.ts";
import { NbdConnection, type NbdConnectionOptions } from "../nbd-connection.ts";
import {
  type NbdServerAddress,
  nbdOptionsSchema,
  parseNbdFilename,
  serverAddress,
} from "../nbd-options.ts";
import type { NbdListedExport } from "../negotiation.ts";
import { connectServer } from "./connect.ts";

/**
 * Connects to the export that a URI names, or to one of a server given by its address.
 *
 * @param target - `nbd://host/export`, `nbd+unix:///export?socket=/path`; or an address, with `options.exportName`
 * @throws BlockError `EINVAL` a bad URI; `ENOTSUP` one with TLS; the code of the operating system; and as
 *   `NbdConnection.open`
 */
export async function connectNbd(
  target: string | NbdServerAddress,
  options: NbdConnectionOptions = {},
): Promise<NbdConnection> {
  const { address, exportName } = place(target);
  return NbdConnection.open((signal) => connectServer(address, { signal }), {
    exportName,
    ...options,
  });
}

/**
 * Lists what a server exports.
 *
 * @param target - a URI, whose export name does not matter, or an address
 * @throws BlockError as {@link connectNbd}; `ENOTSUP` the server keeps no list
 */
export async function listExports(
  target: string | NbdServerAddress,
  options: ListOptions = {},
): Promise<NbdListedExport[]> {
  const { address } = place(target);
  return listExportsOver((signal) => connectServer(address, { signal }), options);
}

function place(target: string | NbdServerAddress): {
  readonly address: NbdServerAddress;
  readonly exportName: string;
} {
  if (typeof target !== "string") return { address: target, exportName: "" };
  const parsed = nbdOptionsSchema.parse(parseNbdFilename(target) ?? {});
  if (!parsed.ok) {
    const message = `invalid NBD URI: neither nbd:// nor nbd+unix://`;
    throw new BlockError("EINVAL", message, { operation: "nbd-uri", value: target });
  }
  return { address: serverAddress(parsed.value), exportName: parsed.value.export };
}
