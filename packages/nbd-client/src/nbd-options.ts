import { BlockError } from "@blocklayer/errors";
import { NBD_LIMITS, NBD_PORT, parseNbdUri } from "@blocklayer/nbd-protocol";
import {
  alternate,
  boolean,
  integer,
  object,
  optional,
  type Schema,
  string,
  union,
} from "@blocklayer/schema";

/** Where a server is, as users write it: the reference's `SocketAddress`. */
export type NbdServerOption =
  | {
      readonly type: "inet";
      readonly host: string;
      readonly port: string | number;
      readonly ipv4?: boolean;
      readonly ipv6?: boolean;
      /** Default `true`. Differs: the reference's default is `false`, and a dead peer is then never noticed. */
      readonly "keep-alive"?: boolean;
    }
  | { readonly type: "unix"; readonly path: string; readonly abstract?: boolean }
  | { readonly type: "fd"; readonly str: string }
  | { readonly type: "vsock"; readonly cid: string; readonly port: string | number };

/** Options of the driver `nbd`. */
export interface NbdOptions {
  readonly server?: NbdServerOption;
  /** With `port`, the older way to write a `server` of type `inet`. */
  readonly host?: string;
  readonly port?: string | number;
  /** The older way to write a `server` of type `unix`. */
  readonly path?: string;
  /** Default `""`: the server's default export. */
  readonly export: string;
  /** Seconds that requests wait for a new connection. Default 0: they fail at once. */
  readonly "reconnect-delay": number;
  /** Seconds for which the first connection is tried. Default 0: once. */
  readonly "open-timeout": number;
  readonly "tls-creds"?: string;
  readonly "tls-hostname"?: string;
  readonly "x-dirty-bitmap"?: string;
  /** Requests in flight. Default 64. */
  readonly "x-blocklayer-requests-max": number;
  /** Seconds without any movement after which a connection with requests in flight is given up. Default 0: never. */
  readonly "x-blocklayer-request-timeout": number;
}

/** Where a server is, for a transport. */
export type NbdServerAddress =
  | {
      readonly type: "inet";
      readonly host: string;
      readonly port: number;
      /** 4 or 6 to use only this version of the protocol, 0 for either. */
      readonly family: 0 | 4 | 6;
      /** Whether the operating system probes a connection on which nothing moves. */
      readonly keepAlive: boolean;
    }
  /** A path that begins with NUL is in Linux' abstract namespace. */
  | { readonly type: "unix"; readonly path: string }
  /** A connected socket that the process has open; it can be used once. */
  | { readonly type: "fd"; readonly descriptor: number };

const seconds = (): Schema<number> => integer({ min: 0, max: 2 ** 32 - 1 });
const port = (): Schema<string | number> =>
  alternate("str", integer({ min: 0, max: 2 ** 32 - 1 }), string({ minLength: 1 }));

const server: Schema<NbdServerOption> = union("type", {
  inet: object({
    host: string({ minLength: 1 }),
    port: port(),
    ipv4: optional(boolean()),
    ipv6: optional(boolean()),
    "keep-alive": optional(boolean()),
  }),
  unix: object({ path: string({ minLength: 1 }), abstract: optional(boolean()) }),
  fd: object({ str: string({ minLength: 1 }) }),
  vsock: object({ cid: string({ minLength: 1 }), port: port() }),
});

/** The schema of {@link NbdOptions}. */
export const nbdOptionsSchema: Schema<NbdOptions> = object(
  {
    server: optional(server),
    host: optional(string({ minLength: 1 })),
    port: optional(port()),
    path: optional(string({ minLength: 1 })),
    export: optional(string({ check: checkName }), ""),
    "reconnect-delay": optional(seconds(), 0),
    "open-timeout": optional(seconds(), 0),
    "tls-creds": optional(string()),
    "tls-hostname": optional(string()),
    "x-dirty-bitmap": optional(string()),
    "x-blocklayer-requests-max": optional(integer({ min: 1, max: 1024 }), 64),
    "x-blocklayer-request-timeout": optional(seconds(), 0),
  },
  { check: checkPlace },
);

function checkName(name: string): string | undefined {
  if (name.includes("\0")) return "an export name has no NUL";
  const { length } = new TextEncoder().encode(name);
  return length > NBD_LIMITS.string ? "export name too long to send to server" : undefined;
}

