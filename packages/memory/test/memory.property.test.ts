import { patternBytes, ReferenceDisk, readAll, TestHost } from "@blocklayer/driver-tests";
import { type MemoryDriver, memory } from "@blocklayer/memory";
import fc from "fast-check";
import { expect, it } from "vitest";

const CLUSTER = 512;
const SIZE = 8 * CLUSTER;

const range = fc
  .tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 3 * CLUSTER }))
  .map(([offset, length]) => ({ offset, length: Math.min(length, SIZE - offset) }));

const step = fc.record({
  kind: fc.constantFrom("write", "zeroes", "unmap", "discard", "cut"),
  range,
});

it("an overlay equals a copy of its backing disk that was written to", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.nat(SIZE), async (steps, baseSize) => {
      const base = new ReferenceDisk({ size: baseSize });
      base.bytes.set(patternBytes(baseSize, 1));
      const model = new Uint8Array(SIZE);
      model.set(base.bytes);
      const host = await TestHost.open(memory, {
        options: { size: SIZE, "cluster-size": CLUSTER },
        children: { backing: base },
      });
      const driver = host.driver as MemoryDriver;
      for (const [
        index,
        {
          kind,
          range: { offset, length },
        },
      ] of steps.entries()) {
        await apply(driver, model, kind, offset, length, index);
      }
      expect(await readAll(driver)).toEqual(model);
      await host.close();
    }),
    { numRuns: 200 },
  );
});

async function apply(
  driver: MemoryDriver,
  model: Uint8Array,
  kind: string,
  offset: number,
  length: number,
  seed: number,
): Promise<void> {
  const end = offset + length;
  if (kind === "write") {
    const bytes = patternBytes(length, seed + 2);
    model.set(bytes, offset);
    await driver.pwrite(offset, bytes);
  } else if (kind === "cut") {
    model.fill(0, offset);
    await driver.truncate(offset);
    await driver.truncate(SIZE, { zero: true });
  } else if (kind === "discard") {
    // Whole clusters read as zeroes from here on; parts keep what they have.
    const first = Math.ceil(offset / CLUSTER) * CLUSTER;
    const last = Math.floor(end / CLUSTER) * CLUSTER;
    if (first < last) model.fill(0, first, last);
    await driver.pdiscard(offset, length);
  } else {
    model.fill(0, offset, end);
    await driver.pwriteZeroes(offset, length, { flags: kind === "unmap" ? 0x4 : 0 });
  }
}
