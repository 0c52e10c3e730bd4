export type { ByteReceiver, ByteStream } from "@blocklayer/nbd-protocol";
export type { OpenStream } from "./establish.ts";
export type { NbdExportInfo } from "./export-info.ts";
export { type ListOptions, listExportsOver } from "./list-exports.ts";
export {
  NbdConnection,
  type NbdConnectionOptions,
  type NbdWriteOptions,
  type NbdZeroOptions,
} from "./nbd-connection.ts";
export { type NbdTransports, nbdDefinition } from "./nbd-definition.ts";
export { NbdDriver } from "./nbd-driver.ts";
export {
  type NbdOptions,
  type NbdServerAddress,
  type NbdServerOption,
  nbdOptionsSchema,
  parseNbdFilename,
  serverAddress,
} from "./nbd-options.ts";
export type { NbdListedExport } from "./negotiation.ts";
