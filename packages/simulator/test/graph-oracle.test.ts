import { describe, expect, it } from "vitest";
import type { Place, View } from "../src/worlds/graph-model.ts";
import {
  type GraphClient,
  GraphOracle,
  type GraphRequest,
  type GraphRequestKind,
} from "../src/worlds/graph-oracle.ts";

const CELL = 64;
const left: Place = { medium: 0, window: 0 };
const right: Place = { medium: 1, window: 0 };
const overlay: Place = { medium: 0, window: 2 };

/** A client, two disks and an overlay, and what the oracle has said. */
class Scene {
  readonly findings: string[] = [];
  readonly client: GraphClient & { view: View | undefined; mayWrite: boolean };
  readonly oracle: GraphOracle;
  readonly content: Map<Place, Uint8Array> = new Map();

  constructor() {
    this.client = { name: "guest", number: 7, mayWrite: true, view: [left] };
    this.oracle = new GraphOracle({
      cellSize: CELL,
      cells: 4,
      report: (kind) => void this.findings.push(kind),
    });
    for (const place of [left, right, overlay]) {
      this.content.set(place, this.oracle.addPlace(place, place === overlay));
    }
  }

  begin(kind: GraphRequestKind, cell = 0, cells = 1): GraphRequest {
    return this.oracle.begin(kind, this.client, cell * CELL, cells * CELL);
  }

  /** The data of a write reach a disk. */
  arrive(write: GraphRequest, place: Place, cells = write.length / CELL): void {
    const data = this.oracle.payload(write).subarray(0, cells * CELL);
    this.content.get(place)?.set(data, write.offset);
    this.oracle.arrived(place, write.offset, data);
  }

  write(place: Place, cell = 0, cells = 1): void {
    const write = this.begin("write", cell, cells);
    this.arrive(write, place);
    this.oracle.end(write, true);
  }

  plug(...view: View): void {
    this.client.view = view;
    this.oracle.switched(this.client, view);
  }

  /** What is wrong when a read that began before returns the content of a place. */
  problem(read: GraphRequest, place: Place): string | undefined {
    const content = this.content.get(place) ?? new Uint8Array();
    const problem = this.oracle.check(read, content.slice(read.offset, read.offset + read.length));
    this.oracle.end(read, true);
    return problem;
  }

  reads(place: Place, cell = 0): string | undefined {
    return this.problem(this.begin("read", cell), place);
  }
}

describe("where writes go", () => {
  it.each<{ readonly title: string; act: (scene: Scene) => void; findings: readonly string[] }>([
    { title: "to the disk of the client, whole", act: (s) => s.write(left, 1, 3), findings: [] },
    {
      title: "in pieces",
      act: (s) => {
        const write = s.begin("write", 0, 2);
        s.arrive(write, left, 1);
        s.oracle.arrived(left, CELL, s.oracle.payload(write).subarray(CELL));
        s.oracle.end(write, true);
      },
      findings: [],
    },
    {
      title: "to the disk into which the client was plugged meanwhile",
      act: (s) => {
        const write = s.begin("write");
        s.plug(right);
        s.arrive(write, right);
        s.oracle.end(write, true);
      },
      findings: [],
    },
    { title: "to another disk", act: (s) => s.write(right), findings: ["write went astray"] },
    {
      title: "to the old disk after the client was plugged over",
      act: (s) => {
        const write = s.begin("write");
        s.plug(right);
        s.arrive(write, left);
        s.oracle.end(write, true);
      },
      findings: ["write went astray"],
    },
    {
      title: "to both disks",
      act: (s) => {
        const write = s.begin("write", 0, 2);
        s.arrive(write, left, 1);
        s.plug(right);
        s.oracle.arrived(right, CELL, s.oracle.payload(write).subarray(CELL));
        s.oracle.end(write, true);
      },
      findings: ["write went to two disks"],
    },
    {
      title: "nowhere",
      act: (s) => s.oracle.end(s.begin("write"), true),
      findings: ["write lost"],
    },
    {
      title: "only in part",
      act: (s) => {
        const write = s.begin("write", 0, 2);
        s.arrive(write, left, 1);
        s.oracle.end(write, true);
      },
      findings: ["write lost"],
    },
    {
      title: "nowhere, and the client knows",
      act: (s) => s.oracle.end(s.begin("write"), false),
      findings: [],
    },
    {
      title: "twice",
      act: (s) => {
        const write = s.begin("write");
        s.arrive(write, left);
        s.arrive(write, left);
        s.oracle.end(write, true);
      },
      findings: ["written twice"],
    },
    {
      title: "after their end",
      act: (s) => {
        const write = s.begin("write");
        s.oracle.end(write, false);
        s.arrive(write, left);
      },
      findings: ["write after its end"],
    },
    {
      title: "to other cells than theirs",
      act: (s) => {
        const write = s.begin("write");
        s.oracle.arrived(left, CELL, s.oracle.payload(write));
        s.oracle.end(write, false);
      },
      findings: ["astray"],
    },
    {
      title: "although the client may not write",
      act: (s) => {
        s.client.mayWrite = false;
        s.arrive(s.begin("write"), left);
      },
      findings: ["written without permission"],
    },
  ])("$title", ({ act, findings }) => {
    const scene = new Scene();
    act(scene);
    expect(scene.findings).toEqual(findings);
  });
});

