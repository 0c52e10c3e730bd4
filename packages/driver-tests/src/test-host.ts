import {
  type BlockChild,
  type BlockDriver,
  type ChildOptionState,
  type DriverDefinition,
  type FreezeHold,
  type GenericNodeOptions,
  ImageReferencePolicy,
  type NodeHost,
  type RoleMask,
} from "@blocklayer/driver";
import { type Env, manualEnv, settleTurn } from "@blocklayer/env";
import { BlockError } from "@blocklayer/errors";
import { describeProblems } from "@blocklayer/schema";
import { expect } from "./expect.ts";
import { RequestGate } from "./request-gate.ts";
import { type TestChild, testChild } from "./test-child.ts";

/** A definition of any options and children. */
// biome-ignore lint/suspicious/noExplicitAny: options are contravariant in a definition; any value parses them.
export type AnyDefinition = DriverDefinition<string, any, string>;

/** A node to be opened below: a definition with its own options and children. */
export interface ChildDefinition {
  readonly definition: AnyDefinition;
  /** Before parsing. */
  readonly options?: unknown;
  readonly children?: Readonly<Record<string, ChildSource | null>>;
}

/** What a child is made of: an open driver, or what opens one. */
export type ChildSource = BlockDriver | ChildDefinition;

export interface TestHostOptions {
  /** Default `"test"`. */
  readonly nodeName?: string;
  /** What `openChild` finds, by the name of the edge; `null` for explicitly none. */
  readonly children?: Readonly<Record<string, ChildSource | null>>;
  /** Nodes that `attachChild` finds, by node name. */
  readonly nodes?: Readonly<Record<string, BlockDriver>>;
  readonly generic?: Partial<GenericNodeOptions>;
  readonly autoReadOnly?: boolean;
  readonly policy?: ImageReferencePolicy;
  /** Default a `manualEnv`. */
  readonly env?: Env;
  /** Where the requests to all children pass. Default one of its own. */
  readonly gate?: RequestGate;
  /** Makes a child from the options that the driver gives to `openChild`. */
  readonly openOptions?: (name: string, options: unknown) => ChildSource;
}

const GENERIC: GenericNodeOptions = {
  readOnly: false,
  discard: "unmap",
  detectZeroes: "off",
  cacheDirect: false,
  cacheNoFlush: false,
  forceShare: false,
};

/**
 * The world above one driver, without a graph: opens its children, keeps what the driver tells, and closes
 * everything in the right order.
 */
export class TestHost implements NodeHost, AsyncDisposable {
  readonly nodeName: string;
  readonly autoReadOnly: boolean;
  readonly policy: ImageReferencePolicy;
  readonly env: Env;
  readonly gate: RequestGate;
  readonly children: Map<string, TestChild> = new Map();
  /** What the driver told, oldest first. */
  readonly warnings: string[] = [];
  readonly corruptions: string[] = [];
  readonly replaced: { readonly offset: number; readonly length: number }[] = [];
  readOnlyReason: string | undefined;
  resizedCount: number = 0;
  limitsChangedCount: number = 0;
  permissionRefreshCount: number = 0;
  /** The options that {@link TestHost.open} parsed. */
  driverOptions: unknown;
  readonly #settings: TestHostOptions;
  readonly #opened: (TestHost | BlockDriver)[] = [];
  readonly #frozen = new Set<string>();
  #options: GenericNodeOptions;
  #driver: BlockDriver | undefined;
  #holds: number = 0;
  #isClosed: boolean = false;

  constructor(settings: TestHostOptions = {}) {
    this.#settings = settings;
    this.nodeName = settings.nodeName ?? "test";
    this.autoReadOnly = settings.autoReadOnly ?? false;
    this.policy = settings.policy ?? ImageReferencePolicy.deny;
    this.env = settings.env ?? manualEnv();
    this.gate = settings.gate ?? new RequestGate();
    this.#options = { ...GENERIC, ...settings.generic };
  }

  /**
   * Makes a host and opens a driver in it.
   *
   * @param options - the driver's own options before parsing; default `{}`
   * @throws BlockError `EINVAL` the options do not fit the definition's schema; whatever opening reports
   */
  static async open<Name extends string, Options, Children extends string>(
    definition: DriverDefinition<Name, Options, Children>,
    settings: TestHostOptions & { readonly options?: unknown } = {},
  ): Promise<TestHost> {
    const host = new TestHost(settings);
    await host.open(definition, settings.options);
    return host;
  }

  get options(): GenericNodeOptions {
    return this.#options;
  }

