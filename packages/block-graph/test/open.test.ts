import { checkGraph, Graph } from "@blocklayer/block-graph";
import { type DriverDefinition, ImageReferencePolicy, Role } from "@blocklayer/driver";
import { passThrough, reference } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { describe, expect, it } from "vitest";
import { ALL, FakeParent, layer, rig, WRITE } from "./graph-rig.ts";

const disk = (name?: string): Record<string, unknown> => ({
  driver: "disk",
  ...(name === undefined ? {} : { "node-name": name }),
});

describe("options", () => {
  it.each([
    { options: { "node-name": "n" }, message: "Parameter 'driver' is missing" },
    { options: { driver: 3 }, message: "Invalid parameter type for 'driver', expected: string" },
    { options: { driver: "nosuch" }, message: "Parameter 'driver' does not accept value 'nosuch'" },
    { options: { driver: "plain" }, message: "Parameter 'file' is missing" },
    { options: { driver: "plain", file: "d", nope: 1 }, message: "Parameter 'nope' is unexpected" },
    {
      options: { driver: "plain", file: "d", tag: 3 },
      message: "Invalid parameter type for 'tag', expected: string",
    },
    { options: { driver: "plain", file: {} }, message: "Parameter 'file.driver' is missing" },
    {
      options: { driver: "plain", file: { driver: "disk", nope: 1 } },
      message: "Parameter 'file.nope' is unexpected",
    },
    {
      options: { driver: "plain", file: null },
      message: "Invalid parameter type for 'file', expected: BlockdevRef",
    },
    {
      options: { driver: "overlay", backing: 3 },
      message: "Invalid parameter type for 'backing', expected: BlockdevRefOrNull",
    },
    {
      options: { driver: "plain", file: "nope" },
      message: "Cannot find device='nope' nor node-name='nope'",
      code: "ENOENT",
    },
    {
      options: disk("1bad"),
      message: "Invalid node-name: '1bad'",
    },
    { options: disk("a b"), message: "Invalid node-name: 'a b'" },
    { options: disk(""), message: "Invalid node-name: ''" },
    { options: disk("x".repeat(32)), message: "Node name too long" },
    { options: disk("d"), message: "Duplicate nodes with node-name='d'", code: "EEXIST" },
    {
      options: { driver: "plain", "node-name": "n", file: disk("n") },
      message: "Duplicate nodes with node-name='n'",
      code: "EEXIST",
    },
    {
      options: disk("dev0"),
      message: "node-name=dev0 is conflicting with a device id",
      code: "EEXIST",
    },
    {
      options: { ...disk(), "detect-zeroes": "unmap" },
      message:
        "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
    },
    {
      options: { ...disk(), "force-share": true },
      message: "force-share=on can only be used with read-only images",
    },
    {
      options: { ...disk(), discard: "foo" },
      message: "Parameter 'discard' does not accept value 'foo'",
    },
    {
      options: { ...disk(), "read-only": "foo" },
      message: "Invalid parameter type for 'read-only', expected: boolean",
    },
    {
      options: { ...disk(), cache: { direct: 1 } },
      message: "Invalid parameter type for 'cache.direct', expected: boolean",
    },
    {
      options: { ...disk(), cache: { nope: true } },
      message: "Parameter 'cache.nope' is unexpected",
    },
    { options: "d", message: "Invalid parameter type for '', expected: object" },
  ])("$message", async ({ options, message, code = "EINVAL" }) => {
    const r = rig();
    await r.disk("d");
    await r.graph.createBackend({ node: "d", name: "dev0", perm: [] });
    const before = checkGraph(r.graph);
    const opened = r.script.log.length;
    await expect(r.open(options as never)).rejects.toMatchObject({ code, message });
    expect(r.script.log.length).toBe(opened);
    expect(checkGraph(r.graph)).toBe(before);
    // Names that were taken on the way are free again.
    await r.disk("n");
  });

  it("refuses a device name that a node or a device has", async () => {
    const r = rig();
    await r.disk("d");
    const device = await r.graph.createBackend({ node: "d", name: "dev0", perm: [] });
    for (const [name, kind] of [
      ["d", "node"],
      ["dev0", "device"],
    ]) {
      await expect(
        r.graph.createBackend({ node: "d", name: name ?? "", perm: [] }),
      ).rejects.toMatchObject({
        code: "EEXIST",
        message: `Device name '${name}' conflicts with an existing ${kind} name`,
      });
    }
    await device.close();
    await r.disk("dev0");
  });

  it("hands options down to children defined inside, and not to those named", async () => {
    const r = rig();
    await r.disk("named");
    await r.open({
      driver: "overlay",
      "node-name": "top",
      "read-only": true,
      "auto-read-only": true,
      "force-share": true,
      "detect-zeroes": "on",
      discard: "on",
      cache: { direct: true, "no-flush": true },
      file: { driver: "plain", "node-name": "file", file: "named" },
      backing: { driver: "disk", "node-name": "backing", "read-only": false, "force-share": false },
    });
    const generic = (name: string): unknown => {
      const { options, spec } = r.graph.node(name);
      return { ...options, auto: spec.autoReadOnly };
    };
    const inherited = { cacheDirect: true, cacheNoFlush: true, discard: "unmap" };
    expect(generic("top")).toEqual({
      ...inherited,
      readOnly: true,
      detectZeroes: "on",
      forceShare: true,
      auto: true,
    });
    expect(generic("file")).toEqual({
      ...inherited,
      readOnly: true,
      detectZeroes: "off",
      forceShare: true,
      auto: true,
    });
    expect(generic("backing")).toEqual({
      ...inherited,
      readOnly: false,
      detectZeroes: "off",
      forceShare: false,
      auto: false,
    });
    expect(generic("named")).toEqual({
      cacheDirect: false,
      cacheNoFlush: false,
      readOnly: false,
      discard: "ignore",
      detectZeroes: "off",
      forceShare: false,
      auto: false,
    });
  });

  it("opens a backing node read-only by default", async () => {
    const r = rig();
    await r.open({ driver: "overlay", "node-name": "o", backing: disk("b") });
    expect(r.graph.node("b").readOnly).toBe(true);
    await expect(
      r.graph.attachRoot(new FakeParent("w"), r.graph.node("b"), {
        name: "root",
        perm: WRITE,
        shared: ALL,
      }),
    ).rejects.toMatchObject({ code: "EPERM", message: "Block node is read-only" });
  });

  it("makes names that no user can choose", async () => {
    const r = rig();
    const node = await r.open({ driver: "plain", file: disk() });
    expect(r.graph.nodes().map(({ name }) => name)).toEqual(["#block001", "#block000"]);
    expect(node.name).toBe("#block000");
  });

  it("takes several children from an array", async () => {
    const r = rig((script) => [
      {
        ...layer(script, { name: "many", children: [] }),
        children: [{ name: "children", role: Role.data, required: true }],
        open: async (host) => {
          await host.openChild("children.0", Role.data);
          await host.openChild("children.1", Role.data);
          return layer(script, { name: "many", children: [] }).open(host, {}, manualEnv());
        },
      } as DriverDefinition,
    ]);
    await r.disk("d");
    const many = await r.open({ driver: "many", children: ["d", disk("e")] });
    expect([...many.children.keys()]).toEqual(["children.0", "children.1"]);
  });

  it("knows drivers by their aliases and refuses two of a name", async () => {
    const env = manualEnv();
    const alias = { ...memory, aliases: ["ram"] };
    const graph = new Graph({ env, drivers: [alias] });
    const node = await graph.open({ driver: "ram", size: 512 } as never);
    expect(node.driverName).toBe("memory");
    expect(() => new Graph({ env, drivers: [memory, memory] })).toThrow(
      "two drivers are named 'memory'",
    );
  });
});

