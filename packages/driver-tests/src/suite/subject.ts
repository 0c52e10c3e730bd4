import { type BlockDriver, type BlockLimits, mergeLimits } from "@blocklayer/driver";
import { settleTurn } from "@blocklayer/env";
import { alignDown } from "@blocklayer/offsets";
import { expect, expectBytes } from "../expect.ts";
import { patternBytes } from "../pattern.ts";
import type { TestHost } from "../test-host.ts";
import { type ContentReader, readAll, writeAll } from "../whole-disk.ts";
import type { SuiteContext } from "./conformance-options.ts";

/** The driver under test with what it must hold. */
export class Subject {
  readonly host: TestHost;
  readonly driver: BlockDriver;
  readonly limits: BlockLimits;
  /** Bytes that every request is a multiple of. */
  readonly granule: number;
  /** Bytes: the unit in which the driver allocates, else some length of more than a granule. */
  readonly clusterSize: number;
  /** What the driver must read. */
  content: Uint8Array;
  /** Whether the driver keeps what is written to it; else `content` is what it read at first. */
  readonly storesContent: boolean;

  private constructor(
    host: TestHost,
    clusterSize: number,
    content: Uint8Array,
    storesContent: boolean,
  ) {
    this.host = host;
    this.driver = host.driver;
    this.limits = mergeLimits([], host.driver.limits);
    this.granule = this.limits.requestAlignment;
    const someLength = alignDown(content.length / 16, this.granule);
    this.clusterSize = Math.max(clusterSize === 0 ? someLength : clusterSize, this.granule);
    this.content = content;
    this.storesContent = storesContent;
  }

  /** Opens the driver; `"filled"` writes a pattern over all of it first. */
  static async open(context: SuiteContext, start: "fresh" | "filled" = "fresh"): Promise<Subject> {
    const host = await context.options.open();
    return Subject.of(context, host, start);
  }

  static async of(
    { capabilities }: SuiteContext,
    host: TestHost,
    start: "fresh" | "filled" = "fresh",
  ): Promise<Subject> {
    const { driver } = host;
    const stores = capabilities.contents === "stored";
    if (start === "filled" && capabilities.write) {
      await writeAll(driver, patternBytes(driver.size, 7));
    }
    const content = await readAll(driver);
    const clusterSize = await driver.getInfo?.().then(
      (info) => info.clusterSize ?? 0,
      () => 0,
    );
    const subject = new Subject(host, clusterSize ?? 0, content, stores);
    const { granule } = subject;
    expect(content.length >= 8 * granule, `the disk has fewer than 8 units of ${granule} bytes`);
    host.gate.reset();
    return subject;
  }

  /** The middle, at a boundary of two clusters where there are several. */
  get middle(): number {
    const half = alignDown(this.content.length / 2, this.clusterSize);
    return half > 0 ? half : alignDown(this.content.length / 2, this.granule);
  }

  /** Compares bytes that the driver read with those it must hold. */
  expectRead(actual: Uint8Array, offset: number, what: string): void {
    if (!this.storesContent) return;
    expectBytes(actual, this.content.subarray(offset, offset + actual.length), what, offset);
  }

  /** Reads everything and compares. */
  async expectContent(what: string): Promise<void> {
    if (this.storesContent) expectBytes(await readAll(this.driver), this.content, what);
  }

  /** What unallocated ranges show: the backing child, or zeroes. */
  readonly below: ContentReader = async (offset, length) => {
    const buffer = new Uint8Array(length);
    await this.host.children.get("backing")?.pread(offset, buffer);
    return buffer;
  };

  async flush(): Promise<void> {
    const { driver } = this;
    if (driver.flush !== undefined) {
      await driver.flush();
      return;
    }
    await driver.flushToOs?.();
    await driver.flushToDisk?.();
  }

  /** Closes, and leaves a turn for rejections that nobody handles to be reported. */
  async close(): Promise<void> {
    await this.host.close();
    await settleTurn();
  }
}

/** Opens, works, closes, whatever happens. */
export async function withSubject(
  context: SuiteContext,
  start: "fresh" | "filled",
  work: (subject: Subject) => Promise<void>,
): Promise<void> {
  const subject = await Subject.open(context, start);
  try {
    await work(subject);
  } finally {
    await subject.close();
  }
}
