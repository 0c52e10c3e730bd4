export type { ByteReceiver, ByteStream } from "@blocklayer/nbd-protocol";
export type { ConnectionInfo, ConnectionStage } from "./nbd-connection.ts";
export type {
  ExportBackend,
  NbdExport,
  NbdExportEvents,
  WritableExportBackend,
} from "./nbd-export.ts";
export {
  type ExportOptions,
  NbdServer,
  type NbdServerEvents,
  type NbdServerOptions,
  type RemovalMode,
} from "./nbd-server.ts";
export type { RequestCounts, RequestProbe } from "./request-runner.ts";
export { NBD_SERVER_LIMITS, type NbdServerLimits } from "./server-limits.ts";