  /** The driver that was opened in this host. */
  get driver(): BlockDriver {
    expect(this.#driver !== undefined, "no driver was opened in this host");
    return this.#driver;
  }

  /** Number of holds that {@link holdInFlight} gave and nobody released. */
  get inFlight(): number {
    return this.#holds;
  }

  /**
   * Opens a driver in this host; a failure closes the children that were opened.
   *
   * @param options - before parsing
   */
  async open<Options>(
    definition: DriverDefinition<string, Options, string>,
    options: unknown = {},
  ): Promise<BlockDriver> {
    const parsed = definition.schema.parse(options);
    if (!parsed.ok) throw new BlockError("EINVAL", describeProblems(parsed.problems));
    this.driverOptions = parsed.value;
    try {
      return this.adopt(await definition.open(this, parsed.value, this.env));
    } catch (error) {
      await this.#closeChildren();
      throw error;
    }
  }

  /** Takes a driver that was made by hand as this host's driver, so that {@link close} closes it. */
  adopt(driver: BlockDriver): BlockDriver {
    this.#driver = driver;
    return driver;
  }

  /** The open driver below an edge. */
  childDriver(name: string): BlockDriver {
    const child = this.children.get(name);
    expect(child !== undefined, `there is no child ${name}`);
    return child.driver;
  }

  childOption(name: string): ChildOptionState {
    const source = this.#settings.children?.[name];
    if (source === undefined) return "absent";
    return source === null ? "null" : "given";
  }

  async openChild(name: string, role: RoleMask, options?: unknown): Promise<BlockChild> {
    const source =
      options === undefined
        ? this.#settings.children?.[name]
        : this.#settings.openOptions?.(name, options);
    if (source === undefined || source === null) {
      throw new BlockError("EINVAL", `A block device must be specified for "${name}"`, {
        node: this.nodeName,
        child: name,
      });
    }
    return this.#attach(name, role, await this.#driverOf(name, source));
  }

  attachChild(name: string, role: RoleMask, nodeName: string): Promise<BlockChild> {
    const driver = this.#settings.nodes?.[nodeName];
    if (driver !== undefined) return Promise.resolve(this.#attach(name, role, driver, nodeName));
    const message = `Cannot find device='' nor node-name='${nodeName}'`;
    return Promise.reject(new BlockError("ENOENT", message, { node: nodeName }));
  }

  detachChild(name: string): Promise<void> {
    this.children.get(name)?.detach();
    this.children.delete(name);
    return Promise.resolve();
  }

  freezeChain(base = ""): FreezeHold {
    if (this.#frozen.has(base)) {
      throw new BlockError("EPERM", `the chain of ${this.nodeName} is frozen`, {
        node: this.nodeName,
      });
    }
    this.#frozen.add(base);
    const release = (): void => void this.#frozen.delete(base);
    return { release, [Symbol.dispose]: release };
  }

  refreshPermissions(): Promise<void> {
    this.permissionRefreshCount += 1;
    return Promise.resolve();
  }

  limitsChanged(): void {
    this.limitsChangedCount += 1;
  }

  resized(): void {
    this.resizedCount += 1;
  }

  becomeReadOnly(reason: string): void {
    expect(this.#driver === undefined, "becomeReadOnly is for open only");
    expect(this.autoReadOnly || this.#options.readOnly, "becomeReadOnly without auto-read-only");
    this.readOnlyReason = reason;
    this.#options = { ...this.#options, readOnly: true };
  }

  holdInFlight(): Disposable {
    this.#holds += 1;
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.#holds -= 1;
        isHeld = false;
      },
    };
  }

  contentReplaced(offset: number, length: number): Promise<void> {
    this.replaced.push({ offset, length });
    return Promise.resolve();
  }

  reportCorruption(message: string): void {
    this.corruptions.push(message);
  }

  warn(message: string): void {
    this.warnings.push(message);
  }

  /**
   * Waits until nothing is held in flight, closes the driver, then its children. Idempotent.
   *
   * @throws ConformanceError a hold was never released
   */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.gate.reset();
    for (let turns = 0; this.#holds > 0; turns += 1) {
      expect(turns < TURNS_MAX, `${this.#holds} requests are still held in flight at close`);
      await settleTurn();
    }
    await this.#driver?.close();
    await this.#closeChildren();
  }

  /**
   * Leaves as a crash does: the driver is never told, the children it wrote to stay open and as they are.
   */
  abandon(): void {
    this.#isClosed = true;
    this.gate.reset();
    for (const child of this.children.values()) child.detach();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #driverOf(name: string, source: ChildSource): Promise<BlockDriver> {
    if (!isDefinition(source)) {
      this.#opened.push(source);
      return source;
    }
    const host = await TestHost.open(source.definition, {
      nodeName: `${this.nodeName}-${name}`,
      env: this.env,
      generic: this.#options,
      options: source.options ?? {},
      ...(source.children === undefined ? {} : { children: source.children }),
    });
    this.#opened.push(host);
    return host.driver;
  }

  #attach(name: string, role: RoleMask, driver: BlockDriver, nodeName = name): TestChild {
    expect(!this.children.has(name), `the child ${name} is there already`);
    const child = testChild(driver, { name, role, nodeName, gate: this.gate });
    this.children.set(name, child);
    return child;
  }

  async #closeChildren(): Promise<void> {
    for (const child of this.children.values()) child.detach();
    for (const opened of this.#opened.splice(0)) await opened.close();
  }
}

function isDefinition(source: ChildSource): source is ChildDefinition {
  return "definition" in source;
}

const TURNS_MAX = 1000;
