import { ReferenceDisk, TestHost, testChild } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bitmap, bitmapsOf, heldBy } from "./bitmap-rig.ts";
import { qcow2 } from "./image-rig.ts";

/** What an image holds by name; whether it records. */
interface Kept {
  readonly enabled: boolean;
  readonly dirty: readonly number[] | "in use";
}

const NAMES = ["a", "b", "c", "d"];
const SIZE: number = 3 * 2 ** 20 + 512;
const GRANULARITIES = [512, 4096, 65536];

interface Step {
  readonly verb: "store" | "mark" | "remove" | "write" | "reopen";
  readonly names: readonly string[];
  readonly bits: readonly number[];
  readonly granularity: number;
  readonly enabled: boolean;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    verb: fc.oneof(
      { arbitrary: fc.constantFrom<Step["verb"]>("store"), weight: 3 },
      { arbitrary: fc.constantFrom<Step["verb"]>("mark", "remove", "write", "reopen"), weight: 4 },
    ),
    names: fc.uniqueArray(fc.constantFrom(...NAMES), { maxLength: 3 }),
    bits: fc.uniqueArray(fc.nat(6144), { maxLength: 12 }),
    granularity: fc.constantFrom(...GRANULARITIES),
    enabled: fc.boolean(),
  }),
  { maxLength: 8 },
);

/** A new image in memory. */
async function newImage(clusterSize: number): Promise<ReferenceDisk> {
  const file = new ReferenceDisk({ size: 0, growing: true });
  const options = qcow2.createSchema?.parse({ size: SIZE, "cluster-size": clusterSize });
  if (options?.ok !== true) throw new Error("the options do not fit");
  await qcow2.create?.(options.value, { env: realEnv(), file: testChild(file) });
  return file;
}

describe("an image", () => {
  it("holds the bitmaps that it was given, whatever is done, and leaks nothing", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(512, 4096, 65536), steps, async (clusterSize, list) => {
        const disk = await newImage(clusterSize);
        const host = await TestHost.open(qcow2, { env: realEnv(), children: { file: disk } });
        const model = new Map<string, Kept>();
        for (const step of list) {
          await apply(host, step, model);
          const expected = [...model].map(([name, { dirty }]) => [name, dirty]);
          expect(await heldBy(host.driver)).toEqual(Object.fromEntries(expected));
        }
        await host.driver.flush?.();
        const found = await host.driver.check?.();
        expect([found?.corruptions, found?.leaks]).toEqual([0, 0]);
        await host.close();
      }),
      { numRuns: 60 },
    );
  });
});

async function apply({ driver }: TestHost, step: Step, model: Map<string, Kept>): Promise<void> {
  const { verb, names, bits, granularity, enabled } = step;
  const storage = bitmapsOf(driver);
  const groups = Math.ceil(SIZE / granularity);
  const dirty = [...new Set(bits.map((bit) => bit % groups))].sort((one, other) => one - other);
  switch (verb) {
    case "store":
      await storage.store(
        names.map((name) => bitmap(name, dirty, { granularity, size: SIZE, enabled })),
      );
      model.clear();
      for (const name of names) model.set(name, { enabled, dirty });
      break;
    case "remove":
      for (const name of names) {
        await storage.remove(name);
        model.delete(name);
      }
      break;
    case "mark":
      await storage.markInUse(names);
      markAll(model, (name) => names.includes(name));
      break;
    case "write":
      await driver.pwrite?.((bits[0] ?? 0) * 512, new Uint8Array(512).fill(1));
      markAll(model, (_, kept) => kept.enabled);
      break;
    default:
      await driver.inactivate?.();
      await driver.activate?.();
  }
}

function markAll(model: Map<string, Kept>, isMeant: (name: string, kept: Kept) => boolean): void {
  for (const [name, kept] of model) {
    if (isMeant(name, kept)) model.set(name, { ...kept, dirty: "in use" });
  }
}
