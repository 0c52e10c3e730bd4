import { BlockError } from "@blocklayer/errors";
import { NBD_PORT } from "./constants.ts";
import { NBD_LIMITS } from "./limits.ts";

/** Where a server is and which export is meant, as an NBD URI says it. */
export interface NbdAddress {
  readonly transport: "tcp" | "unix" | "vsock";
  /** Host name or address (IPv6 without brackets), or the context identifier of a vsock; empty for unix. */
  readonly host: string;
  /** 10809 where the URI names none; 0 for unix. */
  readonly port: number;
  /** Path of the unix socket; empty for the others. A first NUL means Linux' abstract namespace. */
  readonly socket: string;
  /** Empty for the default export. */
  readonly exportName: string;
  /** `true`: the connection fails if TLS can not be had. */
  readonly tls: boolean;
  /** User name for TLS; empty when there is none. */
  readonly user: string;
  /** Every parameter but `socket`, decoded, in order. What a client does not know it must refuse. */
  readonly query: Readonly<Record<string, string>>;
}

const TRANSPORTS: ReadonlyMap<string, NbdAddress["transport"]> = new Map([
  ["", "tcp"],
  ["+tcp", "tcp"],
  ["+unix", "unix"],
  ["+vsock", "vsock"],
]);

/**
 * Returns what an NBD URI says: `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`, `nbds://…` with TLS,
 * `nbd+vsock://cid:port/export`, and the older `nbd:host:port[:exportname=NAME]` and
 * `nbd:unix:PATH[:exportname=NAME]`.
 *
 * The path without its one leading slash is the export name. A user name is taken over, a password refused.
 *
 * @throws BlockError `EINVAL` not such a URI; `context.value` is the URI and `context.field` what is wrong with it
 * @see spec/nbd.md section 11
 */
