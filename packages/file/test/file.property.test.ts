import type { BlockDriver } from "@blocklayer/driver";
import fc from "fast-check";
import { expect, it } from "vitest";
import { openFile, readBytes, temporaryFile, WAYS } from "./harness.ts";

const SIZE_MAX = 40_000;

interface Step {
  readonly kind: "write" | "zeroes" | "discard" | "truncate";
  readonly offset: number;
  readonly length: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom("write", "zeroes", "discard", "truncate"),
  offset: fc.nat(SIZE_MAX / 2),
  length: fc.integer({ min: 1, max: SIZE_MAX / 2 }),
});

/** The dumbest thing that behaves like a file. */
class Model {
  bytes: Uint8Array = new Uint8Array(1000);

  fill(value: number, offset: number, length: number): void {
    this.resize(Math.max(this.bytes.length, offset + length));
    this.bytes.fill(value, offset, offset + length);
  }

  resize(size: number): void {
    const next = new Uint8Array(size);
    next.set(this.bytes.subarray(0, size));
    this.bytes = next;
  }
}

/** Does the same to both. What the driver does not offer is left out. */
async function apply(
  driver: BlockDriver,
  model: Model,
  { kind, offset, length }: Step,
  fill: number,
) {
  if (kind === "truncate") {
    await driver.truncate?.(offset);
    model.resize(offset);
  } else if (kind === "write") {
    await driver.pwrite?.(offset, new Uint8Array(length).fill(fill));
    model.fill(fill, offset, length);
  } else if (kind === "zeroes" && driver.pwriteZeroes !== undefined) {
    await driver.pwriteZeroes(offset, length);
    model.fill(0, offset, length);
  } else if (driver.pdiscard !== undefined && offset < model.bytes.length) {
    const inside = Math.min(length, model.bytes.length - offset);
    await driver.pdiscard(offset, inside);
    model.fill(0, offset, inside);
  }
}

it.each(WAYS)("a file equals an array of bytes that grows and shrinks, %s", async (_name, ffi) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      await using host = await openFile(temporaryFile(1000), { ffi });
      const model = new Model();
      for (const [index, next] of steps.entries()) {
        await apply(host.driver, model, next, index + 1);
        expect(host.driver.size).toBe(model.bytes.length);
      }
      const size = model.bytes.length;
      const content = await readBytes(host.driver, 0, size + 100);
      expect(Buffer.compare(content.subarray(0, size), model.bytes)).toBe(0);
      expect(content.subarray(size)).toEqual(new Uint8Array(100));
    }),
    { numRuns: 100 },
  );
});
