import {
  type CopyBeforeWriteDriver,
  type CopyBeforeWriteSettings,
  copyBeforeWrite,
  isCopyBeforeWrite,
} from "@blocklayer/backup-top";
import { patternBytes, ScriptedDriver, TestHost } from "@blocklayer/driver-tests";
import { type ManualEnv, manualEnv } from "@blocklayer/env";
import { assert } from "@blocklayer/errors";

export const CLUSTER = 65536;

/** A filter between a source with content and an empty target. */
export interface Fixture {
  readonly env: ManualEnv;
  readonly host: TestHost;
  readonly filter: CopyBeforeWriteDriver;
  readonly source: ScriptedDriver;
  readonly target: ScriptedDriver;
  /** What the source held at the beginning. */
  readonly before: Uint8Array;
}

export interface FixtureOptions {
  /** Bytes. Default 4 clusters. */
  readonly size?: number;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly settings?: CopyBeforeWriteSettings;
}

export async function fixture({
  size = 4 * CLUSTER,
  options = {},
  settings = {},
}: FixtureOptions = {}): Promise<Fixture> {
  const env = manualEnv();
  const source = new ScriptedDriver({ size });
  source.bytes.set(patternBytes(size, 1));
  const target = new ScriptedDriver({ size });
  const host = await TestHost.open(copyBeforeWrite(settings), {
    env,
    options,
    nodeName: "cbw",
    children: { file: source, target },
  });
  const { driver } = host;
  assert(isCopyBeforeWrite(driver), "the definition opens the filter");
  return { env, host, filter: driver, source, target, before: source.bytes.slice() };
}

export function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

/** Whether two disks hold the same; much faster than `toEqual`. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

/** The snapshot as the filter shows it. */
export async function snapshotOf(filter: CopyBeforeWriteDriver): Promise<Uint8Array> {
  const buffer = new Uint8Array(filter.size);
  await filter.snapshotRead(0, buffer);
  return buffer;
}
