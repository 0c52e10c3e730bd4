import type { Medium } from "../disk/medium.ts";
import type { SimulatedLink } from "../net/simulated-link.ts";
import { SimulatedNetwork } from "../net/simulated-network.ts";
import { RegisterOracle } from "../register-oracle.ts";
import type { Simulation, World } from "../simulation.ts";
import { drawBehaviour } from "./drawn-behaviour.ts";
import { NbdClientSide, type NbdClientWorld } from "./nbd-client-side.ts";
import { CELL, drawNbdPlan, type NbdPlan } from "./nbd-plan.ts";
import { type ExportVariant, NbdServerSide } from "./nbd-server-side.ts";
import { NbdStranger } from "./nbd-stranger.ts";

/** What befalls the world, dullest first. */
const TROUBLES = [
  "nothing",
  "cut",
  "half-open",
  "partition",
  "disconnect",
  "drain",
  "crash",
  "restart",
  "remove",
] as const;
const WEIGHTS = [1, 5, 2, 2, 2, 3, 4, 2, 2];

const VARIANTS = ["same", "same", "same", "shorter", "other access"] as const;

/**
 * A disk behind NBD: a server, clients that reconnect, and a network that splits, delays and cuts. The server crashes,
 * stops, drains, and offers another disk under the old name. Judged by what guests read, also after crashes; by
 * what goes over the wire; and by what is left behind.
 */
export const nbdWorld: World = {
  name: "nbd",
  situations: [
    "a connection was lost",
    "a write was sent again",
    "a reply was tampered with",
    "the server crashed",
    "a client met another disk",
    "a client closed with changes in doubt",
    "a client was cut for EPROTO",
    "a stranger ends with half a write",
  ],
  run: (simulation) => new NbdLife(simulation).live(),
};

