import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { type ExportBackend, NbdServer } from "@blocklayer/nbd-server";
import { raw } from "@blocklayer/raw";
import type { Medium } from "../disk/medium.ts";
import { simulatedDisk } from "../disk/simulated-disk.ts";
import type { SimulatedLink } from "../net/simulated-link.ts";
import { SimulatedProcess } from "../net/simulated-process.ts";
import type { Simulation } from "../simulation.ts";
import { MediumBackend, shortened } from "./nbd-disk.ts";
import { CELL, type NbdPlan } from "./nbd-plan.ts";
import { describeGraph } from "./request-layer.ts";

/** Name of the export that all clients use. */
export const EXPORT = "disk";

/** What an export shows: the disk that it was at first, or another one. */
export type ExportVariant = "same" | "shorter" | "other access";

/** A server's process, over and over: what of it runs, and which connections it still works for. */
export class NbdServerSide {
  /** The export was another disk for a while. */
  hasChanged: boolean = false;
  readonly #simulation: Simulation;
  readonly #plan: NbdPlan;
  readonly #medium: Medium;
  /** What to call when the server has ended its work for a connection, by name. */
  readonly #links = new Map<string, (() => void)[]>();
  readonly #strangers = new Set<string>();
  readonly #byName = new Map<string, SimulatedLink>();
  #process: SimulatedProcess;
  #graph: Graph | undefined;
  #server: NbdServer | undefined;

