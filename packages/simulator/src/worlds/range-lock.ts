import { type RangeHold, RangeLock, type RangeMode } from "@blocklayer/range-lock";
import type { Simulation, World } from "../simulation.ts";
import { type LedgerEntry, RangeLedger } from "./range-ledger.ts";

/**
 * Clients that take ranges of one lock, shared or exclusive, shrink them, wait for them, and lose patience. Judged by a
 * ledger that knows the order of the requests and the rule.
 */
export const rangeLockWorld: World = {
  name: "range-lock",
  situations: [
    "a shared request waited behind an exclusive one that waited",
    "a waiter was cancelled while others waited for it",
    "a shrink granted a range",
    "a request was cancelled after it had been granted",
    "who only waited went on",
    "an attempt was refused",
  ],
  run: (simulation) => new RangeLockLife(simulation).live(),
};

/** Ranges begin below it, so that they meet. */
const SPAN = 8;

type Request = Omit<LedgerEntry, "state">;

class RangeLockLife {
  readonly #simulation: Simulation;
  readonly #lock: RangeLock;
  readonly #ledger: RangeLedger = new RangeLedger();
  /** Who will lose patience. */
  readonly #impatient: Promise<void>[] = [];

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
    this.#lock = new RangeLock(simulation.env);
    simulation.scheduler.reporters.push(() => this.#ledger.describe());
  }

  async live(): Promise<void> {
    const { decisions } = this.#simulation;
    const clients: Promise<void>[] = [];
    for (let count = 2 + decisions.choose("more clients", 4); count > 0; count -= 1) {
      clients.push(this.#client(`client ${count}`, 1 + decisions.choose("requests", 8)));
    }
    await Promise.all(clients);
    await Promise.all(this.#impatient);
    this.#simulation.calm();
    this.#compare("at the end");
    const { held, waiting } = this.#lock;
    const isLeft = held + waiting > 0;
    this.#simulation.expect(!isLeft, "left behind", () => `${held} holds, ${waiting} waiters`);
    await this.#simulation.expectNothingPending();
  }

  async #client(name: string, requests: number): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    for (let count = requests; count > 0; count -= 1) {
      if (decisions.chance("a pause", 1, 2)) await scheduler.turn(`${name} begins`);
      const kind = decisions.weighted("kind", [6, 2, 2]);
      const request = this.#draw(name, kind !== 2);
      if (kind === 0) await this.#acquire(request);
      if (kind === 1) await this.#try(request);
      if (kind === 2) await this.#waitUntilFree(request);
    }
  }

