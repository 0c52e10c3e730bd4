import type { DriverDefinition } from "@blocklayer/driver";
import { nbdDefinition } from "../nbd-definition.ts";
import type { NbdOptions } from "../nbd-options.ts";
import { connectServer } from "./connect.ts";

export { connectServer } from "./connect.ts";
export { connectNbd, listExports } from "./connect-nbd.ts";

/** The driver `nbd` over TCP, unix sockets and descriptors. */
export const nbd: DriverDefinition<"nbd", NbdOptions, never> = nbdDefinition({
  connect: connectServer,
});
