import type { Simulation } from "../simulation.ts";
import { type LinkOptions, SimulatedLink } from "./simulated-link.ts";
import type { LinkBehaviour, StreamHost } from "./simulated-stream.ts";

const CAPACITIES = [Number.POSITIVE_INFINITY, 65536, 300] as const satisfies readonly [
  number,
  ...number[],
];

const PERFECT: LinkBehaviour = { capacity: Number.POSITIVE_INFINITY, splits: 0, delayMs: 0 };

/** What streams post. */
const TAGS = /^(?:connect|net|drained|soon|closed) /;

/** Every connection of a life. */
export class SimulatedNetwork {
  readonly #simulation: Simulation;
  behaviour: LinkBehaviour;
  readonly #host: StreamHost;
  readonly #links: SimulatedLink[] = [];
  #linkCount = 0;

  /** @param capacityMin - bytes that are under way in one direction at least */
  constructor(simulation: Simulation, capacityMin: number) {
    const { decisions, scheduler } = simulation;
    this.#simulation = simulation;
    this.behaviour = {
      capacity: Math.max(
        capacityMin,
        decisions.among<number>("capacity of the network", CAPACITIES),
      ),
      splits: decisions.among("splits", [0, 4, 12]),
      delayMs: decisions.among("delays", [0, 0, 100]),
    };
    this.#host = {
      behaviour: () => this.behaviour,
      decisions,
      post: (tag, deliver, delayMs) => scheduler.post(tag, deliver, delayMs),
      report: (kind, message) => simulation.fail(kind, message),
    };
    scheduler.reporters.push(() =>
      this.open.map((link) => `open: ${link.name}${link.isTroubled ? ", troubled" : ""}`),
    );
  }

  /** The connections that are not over on both sides, oldest first. */
  get open(): readonly SimulatedLink[] {
    return this.#links.filter((link) => !link.isOver);
  }

  /** Makes a connection; its ends are not started. The name gets a number. */
  link(options: LinkOptions): SimulatedLink {
    this.#linkCount += 1;
    const name = `${options.name} #${this.#linkCount}`;
    const link = new SimulatedLink(this.#host, { ...options, name });
    this.#links.push(link);
    return link;
  }

  /** Lets everything arrive that is still on its way. @param more - tags of other completions to wait for */
  async settle(more: RegExp = TAGS): Promise<void> {
    const { scheduler } = this.#simulation;
    const isAwaited = (tag: string): boolean => TAGS.test(tag) || more.test(tag);
    while (scheduler.pendingTags.some(isAwaited)) await scheduler.turn("last bytes");
  }

  /** From now on the network is fast: every partition ends, and everybody learns of what is cut. */
  heal(): void {
    this.behaviour = PERFECT;
    for (const link of this.open) link.heal();
  }
}
