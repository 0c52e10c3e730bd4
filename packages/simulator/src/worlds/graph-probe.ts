import type { GraphExtension } from "@blocklayer/block-graph";
import {
  type BlockDriver,
  completed,
  type DriverDefinition,
  type PermissionSet,
  Permissions,
  type PreparedReopen,
} from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import type { Simulation } from "../simulation.ts";

/** Where the next opening of a node is made to fail. */
export type OpenFailure = "before its children" | "after its children" | "in an extension";

const WRITERS = Permissions.write | Permissions.writeUnchanged;

/** What is known of one driver, from being asked itself. */
export class Probe {
  readonly name: string;
  /** Requests that have not ended. */
  inFlight = 0;
  /** Whether the driver was told to be quiet. */
  isQuiet = false;
  closeCount = 0;
  preparedCount = 0;
  /** Permissions that it was told last. */
  perm = 0;
  /** Permissions that it is ready for; `undefined` when it was not asked since. */
  ready: PermissionSet | undefined;
  constructor(name: string) {
    this.name = name;
  }
}

/** How one change of content arrives at a driver. */
export type ArrivalListener = (
  node: string,
  offset: number,
  length: number,
  buffers: readonly Uint8Array[],
) => void;

/**
 * Stands in front of every driver of the graph under test and sees what it is asked, and when. Fails on demand, and
 * takes its time where a driver may.
 */
export class Probes {
  readonly all: Map<string, Probe> = new Map();
  /** Nodes whose reopen is to fail. */
  readonly failingReopens: Set<string> = new Set();
  readonly failingOpens: Map<string, OpenFailure> = new Map();
  /** Nodes that do not get ready for new permissions. */
  readonly failingPermissions: Set<string> = new Set();
  readonly failingActivations: Set<string> = new Set();
  readonly failingInactivations: Set<string> = new Set();
  /** Called within the turn in which a reopen commits, once for each node. */
  onReopened: (() => void) | undefined;
  /** Whether somebody holds a node that is being closed. */
  isHeld: ((node: string) => boolean) | undefined;
  /** Whether the world is in a drained section that keeps requests off the node. */
  isDrained: ((node: string) => boolean) | undefined;
  onWrite: ArrivalListener | undefined;
  readonly #simulation: Simulation;

  constructor(simulation: Simulation) {
    this.#simulation = simulation;
  }

  /** Returns the definition with a probe in front of every driver that it opens. */
  watched<Name extends string, Options, Children extends string>(
    definition: DriverDefinition<Name, Options, Children>,
  ): DriverDefinition<Name, Options, Children> {
    return {
      ...definition,
      open: async (host, options, env) => {
        const name = host.nodeName;
        const failure = this.failingOpens.get(name);
        await this.#moment("opens slowly");
        if (failure === "before its children") throw injected(name, "open");
        const driver = await definition.open(host, options, env);
        await this.#moment("opens slowly");
        if (failure === "after its children") {
          await driver.close();
          throw injected(name, "open");
        }
        return this.#watch(driver, name);
      },
    };
  }

  /** Told of every node whose driver is open, like bitmaps are. */
  extension(): GraphExtension {
    return {
      name: "probes",
      nodeOpened: async ({ name }) => {
        await this.#moment("an extension takes its time");
        if (this.failingOpens.get(name) === "in an extension") throw injected(name, "open");
      },
    };
  }

  /** Reports what is wrong with drivers when all nodes are closed. */
  expectAllClosed(): void {
    for (const { name, closeCount, inFlight, preparedCount, ready } of this.all.values()) {
      this.#expect(closeCount === 1, "closed not once", () => `${name}: ${closeCount} times`);
      this.#expect(inFlight === 0, "left in flight", () => `${name}: ${inFlight}`);
      this.#expect(preparedCount === 0, "reopen left prepared", () => name);
      this.#expect(ready === undefined, "permissions left prepared", () => name);
    }
  }

