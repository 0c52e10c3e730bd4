import { Decisions, Medium, RegisterOracle, type Simulation } from "@blocklayer/simulator";
import { describe, expect, it } from "vitest";
import { SnapshotMove } from "../src/worlds/snapshot-move.ts";

const SECTOR = 4096;
const SLOW = { atOnce: 0, later: 1, early: 0, slow: 0, faults: 0 };

interface Rig {
  readonly source: Medium;
  readonly target: Medium;
  readonly move: SnapshotMove;
  readonly found: string[];
}

/** A source full of ones that is being moved away. @param lost - which decision says when the target is lost */
function rig(lost = 3): Rig {
  const found: string[] = [];
  const medium = (name: string): Medium =>
    new Medium({
      name,
      size: 4 * SECTOR,
      sectorSize: SECTOR,
      decisions: new Decisions([]),
      post: () => undefined,
      report: (kind) => void found.push(kind),
    });
  const [source, target] = [medium("source"), medium("target")];
  source.format(new Uint8Array(4 * SECTOR).fill(1));
  const simulation = {
    decisions: new Decisions([lost]),
    sometimes: () => undefined,
    expect: (condition: boolean, kind: string) => void (condition || found.push(kind)),
  } as unknown as Simulation;
  const writes = new RegisterOracle({ disk: 1, size: 4 * SECTOR, cellSize: 512 });
  const move = new SnapshotMove(simulation, { source, target }, writes);
  return { source, target, move, found };
}

describe("a medium", () => {
  it.each([
    { operation: "discard", offset: 0, isUnderWay: false },
    { operation: "discard", offset: SECTOR, isUnderWay: true },
    { operation: "write", offset: SECTOR, isUnderWay: false },
    { operation: "discard", offset: 2 * SECTOR, isUnderWay: false },
  ] as const)(
    "says of a $operation at $offset whether it is under way: $isUnderWay",
    ({ operation, offset, isUnderWay }) => {
      const { source } = rig();
      source.behaviour = SLOW;
      void source.discard(SECTOR, SECTOR);
      expect(source.isUnderWay(operation, offset, SECTOR)).toBe(isUnderWay);
    },
  );
});

describe("a move", () => {
  it("may discard what is as it was at the instant", () => {
    const { move, found } = rig();
    move.onSubmit("discard", 0, SECTOR);
    expect(found).toEqual([]);
  });

  it("may not discard what was written since", async () => {
    const { source, move, found } = rig();
    await source.write(SECTOR, new Uint8Array(SECTOR).fill(2), false);
    move.onSubmit("discard", 0, SECTOR);
    expect(found).toEqual([]);
    move.onSubmit("discard", 0, 2 * SECTOR);
    expect(found).toEqual(["discarded what was written since"]);
  });

  it.each([
    { first: "discard", second: "write", offset: 0, isFound: true },
    { first: "discard", second: "zeroes", offset: 0, isFound: true },
    { first: "discard", second: "write", offset: SECTOR, isFound: false },
    { first: "discard", second: "discard", offset: 0, isFound: false },
    { first: "write", second: "discard", offset: 0, isFound: true },
    { first: "write", second: "write", offset: 0, isFound: false },
  ] as const)(
    "with a $first under way takes a $second at $offset for wrong: $isFound",
    ({ first, second, offset, isFound }) => {
      const { source, move, found } = rig();
      source.behaviour = SLOW;
      if (first === "discard") void source.discard(0, SECTOR);
      else void source.write(0, new Uint8Array(SECTOR), false);
      move.onSubmit(second, offset, SECTOR);
      expect(found).toEqual(isFound ? ["changed while it was discarded"] : []);
    },
  );

  it.each([
    { lost: 0, discards: 2 },
    { lost: 1, discards: 3 },
    { lost: 2, discards: 1 },
    { lost: 3, discards: 0 },
  ])("loses its target at discard $discards", ({ lost, discards }) => {
    const { move, target } = rig(lost);
    let count = 0;
    move.onTargetLost = () => {
      expect(target.behaviour.faults).toBe(1);
      expect(count).toBe(discards);
    };
    for (count = 1; count <= 4; count += 1) move.onSubmit("discard", 0, SECTOR);
    expect(target.behaviour.faults).toBe(discards === 0 ? 0 : 1);
  });

  it("does not lose its target any more when all is calm", () => {
    const { move, target } = rig(2);
    move.calm();
    move.onSubmit("discard", 0, SECTOR);
    expect(target.behaviour.faults).toBe(0);
  });
});