describe("the types of options", () => {
  it("follow the drivers that the graph was given", async () => {
    const graph = new Graph({ env: manualEnv(), drivers: [memory, reference, passThrough] });
    // A graph of some drivers is a graph.
    const any: Graph = graph;
    await graph.open({ driver: "x-blocklayer-reference", "node-name": "r", size: 512 });
    await graph.open({
      driver: "x-blocklayer-pass-through",
      "read-only": false,
      file: { driver: "x-blocklayer-pass-through", file: { driver: "memory", size: 512 } },
    });
    expect(any.nodes()).toHaveLength(4);
    const PASS = "x-blocklayer-pass-through";
    const wrong = [
      // @ts-expect-error No such driver.
      () => graph.open({ driver: "raw" }),
      // @ts-expect-error The size is a number.
      () => graph.open({ driver: "memory", size: true }),
      // @ts-expect-error An option of no driver.
      () => graph.open({ driver: "memory", sise: 512 }),
      // @ts-expect-error A generic option of the wrong type.
      () => graph.open({ driver: "memory", size: 512, "read-only": "yes" }),
      // @ts-expect-error A child that the driver does not take.
      () => graph.open({ driver: "memory", size: 512, file: "r" }),
      // @ts-expect-error A wrong option further down.
      () => graph.open({ driver: PASS, file: { driver: "memory", size: "1" } }),
      // @ts-expect-error A reopen names its node.
      () => graph.reopen([{ driver: "memory" }]),
    ];
    for (const call of wrong) await expect(call()).rejects.toMatchObject({ code: "EINVAL" });
  });
});

describe("names found inside images", () => {
  it("go to the policy of the open, of the graph, or nowhere", async () => {
    const asked: string[] = [];
    const following = (to: string): ImageReferencePolicy => ({
      resolve: (found, image) => {
        asked.push(`${to}: ${image} asks for ${found.fileName}`);
        return Promise.resolve({ driver: "disk", "node-name": `${image}-base` });
      },
    });
    const curious: DriverDefinition = {
      ...rigLayer("curious"),
      open: async (host, own, env) => {
        const found = { fileName: "base.img", format: undefined, role: "backing" };
        await host.openChild("backing", Role.cow, await host.policy.resolve(found, host.nodeName));
        return rigLayer("curious").open(host, own, env);
      },
    };
    const r = rig(() => [curious]);
    await expect(r.open({ driver: "curious", "node-name": "c" })).rejects.toMatchObject({
      code: "EACCES",
      context: { node: "c", reference: "base.img", role: "backing" },
    });
    const options = { driver: "curious", "node-name": "c" } as never;
    const node = await r.graph.open(options, { policy: following("open") });
    expect(asked).toEqual(["open: c asks for base.img"]);
    expect([node.backing?.name, node.backing?.readOnly]).toEqual(["c-base", true]);
    expect(ImageReferencePolicy.deny).toBe(r.graph.core.policy);
  });

  function rigLayer(name: string): DriverDefinition {
    const r = rig();
    return layer(r.script, {
      name,
      supportsBacking: true,
      children: [{ name: "backing", role: Role.cow, required: false }],
    }) as DriverDefinition;
  }
});
