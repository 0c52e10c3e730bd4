import type { SimulatedProcess } from "./simulated-process.ts";
import { SimulatedStream, type StreamHost } from "./simulated-stream.ts";

/** The two ends of a connection, by who holds them. */
export type Side = "client" | "server";

export interface LinkOptions {
  /** Unique in the life. */
  readonly name: string;
  /** What the server's end tells as its peer's address. */
  readonly address?: string;
  readonly client: SimulatedProcess;
  readonly server: SimulatedProcess;
}

/** A connection, and what the network does to it. */
export class SimulatedLink {
  readonly name: string;
  readonly client: SimulatedStream;
  readonly server: SimulatedStream;
  /** Something was done to it on purpose. */
  isTroubled: boolean = false;
  readonly #host: StreamHost;
  /** Sides that have not been told that the connection is cut. */
  readonly #untold = new Set<Side>();

  constructor(host: StreamHost, options: LinkOptions) {
    const { name, address, client, server } = options;
    const lends = host.decisions.choose(`${name} memory`, 4);
    this.name = name;
    this.#host = host;
    this.client = new SimulatedStream(host, {
      name: `${name} client`,
      process: client,
      lends: (lends & 1) === 0,
    });
    this.server = new SimulatedStream(host, {
      name,
      process: server,
      lends: (lends & 2) === 0,
      ...(address === undefined ? {} : { address }),
    });
    this.client.connect(this.server);
    this.server.connect(this.client);
  }

  /** Whether neither end has anything to do any more. */
  get isOver(): boolean {
    return this.client.isGone && this.server.isGone;
  }

  /** Cuts it anywhere; both sides are told, each at its time. */
  cut(): void {
    this.isTroubled = true;
    this.#unblock();
    this.#cutSide("client");
    this.#cutSide("server");
  }

  /** One side is cut. The other one thinks that the connection is open, and hears nothing more until {@link heal}. */
  halfOpen(told: Side): void {
    this.isTroubled = true;
    const untold = told === "client" ? "server" : "client";
    this[told].isBlocked = true;
    this.#untold.add(untold);
    this[untold].isBlocked = false;
    this.#cutSide(told);
  }

  /** What `side` sends does not arrive until {@link heal}. */
  block(side: Side): void {
    this.isTroubled = true;
    this[side].isBlocked = true;
  }

  /** Partitions end; who has not been told of a cut is told. */
  heal(): void {
    this.#unblock();
    for (const side of this.#untold) {
      this[side].cut(new Error("connection timed out"), true);
    }
    this.#untold.clear();
  }

  /** The process of one side is dead; its machine tells the other side, sooner or later. */
  vanish(side: Side): void {
    this.isTroubled = true;
    this.#unblock();
    this[side].vanish();
    this.#cutSide(side === "client" ? "server" : "client");
  }

  #cutSide(side: Side): void {
    const isLoud = this.#host.decisions.chance(`${this.name} cut is noticed`, 3, 4);
    this[side].cut(new Error("connection reset by peer"), isLoud);
  }

  #unblock(): void {
    for (const side of ["client", "server"] as const) {
      const other = side === "client" ? this.server : this.client;
      this[side].isBlocked = false;
      other.deliverSoon();
      this[side].wakeSender();
    }
  }
}
