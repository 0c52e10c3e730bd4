import {
  encodeClientFlags,
  encodeInfoRequest,
  encodeOption,
  encodeRequest,
  NbdClientFlag,
  NbdCommand,
  NbdCommandFlag,
  NbdInfo,
  NbdOption,
  NbdTransmissionFlag,
} from "@blocklayer/nbd-protocol";
import type { SimulatedLink } from "../net/simulated-link.ts";
import type { SimulatedNetwork } from "../net/simulated-network.ts";
import { SimulatedProcess } from "../net/simulated-process.ts";
import type { SimulatedStream } from "../net/simulated-stream.ts";
import type { Simulation } from "../simulation.ts";
import { CELL, type NbdPlan } from "./nbd-plan.ts";
import { EXPORT, type NbdServerSide } from "./nbd-server-side.ts";
import { NbdWiretap } from "./nbd-wiretap.ts";

/** What a stranger does at last, dullest first. */
const ENDS = ["goodbye", "end", "cut", "nothing", "garbage", "half a write"] as const;

/** Options that are answered, refused, or too much. */
const OPTIONS = [
  NbdOption.LIST,
  NbdOption.INFO,
  NbdOption.STARTTLS,
  NbdOption.STRUCTURED_REPLY,
  NbdOption.EXTENDED_HEADERS,
  NbdOption.SET_META_CONTEXT,
  99,
] as const;

type Asked = readonly [type: number, flags: number, offset: number, length: number];

export interface StrangerWorld {
  readonly simulation: Simulation;
  readonly plan: NbdPlan;
  readonly network: SimulatedNetwork;
  readonly server: NbdServerSide;
}

/**
 * A client that is careless or means harm: it asks for what is not there, sends garbage, stops in the middle of
 * what it says, or does not read. It never writes inside of the disk, unless it may not: whatever it does, the others
 * must not notice.
 *
 * @see docs/reliability.md section 3.2, NS-2 and NS-7
 */
export class NbdStranger {
  readonly #world: StrangerWorld;
  readonly #name: string;
  readonly #process: SimulatedProcess;
  /** What was sent and does not fit the network yet. */
  readonly #queue: Uint8Array[] = [];
  #link: SimulatedLink | undefined;
  #tap: NbdWiretap | undefined;
  #isBlocked: boolean = false;
  #hasEnded: boolean = false;
  #isLeaving: boolean = false;
  #cookie: number = 0;

  constructor(world: StrangerWorld, name: string) {
    this.#world = world;
    this.#name = name;
    this.#process = new SimulatedProcess(name, world.simulation.scheduler);
  }

  /** Connects a few times, and does what it likes. */
  async live(): Promise<void> {
    const { decisions, scheduler } = this.#world.simulation;
    for (let visits = 1 + decisions.choose("visits", 3); visits > 0; visits -= 1) {
      for (let turns = decisions.choose("stranger waits", 30); turns >= 0; turns -= 1) {
        await scheduler.turn(this.#name);
      }
      if (this.#isLeaving || !this.#world.server.isUp) return;
      await this.#visit();
    }
  }

  /** Goes away, wherever it is. */
  leave(): void {
    this.#isLeaving = true;
    this.#link?.client.destroy();
  }

  async #visit(): Promise<void> {
    const { simulation, network, server } = this.#world;
    const { decisions } = simulation;
    this.#link?.client.destroy();
    const link = network.link({
      name: this.#name,
      client: this.#process,
      server: server.process,
      address: "stranger",
    });
    this.#link = link;
    this.#isBlocked = false;
    this.#hasEnded = false;
    this.#queue.length = 0;
    link.isTroubled = true;
    this.#tap = new NbdWiretap(simulation, link, () => undefined, true);
    this.#start(link.client);
    server.accept(link, true);
    this.#send(encodeClientFlags(NbdClientFlag.FIXED_NEWSTYLE | NbdClientFlag.NO_ZEROES));
    for (let count = decisions.choose("options", 3); count > 0; count -= 1) this.#sendOption();
    if (decisions.chance("chooses an export", 3, 4)) await this.#transmit();
    this.#finish();
  }

  #start(stream: SimulatedStream): void {
    stream.start({
      buffer: () => new Uint8Array(4096),
      data: () => undefined,
      drained: () => {
        this.#isBlocked = false;
        this.#flush();
      },
      ended: () => stream.destroy(),
      closed: () => undefined,
    });
    if (this.#world.simulation.decisions.chance("stranger does not read", 1, 4)) stream.pause();
  }

  #sendOption(): void {
    const { decisions } = this.#world.simulation;
    const option = decisions.among<number>("option", OPTIONS);
    const length = decisions.among("length of the option", [0, 5, 300]);
    this.#send(encodeOption(option, new Uint8Array(length)));
  }

