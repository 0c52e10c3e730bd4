import { describe, expect, it } from "vitest";
import {
  GraphModel,
  type ModelEdge,
  type ModelKind,
  type ModelNode,
  type ModelRoot,
  NOWHERE,
} from "../src/worlds/graph-model.ts";
import {
  modelAppend,
  modelAttach,
  modelChain,
  modelDetach,
  modelDropFilter,
  modelReplaceChild,
  modelReplaceNode,
  modelSetBacking,
} from "../src/worlds/graph-model-steps.ts";

const [READ, WRITE, RESIZE, ALL] = [1, 2, 8, 15];

/** `disk` under `raw` under `filter`, `disk2` under `raw2`, `disk3` under `file` under an overlay, and a guest at `filter`. */
class Scene {
  readonly model: GraphModel = new GraphModel((medium, window) => {
    const place = this.places[medium * 3 + window];
    if (place === undefined) throw new Error(`there is no window ${window} of ${medium}`);
    return place;
  });
  readonly places: { medium: number; window: number }[] = Array.from({ length: 6 }, (_, index) => ({
    medium: Math.floor(index / 3),
    window: index % 3,
  }));
  readonly guest: ModelRoot = root("guest", READ | WRITE, ALL);

  constructor() {
    this.add("disk", "disk", {});
    this.add("disk", "disk2", { number: 1 });
    this.add("disk", "disk3", { number: 1 });
    this.add("raw", "raw", {}, "disk");
    this.add("raw", "raw2", { number: 1 }, "disk2");
    this.add("raw", "file", { number: 2 }, "disk3");
    this.add("filter", "filter", {}, "raw");
    this.add("overlay", "overlay", {}, "file");
    this.hold(this.guest, "filter");
    expect(this.model.attempt(() => undefined)).toBeUndefined();
  }

  add(kind: ModelKind, name: string, more: Partial<ModelNode>, file?: string): ModelNode {
    const node: ModelNode = {
      ...{ isRoot: false, name, kind, number: 0, readOnly: false, isJealous: false },
      ...{ isImage: false, isApart: false, label: "", heirOf: undefined, isOwned: true },
      ...{ uses: 0, changes: 0, blocks: 0 },
      ...more,
    };
    this.model.nodes.set(name, node);
    if (file !== undefined) modelAttach(this.model, node, "file", "file", this.node(file));
    return node;
  }

  hold(parent: ModelRoot, name: string): ModelEdge {
    return modelAttach(this.model, parent, "root", "root", this.node(name));
  }

  node(name: string): ModelNode {
    return this.model.node(name);
  }

  /** The link `name` of a node. */
  edge(parent: string, name = "file"): ModelEdge {
    const edge = this.model.child(this.node(parent), name);
    if (edge === undefined) throw new Error(`${parent} has no ${name}`);
    return edge;
  }

  view(): unknown {
    const edge = this.model.edgesOf(this.guest)[0];
    return edge === undefined ? undefined : this.model.view(edge.node);
  }
}

function root(name: string, perm: number, shared: number, stays = false): ModelRoot {
  return { isRoot: true, name, stays, perm, shared };
}

describe("a step of the model", () => {
  it.each<{ readonly title: string; act: (scene: Scene) => void; at: string }>([
    {
      title: "replaces a node for its parents",
      act: (s) => modelReplaceNode(s.model, s.node("filter"), s.node("raw2")),
      at: "raw2",
    },
    {
      title: "leaves links inside of the new node",
      act: (s) => modelReplaceNode(s.model, s.node("raw"), s.node("filter")),
      at: "filter",
    },
    {
      title: "drops a filter",
      act: (s) => modelDropFilter(s.model, s.node("filter")),
      at: "raw",
    },
    {
      title: "appends an overlay",
      act: (s) => modelAppend(s.model, s.node("overlay"), s.node("filter")),
      at: "overlay",
    },
    {
      title: "plugs one link over",
      act: (s) =>
        modelReplaceChild(s.model, s.model.edgesOf(s.guest)[0] as ModelEdge, s.node("raw")),
      at: "raw",
    },
  ])("$title", ({ act, at }) => {
    const scene = new Scene();
    expect(scene.model.attempt(() => act(scene))).toBeUndefined();
    expect(scene.model.edgesOf(scene.guest)[0]?.node.name).toBe(at);
  });

  it.each<{ readonly title: string; act: (scene: Scene) => void; why: RegExp }>([
    {
      title: "a circle",
      act: (s) => modelReplaceChild(s.model, s.edge("raw"), s.node("filter")),
      why: /stands above/,
    },
    {
      title: "a link that is frozen",
      act: (s) => {
        s.edge("filter").frozen = 1;
        modelDropFilter(s.model, s.node("filter"));
      },
      why: /frozen/,
    },
    {
      title: "a link that was detached",
      act: (s) => {
        const edge = s.edge("filter");
        modelDetach(s.model, edge);
        modelReplaceChild(s.model, edge, s.node("raw2"));
      },
      why: /detached/,
    },
    {
      title: "a second backing child",
      act: (s) => {
        modelSetBacking(s.model, s.node("overlay"), s.node("raw"));
        modelAppend(s.model, s.node("overlay"), s.node("filter"));
      },
      why: /has a child backing/,
    },
    {
      title: "to leave somebody behind who was to follow",
      act: (s) => {
        s.hold(root("job", 0, ALL, true), "filter");
        modelReplaceNode(s.model, s.node("filter"), s.node("raw2"), false);
      },
      why: /job should not follow/,
    },
    {
      title: "an overlay without backing to be dropped as a filter",
      act: (s) => modelDropFilter(s.model, s.node("overlay")),
      why: /not a filter/,
    },
    {
      title: "a writer whom somebody does not tolerate",
      act: (s) => void s.hold(root("other", READ, READ), "raw"),
      why: /filter takes write of raw, unshared by other/,
    },
    {
      title: "a writer above a node that is read-only",
      act: (s) => {
        s.node("raw").readOnly = true;
      },
      why: /raw is read-only/,
    },
    {
      title: "somebody else at what a jealous filter shows",
      act: (s) => {
        s.add("filter", "jealous", { isJealous: true }, "raw");
      },
      why: /unshared by jealous/,
    },
  ])("does not allow $title, and leaves all as it was", ({ act, why }) => {
    const scene = new Scene();
    const before = scene.model.describe();
    expect(scene.model.foresee(() => act(scene))).toMatch(why);
    expect(scene.model.attempt(() => act(scene))).toMatch(why);
    expect(scene.model.describe()).toBe(before);
  });
});

