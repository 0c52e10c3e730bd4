import {
  expectBytes,
  ReferenceDisk,
  type TestHost,
  type TestHostOptions,
} from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { crashStates, RecordingDisk } from "./crash-states.ts";
import { ImageBytes } from "./image-bytes.ts";
import { contentOf } from "./image-rig.ts";
import { createInMemory, growingFile, openInMemory } from "./memory-image.ts";

const SIZE = 96 * 1024;

type Options = Readonly<Record<string, unknown>>;

interface Case {
  readonly create: Options;
  readonly amend: Options;
  readonly hasBacking?: boolean;
  /** Bytes that the disk has afterwards. Default as before. */
  readonly size?: number;
}

const CASES: readonly Case[] = [
  { create: { version: "v2" }, amend: { version: "v3", "refcount-bits": 8 } },
  { create: {}, amend: { "refcount-bits": 64 } },
  { create: { "refcount-bits": 64 }, amend: { "refcount-bits": 4 } },
  { create: { "lazy-refcounts": true }, amend: { "lazy-refcounts": false, version: "v2" } },
  { create: {}, amend: { version: "v2" } },
  { create: {}, amend: { version: "v2" }, hasBacking: true },
  { create: {}, amend: { size: SIZE / 2, "lazy-refcounts": true }, size: SIZE / 2 },
];

/** Snapshots that share tables with the disk and with each other, zero clusters with and without a place. */
async function fill(host: TestHost): Promise<void> {
  const { driver } = host;
  await driver.pwrite?.(0, new Uint8Array(SIZE / 2).fill(5));
  if (driver.flags.zeroes !== 0) await driver.pwriteZeroes?.(8192, 4096).catch(() => undefined);
  for (const name of ["one", "two"]) {
    await driver.snapshots?.create({
      name,
      vmStateSize: 0,
      dateMs: 0,
      vmClockNs: 0,
      diskSize: SIZE,
    });
  }
  await driver.pwrite?.(512, new Uint8Array(2048).fill(6));
  await driver.pdiscard?.(16384, 4096).catch(() => undefined);
}

function settings({ hasBacking = false }: Case): TestHostOptions {
  if (!hasBacking) return {};
  const backing = new ReferenceDisk({ size: SIZE });
  backing.bytes.fill(9);
  return { children: { backing } };
}

/** What the disk and its snapshots show; ends with the disk of the last one. */
async function shows(bytes: Uint8Array, one: Case): Promise<readonly Uint8Array[]> {
  const host = await openInMemory(bytes, settings(one));
  const found: Uint8Array[] = [await contentOf(host.driver)];
  for (const { name } of (await host.driver.snapshots?.list()) ?? []) {
    await host.driver.snapshots?.apply(name);
    found.push(await contentOf(host.driver));
  }
  await host.close();
  return found;
}

/** Amends a copy of an image; request number `at` fails, and perhaps all that follow. Returns the file, if one failed. */
async function amendWithFault(
  bytes: Uint8Array,
  one: Case,
  failure: { readonly at: number; readonly persistent: boolean },
): Promise<Uint8Array | undefined> {
  const file = growingFile(bytes);
  const host = await openInMemory(file, settings(one));
  host.gate.failAt(failure);
  const error = await host.driver.amend?.(one.amend).catch((reason: unknown) => reason);
  const { hasFailed } = host.gate;
  if (failure.persistent) host.abandon();
  else await host.close().catch(() => undefined);
  if (!hasFailed) expect(error).toBeUndefined();
  return hasFailed ? file.bytes : undefined;
}

/** Only leaks; the disk and its snapshots show what they showed. */
async function expectValid(
  bytes: Uint8Array,
  one: Case,
  expected: readonly Uint8Array[],
  what: string,
): Promise<void> {
  const found = await openInMemory(bytes, { ...settings(one), generic: { readOnly: true } });
  const result = await found.driver.check?.();
  const info = await found.driver.getInfo?.();
  await found.close();
  // Late counts are mended on opening.
  if (info?.isDirty !== true) {
    expect(result, what).toMatchObject({ corruptions: 0, checkErrors: 0 });
  }
  const now = await shows(bytes, one);
  expect(now).toHaveLength(expected.length);
  for (const [index, content] of expected.entries()) {
    const part = now[index]?.subarray(0, one.size ?? SIZE) ?? new Uint8Array(0);
    expect(part).toHaveLength(one.size ?? SIZE);
    expectBytes(part, content.subarray(0, part.length), `content ${index} ${what}`);
  }
}

/** States that are looked at for each case, evenly over all of them. */
const STATES = 150;

describe("an image that is amended while the machine stops", () => {
  it.each(CASES)("($create, $amend, backing $hasBacking) stays valid", async (one) => {
    const create = { size: SIZE, "cluster-size": 512, ...one.create };
    const made = growingFile(await createInMemory(create));
    const host = await openInMemory(made, settings(one));
    await fill(host);
    await host.close();
    const expected = await shows(made.bytes, one);
    const disk = new RecordingDisk(made.bytes);
    const amended = await openInMemory(disk, settings(one));
    await amended.driver.amend?.(one.amend);
    await amended.close();
    const states = [...crashStates(made.bytes, disk.log)];
    const step = Math.max(1, Math.floor(states.length / STATES));
    for (const [index, { what, bytes }] of states.entries()) {
      if (index % step === 0 || index === states.length - 1) {
        await expectValid(bytes, one, expected, what);
      }
    }
    expect(states.length).toBeGreaterThan(10);
  });
});

describe("an image whose counts reach far", () => {
  it("is not given a width that its table would be too large for", async () => {
    const clusterSize = 512;
    const small = await createInMemory({
      size: SIZE,
      "cluster-size": clusterSize,
      "refcount-bits": 1,
    });
    // A table with an entry for clusters at 34 GB, and a block that counts one of them.
    const index = 16_500;
    const table = small.length + clusterSize - (small.length % clusterSize);
    const clusters = Math.ceil(((index + 1) * 8) / clusterSize);
    const block = table + clusters * clusterSize;
    const grown = new Uint8Array(block + clusterSize);
    grown.set(small);
    const bytes = new ImageBytes(grown);
    grown.set(small.subarray(bytes.refcountTable, bytes.refcountTable + clusterSize), table);
    bytes.set64(table + index * 8, BigInt(block));
    grown[block] = 1;
    bytes.set64(48, BigInt(table));
    bytes.set32(56, clusters);
    const host = await openInMemory(grown);
    await expect(host.driver.amend?.({ "refcount-bits": 64 })).rejects.toMatchObject({
      code: "EFBIG",
      message: "the refcount table would be too large",
      context: { limit: 8 * 2 ** 20 },
    });
    await host.driver.pread(0, new Uint8Array(SIZE));
    await host.close();
  });
});

describe("an image that is amended while its file fails", () => {
  it.each(CASES.flatMap((one) => [true, false].map((persistent) => ({ ...one, persistent }))))(
    "($create, $amend, backing $hasBacking, for good $persistent) stays valid",
    async (one) => {
      const create = { size: SIZE, "cluster-size": 512, ...one.create };
      const made = growingFile(await createInMemory(create));
      const host = await openInMemory(made, settings(one));
      await fill(host);
      await host.close();
      const expected = await shows(made.bytes, one);
      let at = 1;
      for (; ; at += 1 + Math.floor(at / 40)) {
        const { persistent } = one;
        const bytes = await amendWithFault(made.bytes, one, { at, persistent });
        if (bytes === undefined) break;
        await expectValid(bytes, one, expected, `after request ${at}`);
      }
      expect(at).toBeGreaterThan(2);
    },
  );
});