class NbdLife implements NbdClientWorld {
  readonly simulation: Simulation;
  readonly plan: NbdPlan;
  readonly network: SimulatedNetwork;
  readonly server: NbdServerSide;
  readonly oracle: RegisterOracle;
  readonly #medium: Medium;
  readonly #clients: readonly NbdClientSide[];
  readonly #strangers: NbdStranger[] = [];
  readonly #background: Promise<unknown>[] = [];
  #troubleCount: number = 0;
  #isCalm: boolean = false;

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.simulation = simulation;
    this.plan = drawNbdPlan(decisions);
    const { size, margin, clients } = this.plan;
    this.network = new SimulatedNetwork(simulation, size / 128);
    this.#medium = simulation.medium({ name: "medium", size: size + 2 * margin });
    this.oracle = new RegisterOracle({ disk: 1, size, cellSize: CELL });
    this.server = new NbdServerSide(simulation, this.plan, this.#medium);
    this.#clients = clients.map(
      (client, index) => new NbdClientSide(this, `client ${index + 1}`, client),
    );
  }

  readonly isTroubled = (): boolean => this.#troubleCount + this.#medium.faultCount > 0;
  readonly isCalm = (): boolean => this.#isCalm;

  async live(): Promise<void> {
    const { decisions } = this.simulation;
    await this.server.start();
    const work = this.#clients.map((client) => this.#liveClient(client));
    this.#medium.behaviour = drawBehaviour(decisions, "medium");
    for (let count = this.plan.strangers; count > 0; count -= 1) {
      const stranger = new NbdStranger(this, `stranger ${count}`);
      this.#strangers.push(stranger);
      work.push(stranger.live());
    }
    for (let count = this.plan.troubles; count > 0; count -= 1) await this.#trouble();
    this.#becomeCalm();
    await Promise.all([...work, ...this.#background]);
    await this.#end();
  }

  async #liveClient(client: NbdClientSide): Promise<void> {
    await this.simulation.operation(`open ${client.name}`, () => client.open());
    await client.work();
  }

  #becomeCalm(): void {
    this.#isCalm = true;
    this.simulation.calm();
    this.network.heal();
    for (const stranger of this.#strangers) stranger.leave();
  }

  async #end(): Promise<void> {
    for (const client of this.#clients) {
      if (client.isRefused) this.simulation.sometimes("a client met another disk");
      await this.simulation.operation(`last read of ${client.name}`, () => client.readAll());
      await this.simulation.operation(`close ${client.name}`, () => client.close());
    }
    await this.simulation.operation("close the server", () => this.server.close());
    this.#judgeMargins();
    const { inFlight } = this.#medium;
    this.simulation.expect(inFlight === 0, "left in flight", () => `${inFlight} requests`);
    // What is left of requests of processes that have crashed.
    await this.network.settle(/^(?:medium |drained$)/);
    const open = this.network.open.map((link) => link.name);
    this.simulation.expect(open.length === 0, "connection left", () => open.join(", "));
    await this.simulation.expectNothingPending();
  }

  async #trouble(): Promise<void> {
    const { decisions, scheduler } = this.simulation;
    for (let turns = decisions.choose("turns until trouble", 60); turns >= 0; turns -= 1) {
      await scheduler.turn("a moment");
    }
    const kind = TROUBLES[decisions.weighted("trouble", WEIGHTS, TROUBLES)] ?? "nothing";
    this.simulation.trace.note(`trouble: ${kind}`);
    switch (kind) {
      case "nothing":
        break;
      case "cut":
      case "half-open":
      case "partition":
        this.#disturbLink(kind);
        break;
      case "disconnect":
        this.#inBackground("disconnect", () => this.server.disconnect());
        break;
      case "drain":
        this.#inBackground("drain", () => this.server.drain(decisions.choose("drained", 20)));
        break;
      case "crash":
        await this.#crash();
        break;
      case "restart":
        if (decisions.chance("under load", 3, 4)) await this.#awaitLoad();
        await this.#change("restart", (variant) =>
          this.server.restart(decisions.among("grace", [10_000, 0]), variant),
        );
        break;
      case "remove":
        await this.#change("remove the export", (variant) =>
          this.server.removeExport(decisions.among("mode", ["safe", "hard"]), variant),
        );
        break;
    }
  }

  /** Waits for a moment in which the server is busy. */
  async #awaitLoad(): Promise<void> {
    const { bufferBytes = 4 * CELL } = this.plan.limits;
    for (let turns = 60; turns > 0 && this.server.heldBytes < bufferBytes / 2; turns -= 1) {
      await this.simulation.scheduler.turn("before a load");
    }
  }

  #disturbLink(kind: "cut" | "half-open" | "partition"): void {
    const { decisions } = this.simulation;
    const { open } = this.network;
    const link = open[decisions.choose("link", Math.max(1, open.length))];
    if (link === undefined) return;
    const side = decisions.among("side", ["client", "server"]);
    if (kind === "cut") link.cut();
    else if (kind === "half-open") link.halfOpen(side);
    else {
      link.block(side);
      this.#background.push(this.#healLater(link, decisions.choose("partition", 60_000)));
    }
  }

  async #healLater(link: SimulatedLink, delayMs: number): Promise<void> {
    await this.simulation.env.clock.sleep(delayMs);
    link.heal();
  }

  async #change(what: string, work: (variant: ExportVariant) => Promise<void>): Promise<void> {
    const variant = this.simulation.decisions.among<ExportVariant>("variant", VARIANTS);
    this.#troubleCount += 1;
    await this.simulation.operation(what, () => work(variant));
  }

  async #crash(): Promise<void> {
    const { decisions, scheduler } = this.simulation;
    this.#troubleCount += 1;
    this.simulation.sometimes("the server crashed");
    this.server.crash();
    const { margin, size } = this.plan;
    const content = this.#medium.cache.visible.slice(margin, margin + size);
    const problem = this.oracle.recover(content, true);
    if (problem !== undefined) this.simulation.fail("wrong data after a crash", problem);
    for (let turns = decisions.choose("turns without a server", 20); turns >= 0; turns -= 1) {
      await scheduler.turn("no server");
    }
    const variant = decisions.among<ExportVariant>("variant", VARIANTS);
    await this.simulation.operation("start again", () => this.server.start(variant));
  }

  /** Runs beside the rest, as long as the server lives. */
  #inBackground(name: string, work: () => Promise<unknown>): void {
    const { process } = this.server;
    this.#background.push(this.simulation.operation(name, () => process.survive(work())));
  }

  /** Nobody wrote outside of the export. */
  #judgeMargins(): void {
    const { visible } = this.#medium.cache;
    const { margin, size } = this.plan;
    const outside = [visible.subarray(0, margin), visible.subarray(margin + size)];
    this.simulation.expect(
      outside.every((part) => part.every((byte) => byte === 0)),
      "wrote outside of the export",
      () => `the export has ${size} bytes from ${margin}`,
    );
  }
}