  constructor(simulation: Simulation, plan: NbdPlan, medium: Medium) {
    this.#simulation = simulation;
    this.#plan = plan;
    this.#medium = medium;
    this.#process = this.#newProcess();
    simulation.scheduler.reporters.push(
      () => (this.#graph === undefined ? [] : describeGraph(this.#graph)),
      () => (this.#server?.connections ?? []).map((info) => `server: ${JSON.stringify(info)}`),
    );
  }

  get process(): SimulatedProcess {
    return this.#process;
  }

  /** Whether clients can connect. */
  get isUp(): boolean {
    return this.#server !== undefined;
  }

  /** Starts the process, with a disk and a server. */
  async start(variant: ExportVariant = "same"): Promise<void> {
    this.#process = this.#newProcess();
    if (this.#plan.kind === "node") this.#graph = await this.#openGraph();
    await this.#serve(variant);
  }

  /** Takes a connection. */
  accept(link: SimulatedLink, isStranger: boolean = false): void {
    if (this.#server === undefined) throw new Error("nobody listens");
    this.#links.set(link.name, []);
    this.#byName.set(link.name, link);
    if (isStranger) this.#strangers.add(link.name);
    this.#server.accept(link.server);
  }

  /** Calls back when nothing that came over a connection can be carried out any more. */
  whenDone(link: SimulatedLink, callback: () => void): void {
    const callbacks = this.#links.get(link.name);
    if (callbacks === undefined) callback();
    else callbacks.push(callback);
  }

  /** The machine dies. @returns what of the disk was lost */
  crash(): { readonly lost: number; readonly torn: number } {
    this.#process.kill();
    this.#server = undefined;
    this.#graph = undefined;
    for (const link of this.#byName.values()) if (!link.isOver) link.vanish("server");
    for (const name of [...this.#links.keys()]) this.#done(name);
    return this.#medium.crash();
  }

  /** Stops the server and starts another one in the same process. */
  async restart(graceMs: number, variant: ExportVariant): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    await server?.stop(graceMs).catch(expectedFailure);
    await this.#serve(variant);
  }

  /** Takes the export away, and offers it again a moment later. */
  async removeExport(mode: "safe" | "hard", variant: ExportVariant): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    const inUse = (server.exports[0]?.connections.length ?? 0) > 0;
    try {
      await server.removeExport(EXPORT, mode);
      this.#simulation.expect(mode === "hard" || !inUse, "removed in use", () => EXPORT);
    } catch (error) {
      if (isRefusal(error) && mode === "safe" && inUse) return;
      expectedFailure(error);
    }
    await this.#simulation.scheduler.turn("no export");
    await this.#addExport(server, variant);
  }

  /** Cuts a connection that some client uses. */
  async disconnect(): Promise<void> {
    const { decisions } = this.#simulation;
    const connections = this.#server?.connections ?? [];
    const chosen = connections[decisions.choose("whom to disconnect", connections.length + 1)];
    if (chosen === undefined) return;
    this.#trouble(chosen.peer);
    await this.#server?.disconnect(chosen.id);
  }

  /** Holds the disk still for a moment. */
  async drain(turns: number): Promise<void> {
    const node = this.#graph?.node("disk");
    if (node === undefined) return;
    const hold = await node.drain();
    const { inFlight } = this.#medium;
    this.#simulation.expect(inFlight === 0, "drained in flight", () => `${inFlight} requests`);
    for (let turn = 0; turn < turns; turn += 1) await this.#simulation.scheduler.turn("drained");
    hold.end();
  }

  /** Everything ends; nothing is left. */
  async close(): Promise<void> {
    const server = this.#server as NbdServer;
    await server.stop(1000);
    const { heldBytes, connections, exports } = server;
    this.#simulation.expect(
      heldBytes === 0 && connections.length === 0 && exports.length === 0,
      "left in the server",
      () => `${heldBytes} bytes, ${connections.length} connections, ${exports.length} exports`,
    );
    const left = [...this.#links.keys()];
    this.#simulation.expect(left.length === 0, "connection not ended", () => left.join(", "));
    if (this.#graph !== undefined) {
      checkGraph(this.#graph);
      await this.#graph.close();
    }
    const { dirtySectors } = this.#medium.cache;
    this.#simulation.expect(dirtySectors === 0, "not stable after close", () => `${dirtySectors}`);
  }

  /** Bytes of memory that requests hold. */
  get heldBytes(): number {
    return this.#server?.heldBytes ?? 0;
  }

  #newProcess(): SimulatedProcess {
    return new SimulatedProcess("server", this.#simulation.scheduler, this.#plan);
  }

  async #openGraph(): Promise<Graph> {
    const { margin, size, alignment, maxTransfer } = this.#plan;
    const drivers = [raw, simulatedDisk(new Map([["medium", this.#medium]]))] as const;
    const graph = new Graph({ env: this.#process.env, drivers });
    await graph.open({
      driver: "raw",
      "node-name": "disk",
      discard: "unmap",
      offset: margin,
      size,
      file: {
        driver: "x-blocklayer-simulated",
        "node-name": "file",
        discard: "unmap",
        medium: "medium",
        "request-alignment": alignment,
        "max-transfer": maxTransfer,
      },
    });
    return graph as unknown as Graph;
  }

  async #serve(variant: ExportVariant): Promise<void> {
    const { limits } = this.#plan;
    const server = new NbdServer({ env: this.#process.env, limits });
    server.events.on("closed", ({ peer }) => this.#done(peer));
    server.events.on("refused", ({ peer }) => {
      this.#trouble(peer);
      this.#done(peer);
    });
    server.events.on("failed", ({ connection, error }) => this.#failed(connection.peer, error));
    await this.#addExport(server, variant);
    this.#server = server;
  }

  async #addExport(server: NbdServer, variant: ExportVariant): Promise<void> {
    const { isWritable, multiConnection, size } = this.#plan;
    const writable = variant === "other access" ? !isWritable : isWritable;
    if (variant !== "same") this.hasChanged = true;
    const base = await this.#backend();
    const backend: ExportBackend = variant === "shorter" ? shortened(base, size - CELL) : base;
    await server.addExport({ name: EXPORT, backend, writable, multiConnection });
  }

  #backend(): Promise<MediumBackend | WritableBackend> {
    if (this.#graph === undefined) {
      return Promise.resolve(new MediumBackend(this.#medium, this.#plan));
    }
    return this.#graph.createBackend({
      node: "disk",
      perm: ["consistent-read", "write"],
      shared: ["consistent-read", "write", "write-unchanged"],
    });
  }

  #failed(peer: string, error: unknown): void {
    this.#trouble(peer);
    const code = error instanceof BlockError ? error.code : "none";
    this.#simulation.sometimes(`a client was cut for ${code}`);
    const isAllowed =
      code === "ETIMEDOUT" || code === "ENOMEM" || (code === "EPROTO" && this.#strangers.has(peer));
    this.#simulation.expect(isAllowed, "server failed a client", () => `${peer}: ${String(error)}`);
  }

  #trouble(peer: string): void {
    const link = this.#byName.get(peer);
    if (link !== undefined) link.isTroubled = true;
  }

  #done(name: string): void {
    const callbacks = this.#links.get(name);
    this.#links.delete(name);
    for (const callback of callbacks ?? []) callback();
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof BlockError && error.code === "EBUSY";
}

/** A disk with faults may not be given back well. */
function expectedFailure(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}
