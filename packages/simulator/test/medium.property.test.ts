import { settleTurn } from "@blocklayer/env";
import { Decisions, Medium } from "@blocklayer/simulator";
import fc from "fast-check";
import { expect, it } from "vitest";

const SECTOR = 512;
const SECTORS = 8;
const SIZE = SECTORS * SECTOR;

const LONGEST = SIZE + 4 * SECTOR;

/** The dumbest disk: its content, and for each sector every content that a crash may leave. */
class Model {
  /** Zeroes beyond the end. */
  readonly visible: Uint8Array = new Uint8Array(LONGEST);
  size: number = SIZE;
  /** Every length that a crash may leave. */
  sizes: number[] = [SIZE];
  readonly possible: Uint8Array[][] = Array.from({ length: LONGEST / SECTOR }, () => [
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

  resize(size: number): void {
    if (size < this.size) this.change(size, new Uint8Array(this.size - size));
    this.size = size;
    this.sizes.push(size);
  }

  /** What is visible is all that is possible. */
  settle(): void {
    this.sizes = [this.size];
    for (let index = 0; index < this.possible.length; index += 1) {
      this.possible[index] = [this.sector(index)];
    }
  }

  /** Takes what a crash left. */
  lose(content: Uint8Array): void {
    expect(this.sizes).toContain(content.length);
    for (let index = 0; index * SECTOR < content.length; index += 1) {
      const left = new Uint8Array(SECTOR);
      left.set(content.subarray(index * SECTOR, (index + 1) * SECTOR));
      // Of the last sector a part may be cut off.
      const end = Math.min(SECTOR, content.length - index * SECTOR);
      const possible = this.possible[index]?.map((one) => one.slice().fill(0, end));
      expect(possible).toContainEqual(left);
    }
    this.visible.fill(0);
    this.visible.set(content);
    this.size = content.length;
    this.settle();
  }
}

const step = fc.record({
  kind: fc.constantFrom("write", "write", "fua", "zeroes", "discard", "flush", "crash", "resize"),
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
        const content = new Uint8Array(LONGEST);
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
  const length = Math.min(wanted, Math.max(0, model.size - offset));
  const bytes = new Uint8Array(length).fill(byte);
  if (length === 0 && !["crash", "flush", "resize"].includes(kind)) return;
  switch (kind) {
    case "resize":
      await medium.truncate(Math.min(LONGEST, offset + wanted));
      model.resize(Math.min(LONGEST, offset + wanted));
      return;
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
  // Whatever would cut it off is over.
  if (offset + length > Math.min(...model.sizes)) model.sizes = [model.size];
  for (let index = Math.floor(offset / SECTOR); index * SECTOR < offset + length; index += 1) {
    model.possible[index] = [model.sector(index)];
  }
}
