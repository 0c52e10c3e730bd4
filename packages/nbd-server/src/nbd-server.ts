import type { BlockNode } from "@blocklayer/block-graph";
import type { PermissionName } from "@blocklayer/driver";
import type { Env } from "@blocklayer/env";
import { BlockError, Emitter } from "@blocklayer/errors";
import { type ByteStream, NBD_LIMITS } from "@blocklayer/nbd-protocol";
import { BufferBudget } from "./buffer-budget.ts";
import { BufferPool } from "./buffer-pool.ts";
import { type ConnectionInfo, NbdConnection } from "./nbd-connection.ts";
import { type ExportBackend, NbdExport } from "./nbd-export.ts";
import type { ExportDirectory } from "./negotiation.ts";
import type { RequestProbe } from "./request-runner.ts";
import { checkPayload, NBD_SERVER_LIMITS, type NbdServerLimits } from "./server-limits.ts";

export interface NbdServerOptions {
  readonly env: Env;
  /** Some of the limits, instead of {@link NBD_SERVER_LIMITS}. */
  readonly limits?: Partial<NbdServerLimits>;
  /** Whether clients may list the exports. Default `true`. */
  readonly listExports?: boolean;
  /** Name of the export that a client gets who names none. Default: only an export whose name is `""`. */
  readonly defaultExport?: string;
  /** Watches every request of every client. Default: none, which costs nothing. */
  readonly probe?: RequestProbe;
}

/** What to export, and how. */
export interface ExportOptions {
  /** Default: the name of the node. */
  readonly name?: string;
  /** The disk; the server opens a backend of its own at it. */
  readonly node?: BlockNode;
  /** Instead of `node`: a backend, which the export closes when it is removed. Needs a `name`. */
  readonly backend?: ExportBackend;
  /** A sentence for people. */
  readonly description?: string;
  /** Default `false`. */
  readonly writable?: boolean;
  /** Whether clients are told that they may use several connections. Default `true`: they share one backend. */
  readonly multiConnection?: boolean;
}

export interface NbdServerEvents {
  /** A client was let in, and has chosen nothing yet. */
  accepted: ConnectionInfo;
  /** A client was sent away because of a limit, or because the server stops. */
  refused: { readonly peer: string; readonly reason: string };
  /** A connection is cut because of what its client did or did not do, or because of a defect of ours. */
  failed: { readonly connection: ConnectionInfo; readonly error: unknown };
  /** A connection is gone, and its last request has ended. */
  closed: ConnectionInfo;
}

/** How an export with clients is removed. */
export type RemovalMode = "safe" | "hard";

/** Bytes of buffers that are kept for later while there are connections. */
const RETAINED = 64 * 1024 * 1024;

/**
 * Exports disks to clients over any byte stream.
 *
 * It opens no socket; `accept` takes one stream per client. Whatever a client sends, only its own connection ends, and
 * what it can take of memory and time is limited.
 *
 * @see spec/nbd.md; docs/reliability.md section 3.6.3
 */
export class NbdServer {
  readonly events: Emitter<NbdServerEvents> = new Emitter();
  readonly limits: NbdServerLimits;
  readonly #env: Env;
  readonly #pool: BufferPool;
  readonly #budget: BufferBudget;
  readonly #directory: ExportDirectory;
  readonly #probe: RequestProbe | undefined;
  readonly #exports = new Map<string, NbdExport>();
  /** Names of exports that are being added or removed. */
  readonly #reserved = new Set<string>();
  readonly #removals = new Set<Promise<void>>();
  readonly #connections = new Map<number, NbdConnection>();
  #lastId: number = 0;
  #stopping: Promise<void> | undefined;

