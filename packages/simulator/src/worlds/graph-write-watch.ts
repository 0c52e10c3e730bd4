import type { WriteObserver, WriteRequest } from "@blocklayer/driver";
import type { Simulation } from "../simulation.ts";
import { injected } from "./graph-probe.ts";

interface Announced {
  readonly offset: number;
  readonly end: number;
}

/**
 * Watches the changes of a node's content, holds some back, and refuses a few. What reaches the driver was announced,
 * and what was announced comes to an end after the driver was asked.
 */
export class WriteWatch implements WriteObserver {
  readonly #simulation: Simulation;
  readonly #node: string;
  readonly #mayRefuse: boolean;
  readonly #announced: Announced[] = [];

  constructor(simulation: Simulation, node: string) {
    this.#simulation = simulation;
    this.#node = node;
    this.#mayRefuse = simulation.decisions.chance("watch refuses", 1, 4);
  }

  beforeWrite({ offset, length }: WriteRequest): Promise<void> | undefined {
    const { decisions, scheduler } = this.#simulation;
    const answer = decisions.weighted("watch answers", [6, 3, this.#mayRefuse ? 1 : 0]);
    if (answer === 2) {
      this.#simulation.sometimes("a watcher refused a write");
      throw injected(this.#node, "a watcher");
    }
    this.#announced.push({ offset, end: offset + length });
    if (answer === 0) return undefined;
    this.#simulation.sometimes("a watcher held a write back");
    return scheduler.turn(`a watcher of ${this.#node} thinks`);
  }

  beforeResize(): Promise<void> | undefined {
    const { decisions, scheduler } = this.#simulation;
    if (!decisions.chance("watch thinks of the length", 1, 4)) return undefined;
    return scheduler.turn(`a watcher of ${this.#node} thinks of its length`);
  }

  afterWrite({ offset, length }: WriteRequest): void {
    const index = this.#announced.findIndex(
      (at) => at.offset === offset && at.end === offset + length,
    );
    this.#simulation.expect(index >= 0, "ended without a beginning", () => {
      return `${this.#node}: ${length} bytes at ${offset}`;
    });
    if (index >= 0) this.#announced.splice(index, 1);
  }

  /** A change is handed to the driver. */
  written(offset: number, length: number): void {
    const isKnown = this.#announced.some((at) => at.offset <= offset && offset + length <= at.end);
    this.#simulation.expect(isKnown, "written behind a watcher's back", () => {
      return `${this.#node}: ${length} bytes at ${offset}`;
    });
  }
}