  async #transmit(): Promise<void> {
    const { decisions, scheduler } = this.#world.simulation;
    const infos = decisions.chance("asks for sizes", 1, 2) ? [NbdInfo.BLOCK_SIZE] : [];
    this.#send(encodeOption(NbdOption.GO, encodeInfoRequest({ exportName: EXPORT, infos })));
    for (let count = decisions.choose("stranger requests", 12); count > 0; count -= 1) {
      this.#sendRequest();
      if (decisions.chance("stranger pauses", 1, 3)) await scheduler.turn(this.#name);
    }
  }

  #sendRequest(): void {
    const { simulation, plan } = this.#world;
    const { decisions } = simulation;
    const { size } = plan;
    const offset = decisions.choose("cell", size / CELL) * CELL;
    const beyond = size - decisions.among("before the end", [0, CELL, 1]) + 1;
    const fua = decisions.chance("fua", 1, 3) ? NbdCommandFlag.FUA : 0;
    const { READ, WRITE, WRITE_ZEROES, TRIM, CACHE, FLUSH } = NbdCommand;
    const requests: readonly Asked[] = [
      [READ, fua, offset, Math.min(size - offset, 4 * CELL)],
      [READ, 0, 0, size],
      [READ, 0, beyond, CELL],
      [WRITE, fua, beyond, CELL],
      [WRITE, 0, 2 ** 40, CELL],
      [WRITE_ZEROES, fua, beyond, 2 ** 31],
      [TRIM, 0, beyond, CELL],
      [decisions.among("unknown", [7, 9, 300]), 0, 0, 0],
      [READ, NbdCommandFlag.NO_HOLE, offset, CELL],
      [CACHE, 0, 0, size],
      [FLUSH, 0, 0, 0],
    ];
    const asked = requests[decisions.choose("stranger request", requests.length + 1)];
    if (asked === undefined) this.#writeProtected(offset);
    else this.#request(...asked);
  }

  /** Writes where it may not, if it has been told so. */
  #writeProtected(offset: number): void {
    const flags = this.#tap?.told?.flags ?? 0;
    if ((flags & NbdTransmissionFlag.READ_ONLY) === 0) return;
    this.#request(NbdCommand.WRITE, 0, offset, CELL);
  }

  #request(type: number, flags: number, offset: number, length: number): void {
    this.#cookie += 1;
    const header = { type, flags, offset, length, cookieHigh: 7, cookieLow: this.#cookie };
    this.#send(encodeRequest(header, false));
    if (type === NbdCommand.WRITE) this.#send(new Uint8Array(length).fill(0x99));
  }

  #finish(): void {
    const { simulation, plan } = this.#world;
    const { decisions } = simulation;
    const stream = this.#link?.client;
    if (stream === undefined || stream.isGone) return;
    const end = decisions.among("stranger ends", ENDS);
    simulation.sometimes(`a stranger ends with ${end}`);
    switch (end) {
      case "goodbye":
        this.#request(NbdCommand.DISC, 0, 0, 0);
        break;
      case "end":
        this.#hasEnded = true;
        this.#flush();
        break;
      case "cut":
        stream.destroy();
        break;
      case "nothing":
        break;
      case "garbage":
        this.#send(new Uint8Array(64).fill(0x55));
        break;
      case "half a write":
        this.#sendHalf(decisions.choose("bytes of the half", plan.size));
        break;
    }
  }

  /** Begins a write inside of the disk. What has arrived of it must never be written. */
  #sendHalf(length: number): void {
    const { size } = this.#world.plan;
    const header = { type: NbdCommand.WRITE, flags: 0, offset: 0, length: size };
    this.#send(encodeRequest({ ...header, cookieHigh: 7, cookieLow: 0 }, false));
    this.#send(new Uint8Array(length).fill(0x99));
  }

  #send(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#queue.push(bytes);
    this.#flush();
  }

  #flush(): void {
    const stream = this.#link?.client;
    if (stream === undefined || stream.isGone || this.#isBlocked) return;
    const chunks = this.#queue.splice(0);
    if (chunks.length > 0 && !stream.isEndSent) this.#isBlocked = !stream.write(chunks);
    if (this.#hasEnded && !this.#isBlocked) stream.end();
  }
}
