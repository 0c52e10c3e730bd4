import { type DelaySnapshot, isCopyBeforeWrite } from "@blocklayer/backup-top";
import type { BlockNode, GraphStep, ReadableBackend } from "@blocklayer/block-graph";
import type { ServedDisk } from "./served-disk.ts";

/**
 * The disk as it was at one instant, while it goes on being written to: a copy-before-write filter that saves to
 * fast memory what is about to be overwritten, and a snapshot-access node to read from.
 *
 * Only what is overwritten takes memory.
 */
export class FrozenView {
  readonly #served: ServedDisk;
  readonly #name: string;
  readonly #filter: BlockNode;
  #isInserted: boolean = false;
  #hasReader: boolean = false;

  private constructor(served: ServedDisk, name: string, filter: BlockNode) {
    this.#served = served;
    this.#name = name;
    this.#filter = filter;
  }

  /** Opens the filter beside the disk. Nothing is frozen until {@link FrozenView.step} is carried out. */
  static async open(served: ServedDisk, name: string): Promise<FrozenView> {
    const { graph, node } = served;
    await graph.open({ driver: "memory", "node-name": `${name}-scratch`, size: node.size });
    const filter = await graph.open({
      driver: "copy-before-write",
      "node-name": `${name}-filter`,
      file: node.name,
      target: `${name}-scratch`,
    });
    return new FrozenView(served, name, filter);
  }

  /** Puts the filter above the disk: the instant that the view shows. For `graph.change`. */
  step(): GraphStep {
    const insert = this.#served.graph.replaceNode(this.#served.node, this.#filter);
    return {
      name: "freeze view",
      touches: insert.touches,
      prepare: () => insert.prepare(),
      apply: () => insert.apply?.() ?? (() => undefined),
      abort: () => insert.abort?.(),
      clean: () => insert.clean?.(),
      commit: () => {
        insert.commit?.();
        this.#isInserted = true;
      },
    };
  }

  /** Opens the node to read from; returns its name. After the step. */
  async openReader(): Promise<string> {
    await this.#served.graph.open({
      driver: "snapshot-access",
      "node-name": this.#name,
      file: this.#filter.name,
    });
    this.#hasReader = true;
    return this.#name;
  }

  /** Returns a handle that reads the view; the caller closes it. */
  backend(): Promise<ReadableBackend> {
    return this.#served.graph.createBackend({ node: this.#name, perm: ["consistent-read"] });
  }

  /** How long the filter has held guest writes so far. */
  guestWriteDelay(): DelaySnapshot {
    const { driver } = this.#filter;
    if (!isCopyBeforeWrite(driver)) throw new TypeError(`${this.#filter.name} is another filter`);
    return driver.writeDelay.snapshot();
  }

  /** Takes it away again. Nobody reads any more. */
  async remove(): Promise<void> {
    const { graph } = this.#served;
    if (this.#hasReader) await graph.remove(this.#name);
    if (this.#isInserted) await graph.change([graph.dropFilter(this.#filter)]);
    await graph.remove(this.#filter.name);
    await graph.remove(`${this.#name}-scratch`);
  }
}
