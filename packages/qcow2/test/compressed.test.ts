import { RequestFlag } from "@blocklayer/driver";
import { expectBytes, patternBytes, type ReferenceDisk, TestHost } from "@blocklayer/driver-tests";
import { type ClusterCodec, qcow2Definition } from "@blocklayer/qcow2";
import { nodeCodecs } from "@blocklayer/qcow2/node";
import { describe, expect, it } from "vitest";
import { COMPRESSED, ImageBytes } from "./image-bytes.ts";
import { contentOf } from "./image-rig.ts";
import { createInMemory, growingFile, openInMemory } from "./memory-image.ts";

const CLUSTER = 4096;
const compressed = { flags: RequestFlag.compressed };
const text = (seed: number): Uint8Array => {
  const bytes = new Uint8Array(CLUSTER);
  for (let at = 0; at < CLUSTER; at += 1) bytes[at] = (at % 97) + seed;
  return bytes;
};

async function image(options: Readonly<Record<string, unknown>> = {}): Promise<ReferenceDisk> {
  return growingFile(
    await createInMemory({ size: 16 * CLUSTER, "cluster-size": CLUSTER, ...options }),
  );
}

describe("a compressed write", () => {
  it.each([
    { state: "with data", prepare: (host: TestHost) => host.driver.pwrite?.(0, text(1)) },
    {
      state: "compressed already",
      prepare: (host: TestHost) => host.driver.pwrite?.(0, text(1), compressed),
    },
  ])("over a cluster $state is refused, and the content stays", async ({ prepare }) => {
    const host = await openInMemory(await image());
    await prepare(host);
    await expect(host.driver.pwrite?.(0, text(2), compressed)).rejects.toMatchObject({
      code: "EIO",
    });
    const read = new Uint8Array(CLUSTER);
    await host.driver.pread(0, read);
    expectBytes(read, text(1), "content");
    await host.close();
  });

  it("over a cluster that was discarded is done", async () => {
    const file = await image();
    const host = await openInMemory(file);
    await host.driver.pwrite?.(0, text(1), compressed);
    await host.driver.pdiscard?.(0, CLUSTER);
    await host.driver.pwrite?.(0, text(2), compressed);
    expectBytes((await contentOf(host.driver)).subarray(0, CLUSTER), text(2), "content");
    expect(await host.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0 });
    await host.close();
  });

  it.each([
    { what: "at no cluster", offset: 512, length: CLUSTER },
    { what: "of a part of a cluster inside the disk", offset: 0, length: 512 },
    { what: "of a cluster and a part", offset: 0, length: CLUSTER + 512 },
  ])("$what is refused", async ({ offset, length }) => {
    const host = await openInMemory(await image());
    const work = host.driver.pwrite?.(offset, new Uint8Array(length), compressed);
    await expect(work).rejects.toMatchObject({
      code: "EINVAL",
      message: "compressed writes are of whole clusters",
      context: { offset, length },
    });
    await host.close();
  });

  it("of the last part of a disk is done", async () => {
    const host = await openInMemory(await image({ size: CLUSTER + 512 }));
    await host.driver.pwrite?.(CLUSTER, text(3).subarray(0, 512), compressed);
    expectBytes(
      (await contentOf(host.driver)).subarray(CLUSTER),
      text(3).subarray(0, 512),
      "content",
    );
    expect(await host.driver.check?.()).toMatchObject({ compressedClusters: 1 });
    await host.close();
  });

  it("of what does not become shorter is an ordinary one", async () => {
    const host = await openInMemory(await image());
    const content = patternBytes(CLUSTER, 5);
    await host.driver.pwrite?.(0, content, compressed);
    expectBytes((await contentOf(host.driver)).subarray(0, CLUSTER), content, "content");
    expect(await host.driver.check?.()).toMatchObject({
      compressedClusters: 0,
      allocatedClusters: 1,
    });
    await host.close();
  });

  it("to an external data file is refused", async () => {
    const data = growingFile();
    const bytes = await createInMemory({ size: 16 * CLUSTER, "data-file": "d" }, data);
    const host = await openInMemory(bytes, { children: { "data-file": data } });
    await expect(host.driver.pwrite?.(0, new Uint8Array(65536), compressed)).rejects.toMatchObject({
      code: "ENOTSUP",
      message: "an external data file is not compressed",
    });
    await host.close();
  });

  it("that fails leaves nothing behind but a leak", async () => {
    const file = await image();
    const host = await openInMemory(file);
    await host.driver.pwrite?.(8 * CLUSTER, text(1), compressed);
    await host.driver.flush?.();
    for (const at of [1, 2, 3]) {
      host.gate.failAt({ at });
      await host.driver.pwrite?.(at * CLUSTER, text(at), compressed).catch(() => undefined);
      host.gate.disarm();
    }
    await host.driver.flush?.();
    expect(await host.driver.check?.()).toMatchObject({ corruptions: 0 });
    await host.close();
  });

  it("shares the sectors of its neighbours, and what is freed is counted down once for each", async () => {
    const file = await image();
    const host = await openInMemory(file);
    for (let at = 0; at < 16; at += 1)
      await host.driver.pwrite?.(at * CLUSTER, text(at), compressed);
    await host.driver.flush?.();
    expect(await host.driver.check?.()).toMatchObject({
      compressedClusters: 16,
      leaks: 0,
      corruptions: 0,
    });
    for (const at of [1, 5, 6, 15, 0]) await host.driver.pwrite?.(at * CLUSTER, text(at + 50));
    await host.driver.flush?.();
    const expected = new Uint8Array(16 * CLUSTER);
    for (let at = 0; at < 16; at += 1) {
      expected.set(text([1, 5, 6, 15, 0].includes(at) ? at + 50 : at), at * CLUSTER);
    }
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.close();
    const again = await openInMemory(file.bytes);
    expect(await again.driver.check?.()).toMatchObject({
      compressedClusters: 11,
      leaks: 0,
      corruptions: 0,
    });
    await again.close();
  });
});