describe("the permissions of the model", () => {
  it.each([
    // A window lets nobody else change the length, and writes only as its parents do.
    { child: "raw", name: "file", perm: READ | WRITE, shared: ALL & ~RESIZE },
    { child: "filter", name: "file", perm: READ | WRITE, shared: ALL },
    { child: "overlay", name: "file", perm: 0, shared: ALL & ~RESIZE },
  ])("of $child on its $name", ({ child, name, perm, shared }) => {
    const scene = new Scene();
    expect(scene.edge(child, name)).toMatchObject({ perm, shared });
  });

  it("of an overlay that is written: its file may grow, its backing may not be written", () => {
    const scene = new Scene();
    scene.guest.shared = READ;
    const append = (): void =>
      modelAppend(scene.model, scene.node("overlay"), scene.node("filter"));
    expect(scene.model.attempt(append)).toBeUndefined();
    expect(scene.edge("overlay")).toMatchObject({ perm: READ | WRITE | RESIZE, shared: READ });
    expect(scene.edge("overlay", "backing")).toMatchObject({ perm: READ, shared: READ | 4 });
  });

  it("of an image format: metadata are its own", () => {
    const scene = new Scene();
    scene.add("disk", "disk4", {});
    scene.add("overlay", "image", { isImage: true }, "disk4");
    scene.model.grant();
    expect(scene.edge("image")).toMatchObject({
      perm: READ | WRITE | RESIZE,
      shared: ALL & ~(WRITE | RESIZE),
    });
  });

  it("are given up while the nodes are handed over", () => {
    const scene = new Scene();
    scene.model.isActive = false;
    scene.model.grant();
    expect(scene.model.edgesOf(scene.guest)[0]).toMatchObject({ perm: 0, shared: ALL });
  });
});

describe("what guests see in the model", () => {
  it("is a window of a disk", () => {
    expect(new Scene().view()).toEqual([{ medium: 0, window: 0 }]);
  });

  it("is a chain of windows through overlays", () => {
    const scene = new Scene();
    modelAppend(scene.model, scene.node("overlay"), scene.node("filter"));
    expect(scene.view()).toEqual([
      { medium: 1, window: 2 },
      { medium: 0, window: 0 },
    ]);
  });

  it("is nothing through a filter that has lost its child", () => {
    const scene = new Scene();
    modelDetach(scene.model, scene.edge("filter"));
    expect(scene.view()).toEqual([NOWHERE]);
  });
});

it("a chain goes along filtered and backing children, and ends at a window", () => {
  const scene = new Scene();
  modelAppend(scene.model, scene.node("overlay"), scene.node("filter"));
  const chain = (top: string, base?: string): string[] =>
    modelChain(scene.model, scene.node(top), base === undefined ? undefined : scene.node(base)).map(
      ({ parent, name }) => `${parent.name} ${name}`,
    );
  expect(chain("overlay")).toEqual(["overlay backing", "filter file"]);
  expect(chain("overlay", "filter")).toEqual(["overlay backing"]);
  expect(chain("raw")).toEqual([]);
});

it("a node goes when nobody holds it, and takes along what it alone held", () => {
  const scene = new Scene();
  for (const name of ["filter", "raw"]) scene.node(name).isOwned = false;
  scene.model.collect();
  expect(scene.model.nodes.has("filter")).toBe(true);
  const [edge] = scene.model.edgesOf(scene.guest);
  scene.node("filter").changes = 1;
  modelDetach(scene.model, edge as ModelEdge);
  scene.model.collect();
  expect(scene.model.nodes.has("filter")).toBe(true);
  expect(scene.model.hasOwner(scene.node("filter"))).toBe(false);
  scene.node("filter").changes = 0;
  scene.model.collect();
  expect([...scene.model.nodes.keys()]).toEqual([
    "disk",
    "disk2",
    "disk3",
    "raw2",
    "file",
    "overlay",
  ]);
});
