import type { Qcow2Disk } from "./qcow2-disk.ts";
import { Resizer } from "./resizer.ts";

/** What is done to a whole image, dullest first. */
const OPERATIONS = [
  "flush",
  "create",
  "apply",
  "delete",
  "resize",
  "check",
  "empty",
  "look",
] as const;
const WEIGHTS = [2, 4, 3, 2, 4, 2, 1, 2];

/** Who does things to a whole image while guests work: one at a time. */
export class Qcow2Operator {
  readonly #disk: Qcow2Disk;

  constructor(disk: Qcow2Disk) {
    this.#disk = disk;
  }

  async work(count: number): Promise<void> {
    const { simulation } = this.#disk;
    for (let index = 0; index < count; index += 1) {
      await simulation.scheduler.turn("before an operation");
      await this.operate();
    }
  }

  async operate(): Promise<void> {
    const { decisions } = this.#disk.simulation;
    const { snapshots } = this.#disk;
    const kind = OPERATIONS[decisions.weighted("operation", WEIGHTS)] ?? "flush";
    const { names } = snapshots;
    const name = names[decisions.choose("snapshot", Math.max(1, names.length))];
    switch (kind) {
      case "flush":
        await this.#disk.send("flush");
        return;
      case "create":
        await snapshots.create();
        return;
      case "apply":
        if (name !== undefined) await snapshots.apply(name);
        return;
      case "delete":
        if (name !== undefined) await snapshots.delete(name);
        return;
      case "resize":
        await this.resize();
        return;
      case "check":
        await this.check();
        return;
      case "empty":
        await this.#empty();
        return;
      case "look":
        this.#disk.inspect(false);
    }
  }

  async resize(): Promise<void> {
    const { simulation, oracle, sizes, graph, shape } = this.#disk;
    if (shape.capacity === shape.size) return;
    const disk = await graph.createBackend({ node: "disk", perm: ["resize"] });
    const resizer = new Resizer({
      simulation,
      oracle,
      sizes,
      disk,
      flush: () => this.#disk.watched().flush(),
      unit: Math.max(512, shape.cellSize),
      capacity: shape.capacity,
      mayFail: ({ code }) => this.#disk.hasFailed || (code === "ENOTSUP" && shape.version === "v2"),
    });
    await resizer.work(1);
    await this.#disk.attempt("close", () => disk.close());
  }

  /** The image's own check, while guests wait: what is in memory has reached the file, and is right. */
  async check(): Promise<void> {
    const { simulation, graph } = this.#disk;
    const { driver } = graph.node("disk");
    await this.#disk.attemptWhole("check", async () => {
      const result = await driver.check?.();
      if (result === undefined || this.#disk.hasFailed || this.#disk.isLeaky) return;
      const { corruptions, leaks, checkErrors } = result;
      simulation.expect(
        corruptions + leaks + checkErrors === 0,
        "check",
        () => `${corruptions} corruptions, ${leaks} leaks, ${checkErrors} errors`,
      );
      simulation.sometimes("an image in use was checked");
    });
  }

  /** Mends what crashes have left: leaks, and marks that are out of date. */
  async repair(): Promise<void> {
    const { simulation, graph } = this.#disk;
    await this.#disk.attemptWhole("repair", async () => {
      const result = await graph.node("disk").driver.check?.({ repair: "all" });
      const left = (result?.corruptions ?? 1) + (result?.leaks ?? 1);
      simulation.expect(left === 0, "repair", () => `${left} findings are left`);
      this.#disk.isLeaky = false;
    });
  }

  /** The backing file shows everywhere. */
  async #empty(): Promise<void> {
    const { simulation, graph, oracle, initial, backend } = this.#disk;
    const { driver } = graph.node("disk");
    const hold = await graph.node("disk").drain();
    const restore = oracle.beginRestore(initial, backend.size);
    const succeeded = await this.#disk.attemptWhole("empty", async () => driver.makeEmpty?.());
    oracle.end(restore, succeeded);
    hold.end();
    if (succeeded) simulation.sometimes("an image was made empty");
  }
}