describe("codecs", () => {
  it.each(["zlib", "zstd"] as const)(
    "without one for %s nothing compressed is read or written",
    async (type) => {
      const file = await image({ "compression-type": type });
      const host = await openInMemory(file);
      await host.driver.pwrite?.(0, text(1), compressed);
      await host.close();
      const bare = await TestHost.open(qcow2Definition(), {
        children: { file: growingFile(file.bytes) },
      });
      await expect(bare.driver.pread(0, new Uint8Array(512))).rejects.toMatchObject({
        code: "ENOTSUP",
        message: `there is no codec for ${type}`,
        context: { compressionType: type },
      });
      await expect(bare.driver.pwrite?.(CLUSTER, text(1), compressed)).rejects.toMatchObject({
        code: "ENOTSUP",
        message: `there is no codec to compress with ${type}`,
      });
      await bare.driver.pwrite?.(CLUSTER, text(2));
      await bare.close();
    },
  );

  it("are those that were given", async () => {
    const calls: string[] = [];
    const { zlib } = nodeCodecs();
    const counting: ClusterCodec = {
      compress: (cluster, limit) => {
        calls.push(`compress ${limit}`);
        return zlib?.compress?.(cluster, limit) ?? Promise.resolve(undefined);
      },
      decompress: (input, length) => {
        calls.push(`decompress ${length}`);
        return zlib?.decompress(input, length) ?? Promise.reject(new Error("none"));
      },
    };
    const definition = qcow2Definition({ codecs: { zlib: counting } });
    const host = await TestHost.open(definition, { children: { file: await image() } });
    await host.driver.pwrite?.(0, text(1), compressed);
    await host.driver.pread(0, new Uint8Array(10));
    expect(calls).toEqual([`compress ${CLUSTER - 1}`, `decompress ${CLUSTER}`]);
    await host.close();
  });

  it.each(
    (["zlib", "zstd"] as const).flatMap((type) =>
      (["zeroes", "noise", "a piece", "beyond the file"] as const).map((damage) => ({
        type,
        damage,
      })),
    ),
  )("for $type refuse data that is damaged ($damage)", async ({ type, damage }) => {
    const file = await image({ "compression-type": type });
    const host = await openInMemory(file);
    await host.driver.pwrite?.(0, text(1), compressed);
    await host.close();
    const bytes = new ImageBytes(file.bytes.slice());
    const entry = bytes.u64(bytes.entry(0));
    const place = Number(entry & ((1n << 57n) - 1n)) % 2 ** 40;
    const end = file.bytes.length;
    if (damage === "zeroes") bytes.bytes.fill(0, place);
    if (damage === "noise") bytes.bytes.set(patternBytes(end - place, 3), place);
    if (damage === "a piece") bytes.bytes.fill(0, place + 20);
    if (damage === "beyond the file")
      bytes.set64(bytes.entry(0), COMPRESSED | BigInt(end + 2 ** 20));
    const broken = await openInMemory(bytes.bytes);
    await expect(broken.driver.pread(0, new Uint8Array(512))).rejects.toMatchObject({
      code: "EIO",
    });
    await broken.driver.pread(CLUSTER, new Uint8Array(512));
    await broken.close();
  });
});
