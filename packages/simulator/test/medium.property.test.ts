import { settleTurn } from "@blocklayer/env";
import { Decisions, Medium } from "@blocklayer/simulator";
import fc from "fast-check";
import { expect, it } from "vitest";

const SECTOR = 512;
const SECTORS = 8;
const SIZE = SECTORS * SECTOR;

/** The dumbest disk: its content, and for each sector every content that a crash may leave. */
class Model {
  readonly visible: Uint8Array = new Uint8Array(SIZE);
  readonly possible: Uint8Array[][] = Array.from({ length: SECTORS }, () => [
    new Uint8Array(SECTOR),
  ]);

  sector(index: number): Uint8Array {
    return this.visible.slice(index * SECTOR, (index + 1) * SECTOR);
  }

  change(offset: number, bytes: Uint8Array): void {
    this.visible.set(bytes, offset);
    const end = offset + bytes.length;
    for (let index = Math.floor(offset / SECTOR); index * SECTOR < end; index += 1) {
      this.possible[index]?.push(this.sector(index));
    }
  }

  /** What is visible is all that is possible. */
  settle(): void {
    for (let index = 0; index < SECTORS; index += 1) this.possible[index] = [this.sector(index)];
  }

  /** Takes what a crash left. */
  lose(content: Uint8Array): void {
    for (let index = 0; index < SECTORS; index += 1) {
      const left = content.slice(index * SECTOR, (index + 1) * SECTOR);
      expect(this.possible[index]).toContainEqual(left);
    }
    this.visible.set(content);
    this.settle();
  }
}

const step = fc.record({
  kind: fc.constantFrom("write", "write", "fua", "zeroes", "discard", "flush", "crash"),
  offset: fc.nat(SIZE - 1),
  length: fc.integer({ min: 1, max: 3 * SECTOR }),
  byte: fc.integer({ min: 1, max: 255 }),
});

it("a medium reads as an array of bytes, and after a crash each sector is one of its versions", async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.array(step, { maxLength: 25 }), async (seed, steps) => {
      const medium = new Medium({
        name: "m",
        size: SIZE,
        sectorSize: SECTOR,
        decisions: new Decisions(seed),
        post: (_tag, deliver) => void settleTurn().then(deliver),
        report: (kind, message) => expect.fail(`${kind}: ${message}`),
      });
      medium.behaviour = { atOnce: 6, later: 1, early: 1, slow: 0, faults: 0 };
      const model = new Model();
      for (const one of steps) {
        await take(medium, model, one);
        const content = new Uint8Array(SIZE);
        await medium.read(0, content);
        expect(content).toEqual(model.visible);
      }
      expect(medium.inFlight).toBe(0);
    }),
    { numRuns: 200 },
  );
});

async function take(
  medium: Medium,
  model: Model,
  {
    kind,
    offset,
    length: wanted,
    byte,
  }: { kind: string; offset: number; length: number; byte: number },
): Promise<void> {
  const length = Math.min(wanted, SIZE - offset);
  const bytes = new Uint8Array(length).fill(byte);
  switch (kind) {
    case "crash":
      medium.crash();
      model.lose(medium.cache.visible);
      return;
    case "flush":
      await medium.flush();
      model.settle();
      expect(medium.cache.dirtySectors).toBe(0);
      return;
    case "zeroes":
    case "discard":
      if (kind === "zeroes") await medium.zero(offset, length, false, false);
      else await medium.discard(offset, length);
      model.change(offset, new Uint8Array(length));
      return;
    default:
      await medium.write(offset, bytes, kind === "fua");
      model.change(offset, bytes);
      if (kind === "fua") stabilise(model, offset, length);
  }
}

/** The sectors of a write that completes only when stable can be nothing else any more. */
function stabilise(model: Model, offset: number, length: number): void {
  for (let index = Math.floor(offset / SECTOR); index * SECTOR < offset + length; index += 1) {
    model.possible[index] = [model.sector(index)];
  }
}