export function parseNbdUri(uri: string): NbdAddress {
  const match = /^nbd(s?)(\+[a-z]+)?:\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/isu.exec(uri);
  if (match === null) return parseLegacy(uri);
  const [, secure = "", suffix = "", authority = "", path = "", search = "", fragment] = match;
  const transport = TRANSPORTS.get(suffix.toLowerCase());
  if (transport === undefined)
    throw badUri(uri, "scheme", `unknown scheme "nbd${secure}${suffix}"`);
  if (fragment !== undefined) throw badUri(uri, "fragment", "a fragment has no meaning here");
  const { socket, ...query } = parseQuery(uri, search);
  const place =
    transport === "unix"
      ? unixPlace(uri, authority, socket)
      : hostPlace(uri, authority, socket, transport);
  return {
    transport,
    ...place,
    exportName: checkedName(uri, decode(uri, path.replace(/^\//, ""), "export name")),
    tls: secure !== "",
    query,
  };
}

/**
 * Returns the URI of an address, which `parseNbdUri` reads back. The port 10809 is left out.
 *
 * @throws BlockError `EINVAL` a unix transport without a socket, another one without a host, or text that is not
 *   well-formed Unicode
 */
export function formatNbdUri(address: NbdAddress): string {
  const { transport, host, port, socket, exportName, tls, user, query } = address;
  if (transport === "unix" ? socket === "" : host === "") {
    throw badUri("", transport === "unix" ? "socket" : "host", `${transport} needs one`);
  }
  const scheme = `nbd${tls ? "s" : ""}${transport === "tcp" ? "" : `+${transport}`}`;
  const name = host.includes(":") ? `[${host.replaceAll("%", "%25")}]` : encode(host);
  const place = transport === "unix" ? "" : `${name}${port === NBD_PORT ? "" : `:${port}`}`;
  const account = user === "" ? "" : `${encode(user)}@`;
  const parameters = [
    ...(transport === "unix" ? [["socket", socket]] : []),
    ...Object.entries(query),
  ];
  const search = parameters.map(([key = "", value = ""]) => `${encode(key)}=${encode(value)}`);
  const tail = search.length === 0 ? "" : `?${search.join("&")}`;
  return `${scheme}://${account}${place}/${encode(exportName)}${tail}`;
}

type Place = Pick<NbdAddress, "host" | "port" | "socket" | "user">;

function unixPlace(uri: string, authority: string, socket: string | undefined): Place {
  if (socket === undefined || socket === "") {
    throw badUri(uri, "socket", "the parameter socket is missing");
  }
  const { user, rest } = splitUser(uri, authority);
  if (rest !== "") throw badUri(uri, "host", "a unix socket has no host");
  return { host: "", port: 0, socket, user };
}

function hostPlace(
  uri: string,
  authority: string,
  socket: string | undefined,
  transport: string,
): Place {
  if (socket !== undefined) throw badUri(uri, "socket", `${transport} has no socket`);
  const { user, rest } = splitUser(uri, authority);
  const match = /^(?:\[([0-9a-f:.]+(?:%25[^\]]+)?)\]|([^:[\]]*))(?::(\d*))?$/iu.exec(rest);
  if (match === null) throw badUri(uri, "host", `"${rest}" is not a host and port`);
  const [, address, name = "", digits = ""] = match;
  const host = decode(uri, address ?? name, "host");
  if (transport === "vsock" && !/^\d+$/.test(host)) {
    throw badUri(uri, "host", "a vsock host is a number");
  }
  const portMax = transport === "vsock" ? 2 ** 32 - 1 : 65535;
  return { host: checkedHost(uri, host), port: parsePort(uri, digits, portMax), socket: "", user };
}

function checkedHost(uri: string, host: string): string {
  if (host === "" || host.includes("\0")) throw badUri(uri, "host", "the host is missing");
  return host;
}

function splitUser(uri: string, authority: string): { user: string; rest: string } {
  const at = authority.lastIndexOf("@");
  if (at < 0) return { user: "", rest: authority };
  const user = authority.slice(0, at);
  if (user.includes(":")) throw badUri(uri, "user", "a password has no meaning here");
  return { user: decode(uri, user, "user"), rest: authority.slice(at + 1) };
}

function parsePort(uri: string, digits: string, portMax: number): number {
  if (digits === "") return NBD_PORT;
  const port = Number(digits);
  if (port < 1 || port > portMax)
    throw badUri(uri, "port", `port ${digits} is not 1 to ${portMax}`);
  return port;
}

function parseQuery(uri: string, search: string): Record<string, string> & { socket?: string } {
  const pairs = new Map<string, string>();
  for (const part of search.split(/[&;]/u)) {
    if (part === "") continue;
    const equals = part.indexOf("=");
    const key = decode(uri, equals < 0 ? part : part.slice(0, equals), "query");
    const value = equals < 0 ? "" : decode(uri, part.slice(equals + 1), "query");
    if (pairs.has(key)) throw badUri(uri, "query", `the parameter ${key} is given twice`);
    pairs.set(key, value);
  }
  // `fromEntries` defines properties, so a parameter called "__proto__" is one like any other.
  return Object.fromEntries(pairs);
}

function parseLegacy(uri: string): NbdAddress {
  const match =
    /^nbd:(?!\/\/)(?:unix:([^:]+)|(\[[^\]]+\]|[^:[\]]+):(\d+))(?::exportname=(.*))?$/su.exec(uri);
  if (match === null)
    throw badUri(uri, "scheme", "neither nbd://, nbds:// nor nbd: with an address");
  const [, socket = "", bracketed = "", digits = "", name = ""] = match;
  const isUnix = socket !== "";
  return {
    transport: isUnix ? "unix" : "tcp",
    host: bracketed.replace(/^\[(.*)\]$/, "$1"),
    port: isUnix ? 0 : parsePort(uri, digits, 65535),
    socket,
    exportName: checkedName(uri, name),
    tls: false,
    user: "",
    query: {},
  };
}

const encoder = new TextEncoder();

function checkedName(uri: string, name: string): string {
  const { length } = encoder.encode(name);
  if (name.includes("\0")) throw badUri(uri, "export name", "an export name has no NUL");
  if (length > NBD_LIMITS.string) {
    throw badUri(uri, "export name", `${length} bytes of name are more than ${NBD_LIMITS.string}`);
  }
  return name;
}

function decode(uri: string, text: string, field: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw badUri(uri, field, `bad percent encoding in the ${field}`, cause);
  }
}

function encode(text: string): string {
  if (!text.isWellFormed()) throw badUri(text, "text", "not well-formed Unicode");
  return encodeURIComponent(text);
}

function badUri(uri: string, field: string, reason: string, cause?: unknown): BlockError {
  const context = { operation: "nbd-uri", field, value: uri };
  return new BlockError("EINVAL", `invalid NBD URI: ${reason}`, context, { cause });
}
