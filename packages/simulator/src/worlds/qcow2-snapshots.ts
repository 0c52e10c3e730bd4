import type { BlockError } from "@blocklayer/errors";
import type { OracleImage } from "../register-oracle.ts";
import type { Qcow2Disk } from "./qcow2-disk.ts";

/** A snapshot as its model has it. */
interface Snapshot {
  readonly image: OracleImage;
  readonly size: number;
  /** An operation on it failed or was cut short: it may be there or not. */
  isCertain: boolean;
}

/** What is being made when the power fails. */
interface Unfinished {
  readonly name: string;
  readonly size: number;
  readonly capture: () => OracleImage;
}

/** Internal snapshots, and what each of them has to hold. One operation at a time. */
export class Qcow2Snapshots {
  readonly #disk: Qcow2Disk;
  readonly #known = new Map<string, Snapshot>();
  #unfinished: Unfinished | undefined;
  #count = 0;

  constructor(disk: Qcow2Disk) {
    this.#disk = disk;
  }

  /** Names of those that are certainly there. */
  get names(): string[] {
    return [...this.#known].filter(([, { isCertain }]) => isCertain).map(([name]) => name);
  }

  async create(): Promise<void> {
    const { oracle, backend } = this.#disk;
    this.#count += 1;
    const name = `s${this.#count}`;
    const size = backend.size;
    this.#unfinished = { name, size, capture: oracle.beginCapture() };
    const succeeded = await this.#disk.attemptWhole(
      `snapshot ${name}`,
      () =>
        this.#disk.store.create({
          name,
          vmStateSize: 0,
          dateMs: 1000,
          vmClockNs: 0,
          diskSize: size,
        }),
      (error) => this.#mayFail(error),
    );
    this.#ended(succeeded);
    if (succeeded) this.#disk.simulation.sometimes("a snapshot was made");
  }

  async delete(name: string): Promise<void> {
    const snapshot = this.#known.get(name);
    if (snapshot === undefined) return;
    snapshot.isCertain = false;
    const succeeded = await this.#disk.attemptWhole(
      `delete ${name}`,
      () => this.#disk.store.delete(name),
      (error) => this.#mayFail(error),
    );
    if (succeeded) this.#known.delete(name);
    if (succeeded) this.#disk.simulation.sometimes("a snapshot was deleted");
  }

  /** The disk goes back. Who changes its length by it makes guests wait first, as for any change behind their back. */
  async apply(name: string): Promise<void> {
    const { oracle, sizes, simulation, graph } = this.#disk;
    const snapshot = this.#known.get(name);
    if (snapshot === undefined) return;
    const hold = await graph.node("disk").drain();
    const restore = oracle.beginRestore(snapshot.image, snapshot.size);
    const change = sizes.begin(snapshot.size);
    const succeeded = await this.#disk.attemptWhole(
      `apply ${name}`,
      () => this.#disk.store.apply(name),
      (error) => this.#mayFail(error),
    );
    oracle.end(restore, succeeded, true);
    sizes.end(change, succeeded);
    hold.end();
    if (succeeded) simulation.sometimes("a snapshot was applied");
  }

  /** The power failed: what was being made may be there. */
  crashed(): void {
    this.#ended(false);
  }

  /** The image was opened: those that are there are those that have to be. */
  async opened(): Promise<void> {
    const { store, simulation } = this.#disk;
    this.#ended(false);
    const found = new Set((await store.list()).map(({ name }) => name));
    for (const [name, snapshot] of this.#known) {
      if (snapshot.isCertain && !found.has(name)) simulation.fail("snapshot lost", name);
      if (!found.has(name)) this.#known.delete(name);
      snapshot.isCertain = true;
    }
    for (const name of found) {
      if (!this.#known.has(name)) simulation.fail("snapshot from nowhere", name);
    }
  }

  #ended(isCertain: boolean): void {
    const made = this.#unfinished;
    this.#unfinished = undefined;
    if (made === undefined) return;
    const { name, size, capture } = made;
    this.#known.set(name, { image: capture(), size, isCertain });
  }

  /** Counts of few bits are soon full. */
  #mayFail(error: BlockError): boolean {
    const isFull = error.code === "EINVAL" && error.message.includes("would be too large");
    return isFull || this.#disk.hasFailed;
  }
}
