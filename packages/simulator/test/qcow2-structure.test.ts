import { describe, expect, it } from "vitest";
import { hasUnknownExtension, madeImage } from "../src/worlds/qcow2-images.ts";
import type { Qcow2Shape } from "../src/worlds/qcow2-plan.ts";
import { describeProblems, readStructure } from "../src/worlds/qcow2-structure.ts";

const SHAPE: Qcow2Shape = {
  version: "v3",
  clusterSize: 512,
  extendedL2: false,
  refcountBits: 16,
  lazyRefcounts: false,
  size: 4096,
  capacity: 4096,
  cellSize: 512,
  backing: "none",
  backingSize: 0,
  isCrowded: false,
  hasUnknown: false,
  options: {},
  discard: "unmap",
};

/** An image in which all of the disk was written. */
async function written(): Promise<DataView> {
  const content = new Uint8Array(SHAPE.size).fill(1);
  return new DataView((await madeImage(SHAPE, SHAPE.size, content)).slice().buffer);
}

const offsetOf = (image: DataView, at: number): number => image.getUint32(at + 4) & ~511;
const l1Of = (image: DataView): number => offsetOf(image, 40);
const l2Of = (image: DataView): number => offsetOf(image, l1Of(image));
const blockOf = (image: DataView): number => offsetOf(image, offsetOf(image, 48));

interface Damage {
  readonly what: string;
  readonly damage: (image: DataView) => void;
  readonly finding: string;
}

const DAMAGES: readonly Damage[] = [
  {
    what: "a count that is too low",
    damage: (image) => image.setUint16(blockOf(image) + 2 * (l2Of(image) / 512), 0),
    finding: "is counted 0 times for 1 references (L2 table 0 the disk)",
  },
  {
    what: "two guest clusters in one place",
    damage: (image) => image.setUint32(l2Of(image) + 12, image.getUint32(l2Of(image) + 4)),
    finding: "is shared by data 0 the disk, data 1 the disk",
  },
  {
    what: "a guest cluster in a table",
    damage: (image) => image.setUint32(l2Of(image) + 4, l1Of(image)),
    finding: "is shared by L1 table",
  },
  {
    what: "a guest cluster behind the end",
    damage: (image) => image.setUint32(l2Of(image) + 4, image.byteLength + 512),
    finding: "guest cluster 0 of the disk at",
  },
  {
    what: "a table behind the end",
    damage: (image) => image.setUint32(l1Of(image) + 4, l2Of(image) + 2 * image.byteLength),
    finding: "L2 table 0 of the disk at",
  },
];

describe("the reader of structures", () => {
  it("finds nothing in an image that was closed", async () => {
    const report = readStructure(new Uint8Array((await written()).buffer));
    expect(report).toMatchObject({
      problems: [],
      marks: [],
      leaks: [],
      isDirty: false,
      size: 4096,
    });
    expect(describeProblems(report.problems)).toBeUndefined();
  });

  it.each(DAMAGES)("finds $what", async ({ damage, finding }) => {
    const image = await written();
    damage(image);
    const { problems } = readStructure(new Uint8Array(image.buffer));
    expect(problems.join("; ")).toContain(finding);
  });

  it("tells counts that are too high, and marks that are not true, apart from what is unsafe", async () => {
    const image = await written();
    image.setUint16(blockOf(image) + 2 * (l2Of(image) / 512), 2);
    const { problems, leaks, marks } = readStructure(new Uint8Array(image.buffer));
    expect({ problems, leaks: leaks.length, marks }).toEqual({
      problems: [],
      leaks: 1,
      marks: ["L2 table 0 is marked with count 2"],
    });
  });

  it("says what a place is used for", async () => {
    const image = await written();
    const { useOf } = readStructure(new Uint8Array(image.buffer));
    expect([0, l1Of(image), l2Of(image) + 8, blockOf(image)].map(useOf)).toEqual([
      "header",
      "L1 table",
      "L2 table",
      "refcount block",
    ]);
  });
});

describe("an image for a life", () => {
  it("can have its first block of counts nearly full", async () => {
    const shape: Qcow2Shape = { ...SHAPE, refcountBits: 64, isCrowded: true };
    const { problems, leaks, used } = readStructure(await madeImage(shape, SHAPE.size));
    expect({ problems, leaks, used }).toEqual({ problems: [], leaks: [], used: 60 });
  });

  it("can have features that nobody knows", async () => {
    const image = await madeImage({ ...SHAPE, hasUnknown: true }, SHAPE.size);
    expect(hasUnknownExtension(image)).toBe(true);
    expect(readStructure(image)).toMatchObject({ compatible: 0x80, autoclear: 0x20, problems: [] });
  });
});