  #draw(client: string, takes: boolean): Request {
    const { decisions } = this.#simulation;
    const mode = decisions.among<RangeMode>("mode", ["exclusive", "shared"]);
    const offset = decisions.choose("offset", SPAN);
    const length = decisions.among("length", [1, 2, 4, 0, 8]);
    return { client, offset, length, mode, takes };
  }

  async #acquire(request: Request): Promise<void> {
    const { offset, length, mode, client } = request;
    const { entry, wasFree, impatience } = this.#enter(request);
    const promise = this.#lock.acquire(offset, length, { mode, signal: impatience?.signal });
    this.#compare(`${client} asks for ${mode} ${offset}+${length}`);
    if (wasFree) {
      // Without a turn of the event loop.
      await this.#use(entry, await promise);
      return;
    }
    if (impatience !== undefined) this.#losePatience(entry, impatience);
    const hold = await this.#outcome(client, promise, impatience);
    if (hold === undefined) {
      this.#expectState(entry, "gone", "RQ-1 rejected but granted");
      return;
    }
    await this.#use(entry, hold);
  }

  async #try(request: Request): Promise<void> {
    const { offset, length, mode } = request;
    const isBlocked = this.#ledger.wouldWait(request);
    const hold = this.#lock.tryAcquire(offset, length, { mode });
    this.#simulation.expect(
      isBlocked === (hold === undefined),
      "RQ-2 wrong attempt",
      () => `${request.client}: ${mode} ${offset}+${length} ${isBlocked ? "granted" : "refused"}`,
    );
    if (hold !== undefined) await this.#use(this.#ledger.request(request), hold);
    else this.#simulation.sometimes("an attempt was refused");
  }

  async #waitUntilFree(request: Request): Promise<void> {
    const { offset, length, mode, client } = request;
    const { entry, wasFree, impatience } = this.#enter(request);
    const promise = this.#lock.waitUntilFree(offset, length, { mode, signal: impatience?.signal });
    this.#compare(`${client} waits for ${offset}+${length}`);
    if (!wasFree && impatience !== undefined) this.#losePatience(entry, impatience);
    const isDone = promise.then(() => true);
    const isFree = await this.#outcome(client, isDone, impatience);
    this.#expectState(entry, "gone", "RQ-2 went on too early");
    if (!wasFree && isFree === true) this.#simulation.sometimes("who only waited went on");
  }

  /** Enters the request in the ledger, and draws whether its client will lose patience. */
  #enter(request: Request): {
    readonly entry: LedgerEntry;
    readonly wasFree: boolean;
    readonly impatience: AbortController | undefined;
  } {
    const { decisions } = this.#simulation;
    const wasFree = !this.#ledger.wouldWait(request);
    if (
      !wasFree &&
      request.mode === "shared" &&
      this.#ledger.rivals({ ...request, state: "held" }).length === 0
    ) {
      this.#simulation.sometimes("a shared request waited behind an exclusive one that waited");
    }
    const entry = this.#ledger.request(request);
    const impatience = decisions.chance("impatient", 1, 3) ? new AbortController() : undefined;
    return { entry, wasFree, impatience };
  }

  /** Gives up at some time; too late if the range was granted, even if the client does not know it yet. */
  #losePatience(entry: LedgerEntry, impatience: AbortController): void {
    const lose = (): void => {
      const { waiting } = this.#ledger;
      if (entry.state === "held") {
        this.#simulation.sometimes("a request was cancelled after it had been granted");
      }
      if (entry.state === "waiting") this.#ledger.remove(entry);
      if (this.#ledger.waiting < waiting - 1) {
        this.#simulation.sometimes("a waiter was cancelled while others waited for it");
      }
      impatience.abort(impatience);
      this.#compare(`${entry.client} lost patience`);
    };
    this.#impatient.push(this.#simulation.scheduler.turn("patience").then(lose));
  }

  /** Returns what came of a request that may be cancelled, `undefined` if it was. */
  #outcome<T>(
    client: string,
    promise: Promise<T>,
    impatience: AbortController | undefined,
  ): Promise<T | undefined> {
    return this.#simulation.operation(client, async () => {
      try {
        return await promise;
      } catch (error) {
        if (error === impatience && impatience !== undefined) return undefined;
        throw error;
      }
    });
  }

  async #use(entry: LedgerEntry, hold: RangeHold): Promise<void> {
    const { decisions, scheduler } = this.#simulation;
    this.#expectState(entry, "held", "RQ-2 granted too early");
    this.#expectAlone(entry);
    for (let turns = decisions.choose("turns", 4); turns > 0; turns -= 1) {
      await scheduler.turn(`${entry.client} holds`);
      this.#expectAlone(entry);
      if (decisions.chance("shrink", 1, 4)) this.#shrink(entry, hold);
    }
    this.#ledger.remove(entry);
    hold.release();
    this.#compare(`${entry.client} releases`);
    if (!decisions.chance("release twice", 1, 8)) return;
    hold.release();
    this.#compare(`${entry.client} releases again`);
  }

  #shrink(entry: LedgerEntry, hold: RangeHold): void {
    const length = entry.length - this.#simulation.decisions.choose("less", entry.length + 1);
    const { held } = this.#ledger;
    this.#ledger.shrink(entry, length);
    if (this.#ledger.held > held) this.#simulation.sometimes("a shrink granted a range");
    hold.shrink(length);
    this.#compare(`${entry.client} shrinks to ${length}`);
  }

  #expectState(entry: LedgerEntry, state: LedgerEntry["state"], kind: string): void {
    const { client, offset, length } = entry;
    this.#simulation.expect(
      entry.state === state,
      kind,
      () =>
        `${client}, ${offset}+${length}, is ${entry.state}: ${this.#ledger.describe().join("; ")}`,
    );
  }

  #expectAlone(entry: LedgerEntry): void {
    const rivals = this.#ledger.rivals(entry);
    this.#simulation.expect(
      rivals.length === 0,
      "RQ-2 held twice",
      () => `${entry.client} and ${rivals.map(({ client }) => client).join(", ")}`,
    );
  }

  /** The lock has granted what it has to, and no more: at this very moment, not some time later. */
  #compare(what: string): void {
    const { held, waiting } = this.#lock;
    const { ledger, simulation } = { ledger: this.#ledger, simulation: this.#simulation };
    simulation.trace.note(what);
    simulation.expect(
      held <= ledger.held,
      "RQ-2 granted too much",
      () => `${what}: ${held} hold instead of ${ledger.held}`,
    );
    simulation.expect(
      held >= ledger.held && waiting === ledger.waiting,
      "RQ-1 not granted",
      () => `${what}: ${held} hold, ${waiting} wait; not ${ledger.held}, ${ledger.waiting}`,
    );
  }
}
