import { checkGraph } from "@blocklayer/block-graph";
import { type DriverDefinition, Role } from "@blocklayer/driver";
import { object } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { layer, type Rig, rig } from "./graph-rig.ts";

const disk = (name?: string): Record<string, unknown> => ({
  driver: "disk",
  ...(name === undefined ? {} : { "node-name": name }),
});

describe("an open that fails", () => {
  const tree = {
    driver: "plain",
    "node-name": "top",
    file: {
      driver: "filter",
      "node-name": "mid",
      file: disk("low"),
      target: "named",
    },
  };

  async function fails(prepare: (r: Rig) => void, error: Record<string, unknown>): Promise<Rig> {
    const r = rig();
    await r.disk("named");
    const before = checkGraph(r.graph);
    prepare(r);
    await expect(r.open(tree)).rejects.toMatchObject(error);
    expect(checkGraph(r.graph)).toBe(before);
    expect(r.graph.core.shells.size).toBe(1);
    return r;
  }

  it.each(["low open", "mid open", "mid opened", "top open", "top opened"])(
    "closes everything that was opened before: %s",
    async (step) => {
      const r = await fails((at) => at.script.fail.set(step, "ENOSPC"), {
        code: "ENOSPC",
        message: `${step} failed as told`,
      });
      const opened = r.script.log.filter((line) => / (setPermissions|opened)/.test(line));
      const closed = r.script.log.filter((line) => line.endsWith(" close"));
      expect(closed.length).toBeLessThanOrEqual(opened.length);
      r.script.fail.clear();
      await r.open(tree);
      checkGraph(r.graph);
    },
  );

  it("announces what could not be closed, and reports the open's own error", async () => {
    const failed: string[] = [];
    await fails(
      (r) => {
        r.graph.events.on("closeFailed", ({ node }) => failed.push(node));
        r.script.fail.set("top opened", "ENOSPC").set("low close", "EIO").set("mid close", "EIO");
      },
      { code: "ENOSPC" },
    );
    expect(failed).toEqual(["mid", "low"]);
  });

  it("fails when an extension fails, and lets those told before close the node", async () => {
    const seen: string[] = [];
    await fails(
      ({ graph }) => {
        graph.use({
          name: "one",
          nodeOpened: (node) => void seen.push(`one opened ${node.name}`),
          nodeClosing: (node) => void seen.push(`one closing ${node.name}`),
        });
        graph.use({
          name: "two",
          nodeOpened: (node) =>
            node.name === "top" ? Promise.reject(new Error("no")) : Promise.resolve(),
        });
      },
      { message: "no" },
    );
    expect(seen).toEqual([
      "one opened low",
      "one opened mid",
      "one opened top",
      "one closing top",
      "one closing mid",
      "one closing low",
    ]);
  });

  it("refuses a disk that is larger than offsets are counted, and an option that the driver ignored", async () => {
    const r = rig((script) => [
      {
        ...layer(script, { name: "ignorant", children: [] }),
        children: [{ name: "file", role: Role.data, required: false }],
      } as DriverDefinition,
      {
        driverName: "huge",
        schema: object({}),
        children: [],
        isFilter: false,
        isProtocol: true,
        supportsBacking: false,
        open: async (host, _options, env) => {
          const plain = layer(script, { name: "huge", children: [] });
          const driver = await plain.open(host, {}, env);
          return Object.defineProperty(driver, "size", { value: 2 ** 53 });
        },
      },
    ]);
    await r.disk("d");
    await expect(r.open({ driver: "ignorant", "node-name": "i", file: "d" })).rejects.toMatchObject(
      {
        code: "EINVAL",
        message: "Block format 'ignorant' does not support the option 'file'",
        context: { node: "i", child: "file" },
      },
    );
    await expect(r.open({ driver: "huge", "node-name": "h" })).rejects.toMatchObject({
      code: "EFBIG",
      message: "Could not refresh total sector count: File too large",
      context: { node: "h", size: 2 ** 53, limit: 2 ** 53 - 2 ** 30 },
    });
    expect(r.script.log).toContain("h close");
    expect(r.graph.nodes()).toHaveLength(1);
  });

  it("takes a name once when two opens race for it", async () => {
    const r = rig();
    const results = await Promise.allSettled([r.disk("d"), r.disk("d")]);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    await r.graph.remove("d");
    await r.disk("d");
  });

  it("does not let a node go that is being attached", async () => {
    const r = rig();
    await r.disk("d");
    const opening = r.open({ driver: "plain", "node-name": "p", file: "d" });
    const removing = r.graph.remove("d").catch((error: unknown) => error);
    const [opened] = await Promise.allSettled([opening, removing]);
    // Either the name was gone in time, or the node was in use: never half of each.
    if (opened.status === "fulfilled") expect(await removing).toMatchObject({ code: "EBUSY" });
    checkGraph(r.graph);
  });
});