function checkPlace(options: Partial<NbdOptions>): string | undefined {
  const { server: place, host, path, port: portOption } = options;
  const hasLegacy = host !== undefined || path !== undefined || portOption !== undefined;
  if (place !== undefined && hasLegacy) {
    return "Cannot use 'server' and path/host/port at the same time";
  }
  if (host !== undefined && path !== undefined) {
    return "path and host may not be used at the same time";
  }
  if (path !== undefined && portOption !== undefined) return "port may not be used without host";
  if (place === undefined && host === undefined && path === undefined) {
    return "NBD server address missing";
  }
  return undefined;
}

/**
 * Refuses options that this client knows and does not offer.
 *
 * @throws BlockError `ENOTSUP` naming the option
 */
export function refuseUnsupported(options: NbdOptions): void {
  for (const name of ["tls-creds", "tls-hostname"] as const) {
    if (options[name] !== undefined) throw unsupported(name, "TLS is not supported by this client");
  }
  if (options["x-dirty-bitmap"] !== undefined) {
    throw unsupported("x-dirty-bitmap", "Dirty bitmaps of a server can not be read by this client");
  }
}

function unsupported(option: string, message: string): BlockError {
  return new BlockError("ENOTSUP", message, { operation: "open", option });
}

/**
 * Returns where the server is.
 *
 * @throws BlockError `EINVAL` a port or descriptor that is no number; `ENOTSUP` a vsock
 */
export function serverAddress(options: NbdOptions): NbdServerAddress {
  const { server: place, host, path } = options;
  if (place !== undefined) return addressOf(place);
  if (path !== undefined) return { type: "unix", path };
  return addressOf({ type: "inet", host: host ?? "", port: options.port ?? NBD_PORT });
}

function addressOf(place: NbdServerOption): NbdServerAddress {
  switch (place.type) {
    case "inet":
      return {
        type: "inet",
        host: place.host,
        port: numberOf(place.port, 65535, `address resolution failed for ${place.host}`),
        family: familyOf(place),
        keepAlive: place["keep-alive"] !== false,
      };
    case "unix":
      return { type: "unix", path: place.abstract === true ? `\0${place.path}` : place.path };
    case "fd":
      return {
        type: "fd",
        descriptor: numberOf(place.str, 2 ** 31 - 1, "no file descriptor is called"),
      };
    case "vsock":
      throw unsupported("server.type", "vsock is not supported by this client");
  }
}

function familyOf({ ipv4, ipv6 }: { ipv4?: boolean; ipv6?: boolean }): 0 | 4 | 6 {
  if (ipv4 === true && ipv6 !== true) return 4;
  if (ipv6 === true && ipv4 !== true) return 6;
  if (ipv4 === false && ipv6 !== false) return 6;
  return ipv6 === false && ipv4 !== false ? 4 : 0;
}

function numberOf(text: string | number, max: number, complaint: string): number {
  const value = typeof text === "number" ? text : /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value <= max) return value;
  throw new BlockError("EINVAL", `${complaint}:${text}`, { operation: "open", value: text });
}

/**
 * Turns an NBD URI, or the older `nbd:host:port[:exportname=…]`, into options.
 *
 * @returns `undefined` for what is no NBD URI
 * @throws BlockError `EINVAL` malformed, or with parameters that are not known; `ENOTSUP` TLS or vsock
 * @see spec/nbd.md section 11
 */
export function parseNbdFilename(fileName: string): Readonly<Record<string, unknown>> | undefined {
  if (!/^nbds?(?:\+[a-z]+)?:/iu.test(fileName)) return undefined;
  const { transport, host, port: number, socket, exportName, tls, query } = parseNbdUri(fileName);
  const context = { operation: "nbd-uri", value: fileName };
  if (tls) throw new BlockError("ENOTSUP", "TLS is not supported by this client", context);
  if (transport === "vsock") {
    throw new BlockError("ENOTSUP", "vsock is not supported by this client", context);
  }
  const [unknown] = Object.keys(query);
  if (unknown !== undefined) {
    const message = `invalid NBD URI: the parameter ${unknown} is not known`;
    throw new BlockError("EINVAL", message, { ...context, field: "query" });
  }
  const place =
    transport === "unix" ? unixServer(socket) : { type: "inet", host, port: String(number) };
  return { server: place, ...(exportName === "" ? {} : { export: exportName }) };
}

function unixServer(socket: string): Readonly<Record<string, unknown>> {
  return socket.startsWith("\0")
    ? { type: "unix", path: socket.slice(1), abstract: true }
    : { type: "unix", path: socket };
}
