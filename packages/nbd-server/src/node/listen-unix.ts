import { chmod, lstat, mkdtemp, rename, rm, rmdir, unlink } from "node:fs/promises";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { BlockError } from "@blocklayer/errors";
import type { NbdServer } from "../nbd-server.ts";
import { listen, type NbdListener, uriOf } from "./listener.ts";
import { SocketStream } from "./socket-stream.ts";

export interface UnixListenerOptions {
  readonly server: NbdServer;
  /**
   * Where the socket is to be. Its directory must exist, and says who may connect. Default: a new directory that only
   * this user may enter.
   */
  readonly path?: string;
}

export interface UnixListener extends NbdListener {
  /** The socket. */
  readonly path: string;
}

/** Longest path of a socket on every system, bytes. */
const PATH_MAX = 103;
/** What the first place of a socket adds to the path of its directory, bytes: `/.nbd-XXXXXX/s`. */
const FIRST_PLACE = 14;

/**
 * Lets clients of this machine connect.
 *
 * The socket is made in a new directory of mode 0700, and only then moved to its place, with mode 0600: there is no
 * moment at which others could connect. It is removed at close, with the directory if that was made here.
 *
 * @throws BlockError `EADDRINUSE` something is there that is not a dead socket; `EINVAL` the path is too long; or with
 *   the operating system's code
 * @see docs/reliability.md section 3.6.1
 */
export async function listenUnix(options: UnixListenerOptions): Promise<UnixListener> {
  const target = options.path === undefined ? undefined : resolve(options.path);
  const parent = target === undefined ? tmpdir() : dirname(target);
  if (target !== undefined) await checkFree(target);
  const directory = await makePrivate(join(parent, ".nbd-"));
  const net = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    options.server.accept(new SocketStream(socket, "unix"));
  });
  try {
    const path = await place(net, join(directory, target === undefined ? "nbd.sock" : "s"), target);
    if (target !== undefined) await rmdir(directory);
    return new OpenUnixListener(net, path, target === undefined ? directory : undefined);
  } catch (error) {
    net.close();
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

async function place(net: Server, first: string, target: string | undefined): Promise<string> {
  if (target !== undefined) checkPathLength(target, target);
  checkPathLength(first, target ?? first);
  await listen(net, { path: first }, first);
  await chmod(first, 0o600);
  if (target === undefined) return first;
  await rename(first, target);
  return target;
}

class OpenUnixListener implements UnixListener {
  readonly path: string;
  readonly #net: Server;
  readonly #directory: string | undefined;
  #closing: Promise<void> | undefined;

  constructor(net: Server, path: string, directory: string | undefined) {
    this.#net = net;
    this.#directory = directory;
    this.path = path;
  }

  uri(exportName: string = ""): string {
    return uriOf({ transport: "unix", host: "", port: 0, socket: this.path }, exportName);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#net.close();
    if (this.#directory === undefined) await unlink(this.path).catch(ignoreMissing);
    else await rm(this.#directory, { recursive: true, force: true });
  }
}

async function makePrivate(prefix: string): Promise<string> {
  try {
    return await mkdtemp(prefix);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new BlockError(
      code ?? "EIO",
      `Failed to make a directory for the socket in ${dirname(prefix)}: ${message}`,
      { operation: "listen", address: prefix },
      { cause: error },
    );
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}

/** @param asked - the path that the caller knows; it is first bound at a slightly longer one */
function checkPathLength(path: string, asked: string): void {
  const length = Buffer.byteLength(path);
  if (length <= PATH_MAX) return;
  throw new BlockError(
    "EINVAL",
    `UNIX socket path '${asked}' is too long`,
    { operation: "listen", address: asked, value: length, limit: PATH_MAX },
    path === asked
      ? {}
      : {
          hint: `the directory may have ${PATH_MAX - FIRST_PLACE} bytes: the socket is made in a new one inside it`,
        },
  );
}

/** Lets a socket be replaced that a dead server has left, and nothing else. */
async function checkFree(path: string): Promise<void> {
  const found = await lstat(path).catch(ignoreMissing);
  if (found === undefined || (found.isSocket() && !(await isAlive(path)))) return;
  throw new BlockError("EADDRINUSE", `Failed to bind socket to ${path}: Address already in use`, {
    operation: "listen",
    address: path,
    name: basename(path),
  });
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((settle) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      settle(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => settle(error.code !== "ECONNREFUSED"));
  });
}
