import { Graph, type WritableBackend } from "@blocklayer/block-graph";
import { RequestFlag } from "@blocklayer/driver";
import { passThrough } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { expect, it } from "vitest";

/** A filter over its own former parent, which has lost it: a circle, were it not for the link that was cut. */
async function cutCircle(): Promise<WritableBackend> {
  const graph = new Graph({ env: manualEnv(), drivers: [memory, passThrough] });
  await graph.open({ driver: "memory", "node-name": "disk", size: 4096 });
  const driver = "x-blocklayer-pass-through";
  const below = await graph.open({ driver, "node-name": "below", file: "disk" });
  const above = await graph.open({ driver, "node-name": "above", file: "below" });
  const file = below.children.get("file");
  if (file === undefined) throw new Error("below has a file");
  await graph.change([graph.dropFilter(above), graph.replaceChild(file, above)]);
  return graph.createBackend({ node: "below", perm: ["consistent-read", "write"] });
}

it.each([
  ["write", (disk: WritableBackend) => disk.write(0, new Uint8Array(8))],
  [
    "write with FUA",
    (disk: WritableBackend) => disk.write(0, new Uint8Array(8), { flags: RequestFlag.fua }),
  ],
  ["write zeroes", (disk: WritableBackend) => disk.writeZeroes(0, 8)],
  ["read", (disk: WritableBackend) => disk.read(0, new Uint8Array(8))],
] as const)(
  "an edge that was detached says nothing of the node it led to: %s",
  async (_, request) => {
    const disk = await cutCircle();
    await expect(request(disk)).rejects.toMatchObject({ code: "ENOMEDIUM" });
    expect(disk.inFlight).toBe(0);
    expect(disk.node?.io.inFlight).toBe(0);
  },
);
