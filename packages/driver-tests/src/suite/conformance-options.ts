import type { TestHost } from "../test-host.ts";

/** What a driver can do. It is declared so that nothing is skipped unseen: declaring too little fails too. */
export interface DriverCapabilities {
  /** Takes writes. Default `true`. */
  readonly write?: boolean;
  /** Has `pwritev`. Default as `write`. */
  readonly writeVector?: boolean;
  /** Has `pwriteZeroes`. Default as `write`. */
  readonly writeZeroes?: boolean;
  /** Has `pdiscard`. Default as `write`. */
  readonly discard?: boolean;
  /** What a discarded range reads as: zeroes, or anything, but always the same. Default `"anything"`. */
  readonly discardReads?: "zeroes" | "anything";
  /** Can change its length as it was opened. Default as `write`. */
  readonly truncate?: boolean;
  /** Has `blockStatus`. Default `true`. */
  readonly blockStatus?: boolean;
  /** Has `makeEmpty`. Default `false`. */
  readonly makeEmpty?: boolean;
  /** `"ignored"` for a disk that forgets what is written to it. Default `"stored"`. */
  readonly contents?: "stored" | "ignored";
}

/** One driver, as the suite meets it. */
export interface ConformanceOptions {
  /** Names the driver and how it was opened in the titles. */
  readonly name: string;
  /**
   * Opens a fresh driver in a fresh host, through `TestHost.open`. The children given there are where the suite
   * lets requests fail, wait and change places. The disk should have 64 KiB to 4 MiB, a multiple of its
   * alignment, and at least eight times that; its limits should allow requests of two alignment units.
   */
  open(): Promise<TestHost>;
  /**
   * Opens again what was opened before, over the same storage. The earlier host was closed, or left by
   * `abandon` as in a crash. Only for drivers whose content outlives them.
   */
  readonly reopen?: (earlier: TestHost) => Promise<TestHost>;
  readonly capabilities?: DriverCapabilities;
  /** `describe` of the test runner. */
  readonly describe: (title: string, body: () => void) => unknown;
  /** `it` or `test` of the test runner; has to fail when the promise rejects. */
  readonly it: (title: string, body: () => Promise<void>) => unknown;
  /** Seeds of the model test, 0 up to this. Default 4. */
  readonly seedCount?: number;
  /** Operations of each model test. Default 60. */
  readonly stepCount?: number;
}

/** Registers one test of the suite. */
export interface SuiteContext {
  readonly options: ConformanceOptions;
  readonly capabilities: Required<DriverCapabilities>;
  readonly describe: ConformanceOptions["describe"];
  readonly it: ConformanceOptions["it"];
}

/** Fills in what was not declared. */
export function declared(capabilities: DriverCapabilities = {}): Required<DriverCapabilities> {
  const write = capabilities.write ?? true;
  return {
    write,
    writeVector: capabilities.writeVector ?? write,
    writeZeroes: capabilities.writeZeroes ?? write,
    discard: capabilities.discard ?? write,
    discardReads: capabilities.discardReads ?? "anything",
    truncate: capabilities.truncate ?? write,
    blockStatus: capabilities.blockStatus ?? true,
    makeEmpty: capabilities.makeEmpty ?? false,
    contents: capabilities.contents ?? "stored",
  };
}