describe("what reads return", () => {
  it("is the first content of the disk that the client is plugged into", () => {
    const scene = new Scene();
    expect(scene.reads(left)).toBeUndefined();
    expect(scene.reads(right)).toMatch(/^guest: cell 0 of window 0 of medium 0 holds operation \d/);
  });

  it("is the last write that ended, and no older one", () => {
    const scene = new Scene();
    const old = scene.content.get(left)?.slice() ?? new Uint8Array();
    scene.write(left);
    expect(scene.reads(left)).toBeUndefined();
    scene.content.set(left, old);
    expect(scene.reads(left)).toContain("cell 0");
  });

  it("may be old or new while a write runs", () => {
    const scene = new Scene();
    const write = scene.begin("write");
    expect(scene.reads(left)).toBeUndefined();
    scene.arrive(write, left);
    expect(scene.reads(left)).toBeUndefined();
  });

  it("is of either disk when the client is plugged over meanwhile, and of the new one from then on", () => {
    const scene = new Scene();
    const [one, other] = [scene.begin("read"), scene.begin("read")];
    scene.plug(right);
    expect(scene.problem(one, left)).toBeUndefined();
    expect(scene.problem(other, right)).toBeUndefined();
    expect(scene.reads(right)).toBeUndefined();
    expect(scene.reads(left)).toBeDefined();
  });

  it("comes through an overlay until somebody has written there", () => {
    const scene = new Scene();
    scene.plug(overlay, right);
    expect(scene.reads(right, 1)).toBeUndefined();
    scene.write(overlay, 1);
    expect(scene.reads(right, 1)).toBeDefined();
    expect(scene.reads(overlay, 1)).toBeUndefined();
    expect(scene.reads(right, 2)).toBeUndefined();
  });

  it("is zeroes where an overlay has nothing below", () => {
    const scene = new Scene();
    scene.plug(overlay);
    const read = scene.begin("read");
    expect(scene.oracle.check(read, new Uint8Array(CELL))).toBeUndefined();
    expect(scene.oracle.check(read, new Uint8Array(CELL).fill(1))).toContain("damaged");
  });

  it.each([
    { kind: "zeroes", isPlugged: false, isOldAllowed: false },
    // Nobody knows on which of the two disks it was.
    { kind: "zeroes", isPlugged: true, isOldAllowed: true },
    { kind: "discard", isPlugged: false, isOldAllowed: true },
  ] as const)(
    "after $kind that the client was plugged over in: $isPlugged",
    ({ kind, isPlugged, isOldAllowed }) => {
      const scene = new Scene();
      const request = scene.begin(kind);
      if (isPlugged) scene.plug(right);
      scene.oracle.end(request, true);
      const place = isPlugged ? right : left;
      expect(scene.reads(place) === undefined).toBe(isOldAllowed);
      scene.content.get(place)?.fill(0);
      expect(scene.reads(place)).toBeUndefined();
    },
  );

  it("is nothing when the client is plugged into nothing", () => {
    const scene = new Scene();
    scene.client.view = undefined;
    expect(scene.reads(left)).toBe("guest: it is plugged into nothing");
  });
});
