import type { ReadableBackend, WritableBackend } from "@blocklayer/block-graph";
import { RequestFlag } from "@blocklayer/driver";
import { sameBytes } from "../disk/same-bytes.ts";
import { all } from "./backup-scenarios.ts";
import { CLUSTER, type SweepStage } from "./stage.ts";
import type { SweepScenario } from "./sweep.ts";

/** Where a guest writes while its cluster is copied into the image. */
const WRITTEN = { offset: 4096, length: 1024, fill: 9 } as const;

async function open(stage: SweepStage): Promise<void> {
  stage.newImage();
  await stage.graph.open({
    driver: "x-blocklayer-simulated-overlay",
    "node-name": "image",
    store: "image",
    backing: "disk",
    "cluster-size": CLUSTER,
  });
}

/** What the image shows, with what the guest has written. */
function expected(stage: SweepStage, isWritten: boolean): Uint8Array {
  const content = stage.store("disk").content.slice();
  const { offset, length, fill } = WRITTEN;
  if (isWritten) content.fill(fill, offset, offset + length);
  return content;
}

/** Clusters are copied into an image when they are read; a guest writes to one of them meanwhile. */
export const copiesOnRead: SweepScenario = {
  name: "reads that copy into an image",
  setUp: async (stage) => {
    stage.store("disk").content.fill(0, 2 * CLUSTER);
    await stage.open("disk");
    await open(stage);
  },
  act: async (stage) => {
    const disk = await stage.writer("image");
    try {
      const { offset, length, fill } = WRITTEN;
      await all(
        copy(stage, disk, 0, CLUSTER),
        disk.write(offset, new Uint8Array(length).fill(fill)),
        copy(stage, disk, CLUSTER - 700, 1400),
      );
      const flags = RequestFlag.copyOnRead | RequestFlag.prefetch;
      await disk.read(2 * CLUSTER, new Uint8Array(512), { flags });
      const buffer = new Uint8Array(disk.size);
      await disk.read(0, buffer);
      stage.expect(sameBytes(buffer, expected(stage, true)), "wrong data", () => "");
    } finally {
      await disk.close();
    }
  },
  tidy: async (stage) => {
    // Whatever has failed: the image shows what it showed, or what the guest has written, of which it was not told.
    const shown = stage.image.contentOver(stage.store("disk").content);
    const { offset, length } = WRITTEN;
    const wanted = expected(stage, false);
    wanted.set(shown.subarray(offset, offset + length), offset);
    stage.expect(sameBytes(shown, wanted), "copying changed the content", () => "");
    await stage.graph.remove("image");
    stage.expectBaseline(["disk"]);
    await open(stage);
  },
  verify: (stage) => {
    const below = stage.store("disk").content;
    const isRight = sameBytes(stage.image.contentOver(below), expected(stage, true));
    stage.expect(isRight, "not what was written", () => "");
    const units = stage.image.units();
    stage.expect(!units.includes(0), "read and not copied", () => units.join(""));
    stage.expectContent("disk");
  },
  absorbed: { "image status": "what is held already is copied once more" },
};

/** Reads a range while it is copied. It shows what was there, before the guest's write or after it. */
async function copy(
  stage: SweepStage,
  disk: ReadableBackend | WritableBackend,
  offset: number,
  length: number,
): Promise<void> {
  const buffer = new Uint8Array(length);
  await disk.read(offset, buffer, { flags: RequestFlag.copyOnRead });
  const isRight = [false, true].some((isWritten) =>
    sameBytes(buffer, expected(stage, isWritten).subarray(offset, offset + length)),
  );
  stage.expect(isRight, "wrong data", () => `${length} bytes at ${offset}`);
}
