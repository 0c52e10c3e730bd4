import type { Server } from "node:net";
import { BlockError } from "@blocklayer/errors";
import { formatNbdUri, type NbdAddress } from "@blocklayer/nbd-protocol";

/** A place where clients connect. */
export interface NbdListener extends AsyncDisposable {
  /** Returns how clients name an export: `nbd+unix:///disk0?socket=/run/…`. Default: the default export. */
  uri(exportName?: string): string;
  /** Lets nobody in any more. Clients that are connected stay, until the server is stopped. */
  close(): Promise<void>;
}

/** Begins to listen. @throws BlockError with the operating system's code, `EADDRINUSE` for example */
export async function listen(server: Server, where: object, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      const context = { operation: "listen", address: text };
      const message = `Failed to listen at ${text}: ${error.message}`;
      reject(new BlockError(error.code ?? "EIO", message, context, { cause: error }));
    };
    server.once("error", failed);
    server.listen(where, () => {
      server.off("error", failed);
      resolve();
    });
  });
  server.on("error", survive);
}

/** A client that could not be accepted, for want of descriptors say, is that client's loss and must not end the process. */
function survive(): void {
  // The next one may come through.
}

/** Returns the URI of an export at a place. */
export function uriOf(
  place: Pick<NbdAddress, "transport" | "host" | "port" | "socket">,
  exportName: string,
): string {
  return formatNbdUri({ ...place, exportName, tls: false, user: "", query: {} });
}