  #watch(driver: BlockDriver, name: string): BlockDriver {
    const probe = new Probe(name);
    this.all.set(name, probe);
    const { pread, pwrite, pwritev, pwriteZeroes, pdiscard } = driver;
    Object.assign(driver, {
      pread: (offset, buffer, options) =>
        this.#request(probe, "read", () => pread.call(driver, offset, buffer, options)),
      pwrite: (offset, buffer, options) =>
        this.#change(probe, offset, buffer.length, [buffer], () =>
          pwrite?.call(driver, offset, buffer, options),
        ),
      pwriteZeroes: (offset, length, options) =>
        this.#change(probe, offset, length, [], () =>
          pwriteZeroes?.call(driver, offset, length, options),
        ),
      ...(pwritev === undefined
        ? {}
        : {
            pwritev: (offset, buffers, options) =>
              this.#change(probe, offset, lengthOf(buffers), buffers, () =>
                pwritev.call(driver, offset, buffers, options),
              ),
          }),
      ...(pdiscard === undefined
        ? {}
        : {
            pdiscard: (offset, length, options) =>
              this.#change(probe, offset, length, [], () =>
                pdiscard.call(driver, offset, length, options),
              ),
          }),
    } satisfies Partial<BlockDriver>);
    this.#watchLife(driver, probe);
    return driver;
  }

  #watchLife(driver: BlockDriver, probe: Probe): void {
    const { close, prepareReopen } = driver;
    const { name } = probe;
    const more: Partial<BlockDriver> = {
      drainBegin: () => this.#drainBegin(probe),
      drainEnd: () => {
        this.#expect(probe.isQuiet, "woken twice", () => name);
        probe.isQuiet = false;
      },
      setPermissions: ({ perm }: PermissionSet) => {
        probe.perm = perm;
      },
      inactivate: async () => {
        await this.#moment("inactivates slowly");
        if (this.failingInactivations.has(name)) throw injected(name, "inactivate");
      },
      activate: async () => {
        await this.#moment("activates slowly");
        if (this.failingActivations.has(name)) throw injected(name, "activate");
      },
      close: () => {
        this.#closing(probe);
        return close.call(driver);
      },
    };
    Object.assign(driver, more);
    if (this.#simulation.decisions.chance("gets ready for permissions", 1, 4)) {
      this.#watchPermissions(driver, probe);
    }
    if (prepareReopen === undefined) return;
    Object.assign(driver, {
      prepareReopen: async (change) => {
        this.#expect(probe.inFlight === 0, "reopened in flight", () => name);
        await this.#moment("reopens slowly");
        if (this.failingReopens.has(name)) throw injected(name, "reopen");
        const prepared = await prepareReopen.call(driver, change);
        probe.preparedCount += 1;
        return this.#prepared(probe, prepared);
      },
    } satisfies Partial<BlockDriver>);
  }

  /** A driver that has to get ready for permissions before it takes them. */
  #watchPermissions(driver: BlockDriver, probe: Probe): void {
    const { name } = probe;
    const methods: Partial<BlockDriver> = {
      preparePermissions: async (change) => {
        await this.#moment("gets ready slowly");
        if (this.failingPermissions.has(name)) throw injected(name, "permissions");
        this.#expect(probe.ready === undefined, "got ready twice", () => name);
        probe.ready = change;
      },
      setPermissions: ({ perm, shared }) => {
        const { ready } = probe;
        const isReady = ready?.perm === perm && ready.shared === shared;
        this.#expect(isReady, "took permissions without getting ready", () => name);
        probe.perm = perm;
        probe.ready = undefined;
      },
      abortPermissions: () => {
        probe.ready = undefined;
      },
    };
    Object.assign(driver, methods);
  }

  #prepared(probe: Probe, { commit, abort, clean }: PreparedReopen): PreparedReopen {
    return {
      commit: () => {
        probe.preparedCount -= 1;
        commit();
        this.onReopened?.();
      },
      abort: () => {
        probe.preparedCount -= 1;
        abort();
      },
      ...(clean === undefined ? {} : { clean }),
    };
  }

  #drainBegin(probe: Probe): Promise<void> {
    this.#expect(!probe.isQuiet, "quieted twice", () => probe.name);
    if (!this.#simulation.decisions.chance("becomes quiet slowly", 1, 8)) {
      probe.isQuiet = true;
      return completed;
    }
    return this.#simulation.scheduler.turn(`${probe.name} becomes quiet`).then(() => {
      probe.isQuiet = true;
    });
  }

  #closing(probe: Probe): void {
    const { name } = probe;
    probe.closeCount += 1;
    this.#expect(probe.closeCount === 1, "closed not once", () => name);
    this.#expect(probe.inFlight === 0, "closed in flight", () => `${name}: ${probe.inFlight}`);
    this.#expect(this.isHeld?.(name) !== true, "closed while held", () => name);
  }

  #change(
    probe: Probe,
    offset: number,
    length: number,
    buffers: readonly Uint8Array[],
    work: () => Promise<void> | undefined,
  ): Promise<void> {
    const where = (): string => `${probe.name}: ${length} bytes at ${offset}`;
    this.#expect((probe.perm & WRITERS) !== 0, "changed without permission", where);
    this.onWrite?.(probe.name, offset, length, buffers);
    return this.#request(probe, "change", work);
  }

  #request(probe: Probe, what: string, work: () => Promise<void> | undefined): Promise<void> {
    const { name, closeCount } = probe;
    const isDrained = this.isDrained?.(name) === true;
    this.#expect(!isDrained, "asked while drained", () => `${what} of ${name}`);
    this.#expect(closeCount === 0, "asked after close", () => `${what} of ${name}`);
    probe.inFlight += 1;
    const done = (): void => {
      probe.inFlight -= 1;
    };
    const promise = work();
    if (promise === undefined || promise === completed) {
      done();
      return completed;
    }
    return promise.finally(done);
  }

  async #moment(what: string): Promise<void> {
    if (!this.#simulation.decisions.chance(what, 1, 8)) return;
    await this.#simulation.scheduler.turn(what);
  }

  #expect(condition: boolean, kind: string, message: () => string): void {
    this.#simulation.expect(condition, kind, message);
  }
}

/** An error that was asked for. */
export function injected(node: string, operation: string): BlockError {
  return new BlockError("EIO", `injected failure of ${operation}`, { node, isInjected: true });
}

export function isInjected(error: unknown): boolean {
  return error instanceof BlockError && Object.hasOwn(error.context, "isInjected");
}

function lengthOf(buffers: readonly Uint8Array[]): number {
  return buffers.reduce((sum, buffer) => sum + buffer.length, 0);
}
