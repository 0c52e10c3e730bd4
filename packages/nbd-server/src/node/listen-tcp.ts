import {
  type AddressInfo,
  BlockList,
  createServer,
  isIP,
  type Server,
  type Socket,
} from "node:net";
import { BlockError } from "@blocklayer/errors";
import { NBD_PORT } from "@blocklayer/nbd-protocol";
import type { NbdServer } from "../nbd-server.ts";
import { listen, type NbdListener, uriOf } from "./listener.ts";
import { SocketStream } from "./socket-stream.ts";

export interface TcpListenerOptions {
  readonly server: NbdServer;
  /** An address of this machine's loopback, or `localhost`. Default `127.0.0.1`. */
  readonly host?: string;
  /** 0 lets the system choose. Default 10809. */
  readonly port?: number;
  /**
   * Must be `true`: whoever can open a connection to this machine's loopback can read the disks, and there is neither
   * secrecy nor a login.
   */
  readonly insecureLoopback: boolean;
}

export interface TcpListener extends NbdListener {
  readonly host: string;
  readonly port: number;
}

/**
 * Lets programs of this machine connect by TCP, without TLS.
 *
 * @throws BlockError `EPERM` without the flag, or for an address that others could reach; or with the operating
 *   system's code
 * @see docs/reliability.md section 3.6.1
 */
export async function listenTcp(options: TcpListenerOptions): Promise<TcpListener> {
  const { server, host = "127.0.0.1", port = NBD_PORT } = options;
  const address = host === "localhost" ? "127.0.0.1" : host;
  checkAllowed(address, options.insecureLoopback);
  const net = createServer({ pauseOnConnect: true, allowHalfOpen: true, noDelay: true }, (socket) =>
    accept(server, socket),
  );
  await listen(net, { host: address, port }, `${address}:${port}`);
  return new OpenTcpListener(net, address);
}

function accept(server: NbdServer, socket: Socket): void {
  const { remoteAddress = "unknown", remotePort = 0 } = socket;
  const shown = remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress;
  server.accept(new SocketStream(socket, `${shown}:${remotePort}`, remoteAddress));
}

class OpenTcpListener implements TcpListener {
  readonly host: string;
  readonly port: number;
  readonly #net: Server;

  constructor(net: Server, host: string) {
    this.#net = net;
    this.host = host;
    this.port = (net.address() as AddressInfo).port;
  }

  uri(exportName: string = ""): string {
    const { host, port } = this;
    return uriOf({ transport: "tcp", host, port, socket: "" }, exportName);
  }

  close(): Promise<void> {
    this.#net.close();
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function checkAllowed(host: string, isAllowed: boolean): void {
  const context = { operation: "listen", address: host };
  if (!isAllowed) {
    throw new BlockError("EPERM", "listening by TCP without TLS is refused", context, {
      hint: "Use a unix socket, or set insecureLoopback for a connection within this machine",
    });
  }
  if (isLoopback(host)) return;
  throw new BlockError("EPERM", `listening at ${host} without TLS is refused`, context, {
    hint: "Use an address of the loopback",
  });
}

/** Compares addresses as numbers: as text, one that only looks like the loopback could pass. */
function isLoopback(host: string): boolean {
  const family = isIP(host);
  if (family === 0) return false;
  const loopback = new BlockList();
  loopback.addSubnet("127.0.0.0", 8, "ipv4");
  loopback.addAddress("::1", "ipv6");
  return loopback.check(host, family === 6 ? "ipv6" : "ipv4");
}
