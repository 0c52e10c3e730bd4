import { type BlockDriver, Permissions } from "@blocklayer/driver";
import { patternBytes } from "@blocklayer/driver-tests";
import { describe, expect, it } from "vitest";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";
import { filterLayer } from "./layers.ts";
import { loggedDisk } from "./logged-disk.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}

describe("offloaded copies", () => {
  /** A disk that copies between disks of its kind. */
  function copying(
    size: number,
    limits = {},
  ): { driver: BlockDriver; log: string[]; bytes: Uint8Array } {
    const logged = loggedDisk({ size, limits });
    const { disk } = logged;
    const log: string[] = [];
    const driver: BlockDriver = Object.assign(logged.driver, {
      copyRangeFrom: ((offset, target, targetOffset, length, options) => {
        log.push(`from ${offset}+${length}`);
        return target.copyRangeTo(driver, offset, targetOffset, length, options);
      }) satisfies BlockDriver["copyRangeFrom"],
      copyRangeTo: (async (source, sourceOffset, offset, length) => {
        log.push(`to ${offset}+${length}`);
        const buffer = new Uint8Array(length);
        await source.pread(sourceOffset, buffer);
        await driver.pwrite?.(offset, buffer);
      }) satisfies BlockDriver["copyRangeTo"],
    });
    return { driver, log, bytes: disk.bytes };
  }

  it("copy in pieces, and are writes to those who watch the target", async () => {
    const source = copying(8192, { maxTransfer: 2048 });
    const target = copying(8192);
    source.bytes.set(patternBytes(8192, 1));
    const sourceNode = rigNode({ name: "source", driver: () => source.driver });
    const targetNode = filterLayer(
      "filter",
      rigNode({ name: "target", driver: () => target.driver }),
    );
    const seen: string[] = [];
    targetNode.addObserver({
      afterWrite: ({ kind, offset, length }) => void seen.push(`${kind} ${offset}+${length}`),
    });
    await rootEdge(sourceNode).copyRangeFrom(1024, rootEdge(targetNode), 0, 4096);
    expect(source.log).toEqual(["from 1024+2048", "from 3072+2048"]);
    expect(target.log).toEqual(["to 0+2048", "to 2048+2048"]);
    expect(seen).toEqual(["write 0+2048", "write 2048+2048"]);
    expect(target.bytes.subarray(0, 4096)).toEqual(source.bytes.subarray(1024, 5120));
    expect(sourceNode.io.inFlight + targetNode.io.inFlight).toBe(0);
  });

  it.each([
    ["a source that cannot", "from", 0, 512, "Driver 'x-test' does not support offloaded copies"],
    ["a target that cannot", "to", 0, 512, "Driver 'x-test' does not support offloaded copies"],
    [
      "a range that is not aligned",
      "none",
      10,
      512,
      "offloaded copy of 512 bytes at 10 is not aligned to 512",
    ],
    [
      "a range beyond the source",
      "none",
      4096,
      512,
      "offloaded copy of 512 bytes at 4096 ends beyond the node",
    ],
  ])("with %s are ENOTSUP", async (_title, missing, offset, length, message) => {
    const source = copying(4096, { requestAlignment: 512 }).driver;
    const target = copying(4096, { requestAlignment: 512 }).driver;
    if (missing === "from") Object.assign(source, { copyRangeFrom: undefined });
    if (missing === "to") Object.assign(target, { copyRangeTo: undefined });
    const from = rootEdge(rigNode({ driver: () => source }));
    const to = rootEdge(rigNode({ driver: () => target }));
    await expect(from.copyRangeFrom(offset, to, 0, length)).rejects.toMatchObject({
      code: "ENOTSUP",
      message,
    });
  });

  it.each([
    ["out of range", -512, 512, "copyRangeFrom of 512 bytes at -512 is out of range"],
    ["too long", 0, 2 ** 31, "copyRangeFrom of 2147483648 bytes is longer than 2147483136"],
  ])("of a range that is %s are EIO", async (_title, offset, length, message) => {
    const { node } = diskNode({ size: 4096 });
    const edge = rootEdge(node);
    await expect(edge.copyRangeFrom(offset, edge, 0, length)).rejects.toMatchObject({
      code: "EIO",
      message,
    });
    await expect(edge.copyRangeTo(node.driver, 0, offset, length)).rejects.toMatchObject({
      code: "EIO",
      message: message.replace("From", "To"),
    });
  });

  it("of nothing succeed", async () => {
    const { node } = diskNode({ size: 4096 });
    const edge = rootEdge(node);
    await edge.copyRangeFrom(0, edge, 0, 0);
    await edge.copyRangeTo(node.driver, 0, 0, 0);
  });

  it("into a read-only node are EPERM, beyond the end without resize EIO", async () => {
    const source = copying(4096);
    const from = rootEdge(rigNode({ driver: () => source.driver }));
    const readOnly = rootEdge(
      rigNode({ driver: () => copying(4096).driver, generic: { readOnly: true } }),
    );
    await expect(from.copyRangeFrom(0, readOnly, 0, 512)).rejects.toMatchObject({ code: "EPERM" });
    const narrow = rootEdge(rigNode({ driver: () => copying(4096).driver }), Permissions.write);
    await expect(from.copyRangeFrom(0, narrow, 4096, 512)).rejects.toMatchObject({ code: "EIO" });
  });

  it("wait for a request that serialises on either side", async () => {
    const order: string[] = [];
    const source = copying(4096, { requestAlignment: 512 });
    const node = rigNode({ driver: () => source.driver });
    const edge = rootEdge(node);
    const request = node.io.tracker.begin("write", 0, 512);
    node.io.tracker.serialise(request, 1);
    const copy = edge.copyRangeFrom(0, edge, 2048, 512).then(() => order.push("copied"));
    await turns();
    expect(source.log).toEqual([]);
    node.io.tracker.end(request);
    await copy;
    expect(order).toEqual(["copied"]);
  });
});
