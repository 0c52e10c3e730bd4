import { copyClusterSize, DEFAULT_CLUSTER_SIZE } from "@blocklayer/block-copy";
import { ReferenceDisk, TestChild } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";

/** An edge to a disk that tells this of its cluster size: a number, nothing, or an error. */
class TellingChild extends TestChild {
  readonly answer: number | undefined | string;

  constructor(answer: number | undefined | string) {
    super(new ReferenceDisk({ size: 65536 }), { name: "target", nodeName: "tgt" });
    this.answer = answer;
  }

  override getInfo(): Promise<{ clusterSize?: number }> {
    if (typeof this.answer === "string") return Promise.reject(new BlockError(this.answer, "told"));
    return Promise.resolve(this.answer === undefined ? {} : { clusterSize: this.answer });
  }
}

describe("the unit of copying", () => {
  it.each([
    ["a smaller cluster", 4096, false, 0, 65536, 0],
    ["a larger cluster", 2 ** 20, false, 0, 2 ** 20, 0],
    ["a larger cluster over a backing image", 2 ** 20, true, 0, 2 ** 20, 0],
    ["no cluster", undefined, false, 0, 65536, 0],
    ["no information, no backing image", "ENOTSUP", false, 0, 65536, 1],
    ["no information, a backing image", "ENOTSUP", true, 0, 65536, 0],
    ["an error, a backing image", "EIO", true, 0, 65536, 0],
    ["a minimum above it", 65536, false, 2 ** 18, 2 ** 18, 0],
    ["a minimum below it", 2 ** 20, false, 4096, 2 ** 20, 0],
    ["a minimum and no information", "ENOTSUP", false, 2 ** 21, 2 ** 21, 1],
  ] as const)(
    "of a target with %s",
    async (_title, answer, hasBacking, minClusterSize, size, warnings) => {
      const warned: string[] = [];
      const target = new TellingChild(answer);
      const found = await copyClusterSize({
        target,
        hasBacking,
        minClusterSize,
        warn: (message) => warned.push(message),
      });
      expect([found, warned.length]).toEqual([size, warnings]);
      for (const message of warned) {
        expect(message).toMatch(/default block size of 65536 bytes .* may be unusable$/);
      }
    },
  );

  it("of a target that fails to tell and has no backing image is refused with its code", async () => {
    const target = new TellingChild("EACCES");
    await expect(copyClusterSize({ target, hasBacking: false })).rejects.toMatchObject({
      code: "EACCES",
      message: "Couldn't determine the cluster size of the target image, which has no backing file",
      hint: "Aborting, since this may create an unusable destination image",
      context: { node: "tgt" },
    });
  });

  it.each([
    [3, "min-cluster-size needs to be a power of 2"],
    [65537, "min-cluster-size needs to be a power of 2"],
    [2 ** 47, "min-cluster-size is larger than 70368744177664 bytes"],
  ])("with a minimum of %i is refused", async (minClusterSize, message) => {
    const target = new TellingChild(65536);
    const options = { target, hasBacking: false, minClusterSize };
    await expect(copyClusterSize(options)).rejects.toMatchObject({
      code: "EINVAL",
      message,
      context: { node: "tgt", minClusterSize },
    });
  });

  it("is 64 KiB by default", () => {
    expect(DEFAULT_CLUSTER_SIZE).toBe(65536);
  });
});
