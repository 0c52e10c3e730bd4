import { type DriverDefinition, defineDriver, type NodeHost } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import type { ByteStream } from "@blocklayer/nbd-protocol";
import { NbdDriver, readOnlyError } from "./nbd-driver.ts";
import {
  type NbdOptions,
  type NbdServerAddress,
  nbdOptionsSchema,
  parseNbdFilename,
  refuseUnsupported,
  serverAddress,
} from "./nbd-options.ts";
import { NbdSession } from "./nbd-session.ts";

/** How a driver reaches servers. */
export interface NbdTransports {
  /**
   * Opens a stream to a server. Called for every connection, also for those that replace a lost one.
   *
   * @param options - the signal aborts when the stream is not wanted any more
   * @throws BlockError whatever keeps it from connecting; `ENOTSUP` a kind of address that it does not know
   */
  connect(
    address: NbdServerAddress,
    options: { readonly signal: AbortSignal },
  ): Promise<ByteStream>;
}

/** Returns the definition of the driver `nbd` over given transports. The entry `./node` has one for sockets. */
export function nbdDefinition(
  transports: NbdTransports,
): DriverDefinition<"nbd", NbdOptions, never> {
  return defineDriver({
    driverName: "nbd",
    schema: nbdOptionsSchema,
    children: [],
    isFilter: false,
    isProtocol: true,
    supportsBacking: false,
    open: (host, options, env) => openNbd(transports, host, options, env),
    parseFilename: parseNbdFilename,
    reopenable: ["reconnect-delay"],
  });
}

async function openNbd(
  transports: NbdTransports,
  host: NodeHost,
  options: NbdOptions,
  env: Env,
): Promise<NbdDriver> {
  refuseUnsupported(options);
  const address = serverAddress(options);
  const session = await NbdSession.open({
    open: (signal) => transports.connect(address, { signal }),
    exportName: options.export,
    env,
    nodeName: host.nodeName,
    reconnectDelayMs: options["reconnect-delay"] * 1000,
    openTimeoutMs: options["open-timeout"] * 1000,
    requestsMax: options["x-blocklayer-requests-max"],
    requestTimeoutMs: options["x-blocklayer-request-timeout"] * 1000,
  });
  try {
    return adopt(host, session);
  } catch (error) {
    await session.close();
    throw error;
  }
}

function adopt(host: NodeHost, session: NbdSession): NbdDriver {
  const { info } = session;
  if (info.isReadOnly && !host.options.readOnly) {
    if (!host.autoReadOnly) throw readOnlyError(host.nodeName, info.exportName);
    host.becomeReadOnly("the NBD server exports it read-only");
  }
  const driver = new NbdDriver(host, session);
  if (driver.size !== info.size) {
    host.warn(
      `the last ${info.size - driver.size} bytes of the export are less than the server's minimum block of ${driver.limits.requestAlignment} and out of reach`,
    );
  }
  return driver;
}
