import { checkGraph, Graph, type WritableBackend } from "@blocklayer/block-graph";
import { BlockError } from "@blocklayer/errors";
import { type NbdServerAddress, nbdDefinition } from "@blocklayer/nbd-client";
import {
  type ByteStream,
  NbdCommand,
  NbdErrno,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import type { SimulatedNetwork } from "../net/simulated-network.ts";
import { SimulatedProcess } from "../net/simulated-process.ts";
import type { RegisterOracle } from "../register-oracle.ts";
import type { Simulation } from "../simulation.ts";
import { Guest } from "./guest.ts";
import { NbdClientOracle } from "./nbd-client-oracle.ts";
import { isFlush, NbdFlushJudge } from "./nbd-flush-judge.ts";
import type { SeenExport, SeenRequest } from "./nbd-frames.ts";
import type { NbdClientPlan, NbdPlan } from "./nbd-plan.ts";
import { EXPORT, type NbdServerSide } from "./nbd-server-side.ts";
import { NbdTamper } from "./nbd-tamper.ts";
import { CHANGES, NbdWiretap, type Tapped } from "./nbd-wiretap.ts";
import { describeGraph } from "./request-layer.ts";

const OPENS_MAX = 40;

/** What a client is told of the state of the world. */
export interface NbdClientWorld {
  readonly simulation: Simulation;
  readonly plan: NbdPlan;
  readonly network: SimulatedNetwork;
  readonly server: NbdServerSide;
  readonly oracle: RegisterOracle;
  /** Whether something was done to the world that any client can suffer from. */
  readonly isTroubled: () => boolean;
  /** Whether everything is well from now on. */
  readonly isCalm: () => boolean;
}

/** One client: a process with a graph over a remote disk, and guests on it. */
export class NbdClientSide {
  readonly name: string;
  readonly oracle: NbdClientOracle;
  readonly #world: NbdClientWorld;
  readonly #plan: NbdClientPlan;
  readonly #process: SimulatedProcess;
  readonly #graph: Graph;
  readonly #taps: NbdWiretap[] = [];
  readonly #flushes: NbdFlushJudge;
  /** What the export was when the node was opened. */
  #first: SeenExport | undefined;
  #disk: WritableBackend | undefined;
  #losses: number = 0;
  #isClosing: boolean = false;

  constructor(world: NbdClientWorld, name: string, plan: NbdClientPlan) {
    const { simulation, oracle } = world;
    this.#flushes = new NbdFlushJudge(this.#taps);
    this.name = name;
    this.#world = world;
    this.#plan = plan;
    this.oracle = new NbdClientOracle(oracle);
    this.#process = new SimulatedProcess(name, simulation.scheduler, world.plan);
    const driver = nbdDefinition({
      connect: (address, options) => this.#connect(address, options),
    });
    this.#graph = new Graph({ env: this.#process.env, drivers: [driver] }) as unknown as Graph;
    simulation.scheduler.reporters.push(() =>
      describeGraph(this.#graph).map((line) => `${name}: ${line}`),
    );
  }

  /** Whether the disk came back as another one, so that nothing works any more. */
  get isRefused(): boolean {
    return this.#taps.some(({ told }) => told !== undefined && this.#isOther(told));
  }

  get isOpen(): boolean {
    return this.#disk !== undefined;
  }

  /** Opens the node; tries again if there was a reason to fail. */
  async open(): Promise<void> {
    const { simulation, isTroubled, isCalm } = this.#world;
    for (let attempt = 0; attempt < OPENS_MAX && this.#disk === undefined; attempt += 1) {
      try {
        await this.#open();
        this.#first = this.#taps.at(-1)?.told;
      } catch (error) {
        if (!(error instanceof BlockError)) throw error;
        const isLate = this.#process.env.clock.now() > LATE_MS;
        const isExplained = this.#losses > 0 || isTroubled() || isLate;
        simulation.expect(
          isExplained,
          "error from nowhere",
          () => `${this.name}: ${String(error)}`,
        );
        if (isCalm() && attempt > OPENS_MAX / 2) break;
        await this.#process.env.clock.sleep(1000);
      }
    }
  }

  /** Guests at work. */
  async work(): Promise<void> {
    const { simulation } = this.#world;
    const disk = this.#disk;
    if (disk === undefined) return;
    const { decisions } = simulation;
    const work: Promise<void>[] = [];
    for (let count = 1 + decisions.choose("guests", 2); count > 0; count -= 1) {
      const guest = new Guest({
        name: `${this.name} guest ${count}`,
        simulation,
        oracle: this.oracle,
        disk,
        cellsMax: decisions.among(`${this.name} longest request`, [4, 1, 200]),
        hotCells: decisions.among(`${this.name} hot cells`, [4, 16, 300]),
        mayFail: (error) => this.#mayFail(error),
        isImpatient: decisions.chance(`${this.name} is impatient`, 1, 4),
      });
      work.push(guest.work(decisions.choose("requests", 14)));
    }
    await Promise.all(work);
  }

  /** Reads everything; a client that has its disk must be able to. */
  async readAll(): Promise<void> {
    const { simulation } = this.#world;
    const disk = this.#disk;
    if (disk === undefined) return;
    const operation = this.oracle.begin("read", 0, disk.size);
    const buffer = new Uint8Array(disk.size);
    try {
      await disk.read(0, buffer);
      const problem = this.oracle.check(operation, buffer);
      if (problem !== undefined) simulation.fail("wrong data at the end", problem);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const isLate = this.isRefused || this.#losses > 0;
      simulation.expect(isLate, "no read at the end", () => `${this.name}: ${String(error)}`);
    }
    this.oracle.end(operation, true);
  }

  async close(): Promise<void> {
    const { simulation } = this.#world;
    const disk = this.#disk;
    if (disk === undefined) return;
    this.#isClosing = true;
    simulation.expect(
      disk.inFlight === 0,
      "left in flight",
      () => `${this.name}: ${disk.inFlight}`,
    );
    checkGraph(this.#graph);
    try {
      await disk.close();
      await this.#graph.close();
    } catch (error) {
      // What was not flushed when a connection was lost can not be vouched for.
      for (const one of error instanceof AggregateError ? error.errors : [error]) {
        if (!(one instanceof BlockError)) throw one;
        const mayFail = this.#mayFail(one);
        simulation.expect(mayFail, "error from nowhere", () => `${this.name}: ${String(one)}`);
      }
      simulation.sometimes("a client closed with changes in doubt");
    }
  }

  async #open(): Promise<void> {
    const graph = this.#graph;
    await graph.open({
      driver: "nbd",
      "node-name": "disk",
      discard: "unmap",
      "auto-read-only": true,
      path: this.name,
      export: EXPORT,
      ...this.#plan,
    });
    const { info } = graph.node("disk").driver as unknown as { info: { isReadOnly: boolean } };
    const perm = info.isReadOnly
      ? (["consistent-read"] as const)
      : (["consistent-read", "write"] as const);
    const disk = await graph.createBackend({ node: "disk", perm });
    this.#disk = disk as WritableBackend;
  }

  async #connect(
    _address: NbdServerAddress,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<ByteStream> {
    const { simulation, network, server, plan } = this.#world;
    await simulation.scheduler.turn(`connect ${this.name}`);
    signal.throwIfAborted();
    if (!server.isUp) {
      this.#losses += 1;
      throw new BlockError("ECONNREFUSED", "nobody listens");
    }
    const link = network.link({
      name: this.name,
      client: this.#process,
      server: server.process,
    });
    const tap = new NbdWiretap(simulation, link, (request) => this.#judge(tap, tamper, request));
    const tamper =
      plan.tampers === 0
        ? undefined
        : new NbdTamper(simulation, tap, plan.tampers, () => !this.#world.isCalm());
    this.#taps.push(tap);
    link.client.onGone = () => this.#left(tap);
    server.accept(link);
    return link.client;
  }

  #left({ link, hasDisconnected }: NbdWiretap): void {
    if (hasDisconnected) return;
    this.#flushes.lost();
    const { simulation, server, isTroubled } = this.#world;
    this.#losses += 1;
    simulation.sometimes("a connection was lost");
    for (const ended of this.oracle.left()) server.whenDone(link, ended);
    const isExplained =
      link.isTroubled || isTroubled() || this.#plan["x-blocklayer-request-timeout"] > 0;
    // A close that finds the client reconnecting gives up the new connection.
    const isExpected = this.#isClosing || simulation.env.clock.now() > LATE_MS;
    simulation.expect(isExplained || isExpected, "lost for no reason", () => link.name);
  }

  /** A request is sent: may it be? */
  #judge(tap: NbdWiretap, tamper: NbdTamper | undefined, request: Tapped): void {
    const { simulation } = this.#world;
    const { name } = tap.link;
    if (tamper?.isSeen === true) simulation.fail("went on after a bad answer", name);
    if (tap.told !== undefined) {
      if (this.#isOther(tap.told)) simulation.fail("went on with another disk", name);
      const mayBeShared = (tap.told.flags & NbdTransmissionFlag.CAN_MULTI_CONN) !== 0;
      const { multiConnection } = this.#world.plan;
      simulation.expect(mayBeShared === multiConnection, "other flags", () => `${tap.told?.flags}`);
    }
    if (isFlush(request)) this.#judgeFlush(name, request);
    if (request.type !== NbdCommand.WRITE || request.operation === 0) return;
    const isSame = (one: SeenRequest): boolean =>
      one.type === NbdCommand.WRITE &&
      one.operation === request.operation &&
      one.offset === request.offset &&
      one.length === request.length;
    for (const earlier of this.#taps) {
      if (earlier === tap) continue;
      const sent = earlier.requests.find(isSame);
      if (sent === undefined) continue;
      simulation.sometimes("a write was sent again");
      this.#judgeRepetition(earlier, sent, request);
    }
  }

  /** A flush must not vouch for what may have been lost, unless the server takes that upon itself. */
  #judgeFlush(name: string, flush: Tapped): void {
    const { simulation, plan } = this.#world;
    this.#flushes.sent(flush);
    if (plan.multiConnection) flush.succeeded = this.oracle.beginSharedFlush();
    if (!this.#flushes.isInDoubt) return;
    if (!plan.multiConnection) simulation.fail("flush in doubt", name);
    else simulation.sometimes("a flush was sent in doubt, as CAN_MULTI_CONN allows");
  }

  #judgeRepetition(
    earlier: NbdWiretap,
    sent: NbdWiretap["requests"][number],
    again: SeenRequest,
  ): void {
    const { simulation } = this.#world;
    const what = `write ${again.operation} of ${again.length} bytes at ${again.offset}, ${this.name}`;
    simulation.expect(sent.flags === again.flags, "sent again otherwise", () => what);
    const isAnswered = earlier.isAnswered(sent) && sent.reply?.error !== NbdErrno.ESHUTDOWN;
    simulation.expect(!isAnswered, "answered and sent again", () => what);
    const later = earlier.requests.find(
      (one) =>
        one.index > sent.index &&
        CHANGES.has(one.type) &&
        one.offset < again.offset + again.length &&
        again.offset < one.offset + one.length &&
        earlier.isAnswered(one) &&
        one.reply?.error === NbdErrno.SUCCESS,
    );
    simulation.expect(later === undefined, "undoes a later request", () => what);
  }

  #isOther(told: SeenExport): boolean {
    const first = this.#first;
    if (first === undefined) return false;
    const lost = first.flags & ~told.flags & ABILITIES;
    const access = (first.flags ^ told.flags) & NbdTransmissionFlag.READ_ONLY;
    return told.size !== first.size || access !== 0 || lost !== 0;
  }

  #mayFail(error: BlockError): boolean {
    const { simulation, isTroubled } = this.#world;
    const isReadOnly = ((this.#first?.flags ?? 0) & NbdTransmissionFlag.READ_ONLY) !== 0;
    if (error.code === "EPERM") return isReadOnly;
    for (let cause: unknown = error; cause instanceof BlockError; cause = cause.cause) {
      if (cause.code === "EPROTO" && this.#world.plan.tampers === 0) {
        simulation.fail("protocol broken", `${this.name}: ${cause.message}`);
      }
    }
    return this.#losses > 0 || isTroubled() || isReadOnly;
  }
}

/** Milliseconds from which on a time-out may have ended a connection. */
const LATE_MS = 400;

const ABILITIES =
  NbdTransmissionFlag.SEND_FLUSH |
  NbdTransmissionFlag.SEND_FUA |
  NbdTransmissionFlag.SEND_TRIM |
  NbdTransmissionFlag.SEND_WRITE_ZEROES;