  /** @throws RangeError `limits.payload` is below 512: no block size could be announced */
  constructor(options: NbdServerOptions) {
    this.#env = options.env;
    this.#pool = new BufferPool(RETAINED, options.env);
    this.#probe = options.probe;
    this.limits = { ...NBD_SERVER_LIMITS, ...options.limits };
    checkPayload(this.limits.payload);
    this.#budget = new BufferBudget({
      total: this.limits.bufferBytes,
      perAccount: this.limits.requestBytes,
      accounts: this.limits.connections,
    });
    const { listExports = true, defaultExport = "" } = options;
    this.#directory = {
      find: (name) => this.#exports.get(name === "" ? defaultExport : name),
      list: () => (listExports ? this.exports : undefined),
    };
  }

  /** The exports, in the order in which they were added. */
  get exports(): readonly NbdExport[] {
    return [...this.#exports.values()];
  }

  /** The connections, oldest first, those included whose last requests have not ended. */
  get connections(): readonly ConnectionInfo[] {
    return [...this.#connections.values()].map((connection) => connection.info);
  }

  /** Bytes of memory that the requests of all clients hold. */
  get heldBytes(): number {
    return this.#budget.used;
  }

  /**
   * Exports a disk.
   *
   * Takes the permissions consistent-read and, if writable, write; never lets others resize.
   *
   * @throws BlockError `EEXIST` there is an export of this name; `EINVAL` a name or description of over 4096 bytes;
   *   `ESHUTDOWN` the server was stopped; what the graph says about the permissions
   */
  async addExport(options: ExportOptions): Promise<NbdExport> {
    const name = options.name ?? options.node?.name;
    if (name === undefined) throw new TypeError("an export of a backend needs a name");
    this.#checkNew(name, options.description);
    this.#reserved.add(name);
    try {
      const backend = options.backend ?? (await openBackend(options));
      try {
        return this.#register(name, backend, options);
      } catch (error) {
        if (backend !== options.backend) await backend.close();
        throw error;
      }
    } finally {
      this.#reserved.delete(name);
    }
  }

  /**
   * Takes an export away and gives its disk back.
   *
   * @param mode - `"safe"` refuses while clients use it; `"hard"` cuts them
   * @throws BlockError `ENOENT` there is none of this name; `EBUSY` clients use it
   */
  async removeExport(name: string, mode: RemovalMode = "safe"): Promise<void> {
    const removed = this.#exports.get(name);
    if (removed === undefined) {
      throw new BlockError("ENOENT", `Export '${name}' is not found`, { operation: "nbd" });
    }
    if (mode === "safe" && removed.connections.length > 0) {
      throw new BlockError(
        "EBUSY",
        `export '${name}' still in use`,
        { operation: "nbd", export: name, connections: removed.connections.length },
        { hint: "Use mode='hard' to force client disconnect" },
      );
    }
    this.#exports.delete(name);
    this.#reserved.add(name);
    const removal = removed.remove();
    this.#removals.add(removal);
    try {
      await removal;
    } finally {
      this.#removals.delete(removal);
      this.#reserved.delete(name);
    }
  }

  /** Serves a client, or sends it away because of a limit. */
  accept(stream: ByteStream): void {
    const reason = this.#reasonToRefuse(stream);
    if (reason !== undefined) {
      stream.destroy();
      this.events.emit("refused", { peer: stream.peer, reason });
      return;
    }
    this.#lastId += 1;
    const connection = new NbdConnection({
      id: this.#lastId,
      stream,
      env: this.#env,
      limits: this.limits,
      pool: this.#pool,
      budget: this.#budget,
      exports: this.#directory,
      probe: this.#probe,
      finished: (gone) => this.#forget(gone),
      failed: (at, error) => this.events.emit("failed", { connection: at.info, error }),
    });
    this.#connections.set(connection.id, connection);
    connection.start();
    this.events.emit("accepted", connection.info);
  }

  /** Cuts one connection. @returns whether there was one; when its last request has ended */
  async disconnect(id: number): Promise<boolean> {
    const connection = this.#connections.get(id);
    await connection?.cut();
    return connection !== undefined;
  }

  /**
   * Ends everything: no client is let in any more, clients that have chosen no export are cut, requests in flight end
   * and are answered, later ones are answered `ESHUTDOWN`; then all exports are removed.
   *
   * @param graceMs - milliseconds after which the clients that are left are cut. Their requests in flight still end
   *   before this resolves. Default 10 s.
   * @throws the first error of the disks that could not be given back; all others were
   */
  stop(graceMs: number = 10_000): Promise<void> {
    this.#stopping ??= this.#stop(graceMs);
    return this.#stopping;
  }

  async #stop(graceMs: number): Promise<void> {
    const connections = [...this.#connections.values()];
    const ends = Promise.all(connections.map((connection) => connection.stop()));
    const grace = new AbortController();
    const isOver = this.#env.clock.sleep(graceMs, grace.signal).catch((error: unknown) => {
      // Everybody was gone in time.
      if (!grace.signal.aborted) throw error;
    });
    await Promise.race([ends, isOver]);
    grace.abort();
    const cuts = connections.map((connection) => connection.cut());
    // Closing a disk ends even the requests that wait in a drained section, and with them the connections.
    for (const name of [...this.#exports.keys()]) void this.removeExport(name, "hard").catch(told);
    const results = await Promise.allSettled([...this.#removals]);
    await Promise.all(cuts);
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  #reasonToRefuse({ address }: ByteStream): string | undefined {
    const { connections, connectionsPerAddress } = this.limits;
    if (this.#stopping !== undefined) return "the server stops";
    if (this.#connections.size >= connections) return `there are ${connections} connections`;
    if (address === undefined) return undefined;
    let count = 0;
    for (const { stream } of this.#connections.values()) if (stream.address === address) count += 1;
    if (count < connectionsPerAddress) return undefined;
    return `there are ${connectionsPerAddress} connections of ${address}`;
  }

  #forget(connection: NbdConnection): void {
    this.#connections.delete(connection.id);
    if (this.#connections.size === 0) this.#pool.clear();
    this.events.emit("closed", connection.info);
  }

  #checkNew(name: string, description: string | undefined): void {
    if (this.#exports.has(name) || this.#reserved.has(name)) {
      throw new BlockError("EEXIST", `NBD server already has export named '${name}'`, {
        operation: "nbd",
        export: name,
      });
    }
    checkLength(name, `export name '${name}' too long`);
    checkLength(description ?? "", `description '${description}' too long`);
  }

  #register(name: string, backend: ExportBackend, options: ExportOptions): NbdExport {
    if (this.#stopping !== undefined) {
      throw new BlockError("ESHUTDOWN", "NBD server not running", {
        operation: "nbd",
        export: name,
      });
    }
    const added = new NbdExport({
      name,
      backend,
      description: options.description,
      writable: options.writable ?? false,
      multiConnection: options.multiConnection ?? true,
      payloadMax: this.limits.payload,
    });
    this.#exports.set(name, added);
    return added;
  }
}

/** The error of a removal is taken from the list of removals. */
function told(): void {
  // Nothing to add.
}

const utf8 = new TextEncoder();

function checkLength(text: string, message: string): void {
  const { length } = utf8.encode(text);
  if (length <= NBD_LIMITS.string) return;
  const context = { operation: "nbd", value: length, limit: NBD_LIMITS.string };
  throw new BlockError("EINVAL", message, context);
}

const READ_ONLY: readonly PermissionName[] = ["consistent-read"];
const READ_WRITE: readonly PermissionName[] = ["consistent-read", "write"];
const SHARED: readonly PermissionName[] = ["consistent-read", "write", "write-unchanged"];

function openBackend(options: ExportOptions): Promise<ExportBackend> {
  const { node, writable = false } = options;
  if (node === undefined) throw new TypeError("an export needs a node or a backend");
  return node.graph.createBackend({
    node,
    perm: writable ? READ_WRITE : READ_ONLY,
    shared: SHARED,
  });
}
