import { fstatSync } from "node:fs";
import type { SocketConnectOpts } from "node:net";
import { BlockError, textOfErrno } from "@blocklayer/errors";
import type { ByteStream } from "@blocklayer/nbd-protocol";
import type { NbdServerAddress } from "../nbd-options.ts";
import { SocketStream } from "./socket-stream.ts";

/**
 * Connects to a server: TCP without delay and with keep-alive, a unix socket, or a connected socket of this process.
 *
 * @throws BlockError with the code of the operating system: `ECONNREFUSED`, `ENOENT`, `EACCES`, …; `EINVAL` the
 *   descriptor is not a socket; the signal's reason
 */
export function connectServer(
  address: NbdServerAddress,
  options: { readonly signal?: AbortSignal } = {},
): Promise<ByteStream> {
  if (options.signal?.aborted === true) return Promise.reject(options.signal.reason);
  switch (address.type) {
    case "inet":
      return connected(
        nameOf(address),
        {
          host: address.host,
          port: address.port,
          family: address.family,
        },
        options.signal,
      ).then((stream) => stream.keepAlive(address.keepAlive));
    case "unix":
      return connected(nameOf(address), { path: address.path }, options.signal);
    case "fd":
      return Promise.resolve().then(() => adopted(address.descriptor));
  }
}

/** Names an address for people. */
function nameOf(address: NbdServerAddress): string {
  if (address.type === "inet") return `${address.host}:${address.port}`;
  return address.type === "unix" ? address.path.replace("\0", "@") : `fd ${address.descriptor}`;
}

function connected(
  peer: string,
  where: SocketConnectOpts,
  signal: AbortSignal | undefined,
): Promise<SocketStream> {
  const stream = new SocketStream(peer);
  const { socket } = stream;
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      socket.destroy();
      reject(signal?.reason);
    };
    const fail = (error: NodeJS.ErrnoException): void => {
      signal?.removeEventListener("abort", abort);
      reject(connectError(peer, error));
    };
    signal?.addEventListener("abort", abort, { once: true });
    socket.once("error", fail);
    socket.connect(where, () => {
      signal?.removeEventListener("abort", abort);
      socket.removeListener("error", fail);
      socket.setNoDelay(true);
      resolve(stream);
    });
  });
}

function connectError(peer: string, error: NodeJS.ErrnoException): BlockError {
  const code = error.code !== undefined && /^E[A-Z0-9]+$/.test(error.code) ? error.code : "EIO";
  const text = textOfErrno(code);
  return new BlockError(
    code,
    `Failed to connect to '${peer}': ${text === code ? error.message : text}`,
    { operation: "connect", peer },
    { cause: error },
  );
}

function adopted(descriptor: number): ByteStream {
  const context = { operation: "connect", descriptor };
  const message = `File descriptor '${descriptor}' is not a socket`;
  try {
    if (fstatSync(descriptor).isSocket()) return new SocketStream(`fd ${descriptor}`, descriptor);
  } catch (cause) {
    throw new BlockError("EINVAL", message, context, { cause });
  }
  throw new BlockError("EINVAL", message, context);
}
