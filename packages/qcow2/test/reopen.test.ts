import type { GenericNodeOptions } from "@blocklayer/driver";
import { expectBytes, type ReferenceDisk, TestHost } from "@blocklayer/driver-tests";
import { manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { ImageBytes } from "./image-bytes.ts";
import { contentOf, qcow2 } from "./image-rig.ts";
import { createInMemory, growingFile, openInMemory } from "./memory-image.ts";

const KIB = 1024;
const SIZE = 256 * KIB;
const DIRTY = 1n;
const CORRUPT = 2n;

/** A host whose node is reopened as a graph does it: the node's own options change between preparing and taking. */
class ReopenHost extends TestHost {
  #changes: Partial<GenericNodeOptions> = {};

  override get options(): GenericNodeOptions {
    return { ...super.options, ...this.#changes };
  }

  async reopen(options: unknown, changes: Partial<GenericNodeOptions> = {}): Promise<void> {
    const parsed = qcow2.schema.parse(options);
    if (!parsed.ok) throw new Error("the options do not parse");
    const readOnly = changes.readOnly ?? this.options.readOnly;
    const prepared = await this.driver.prepareReopen?.({ options: parsed.value, readOnly });
    this.#changes = { ...this.#changes, ...changes };
    prepared?.commit();
    await prepared?.clean?.();
  }
}

async function open(
  file: ReferenceDisk,
  options: unknown = {},
  generic: Partial<GenericNodeOptions> = {},
): Promise<ReopenHost> {
  const host = new ReopenHost({ children: { file }, generic });
  await host.open(qcow2, options);
  return host;
}

async function image(options: Readonly<Record<string, unknown>> = {}): Promise<ReferenceDisk> {
  return growingFile(await createInMemory({ size: SIZE, "cluster-size": 4096, ...options }));
}

function marks(file: ReferenceDisk): bigint {
  return new ImageBytes(file.bytes).u64(72);
}

function mark(file: ReferenceDisk, bits: bigint): void {
  new ImageBytes(file.bytes).or64(72, bits);
}

describe("a reopen", () => {
  it("to read-only writes everything back and clears the mark of late counts", async () => {
    const file = await image({ "lazy-refcounts": true });
    const host = await open(file);
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    expect(marks(file)).toBe(DIRTY);
    await host.reopen({}, { readOnly: true });
    expect(marks(file)).toBe(0n);
    await expect(host.driver.pwrite?.(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "EROFS",
    });
    const other = await openInMemory(file.bytes);
    expectBytes(await contentOf(other.driver), new Uint8Array(SIZE).fill(5), "content");
    expect(await other.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0 });
    await other.close();
    await host.close();
  });

  it("to read-write of an image that somebody left marked as dirty mends it before the first change", async () => {
    const file = await image({ "lazy-refcounts": true });
    const first = await open(file);
    await first.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await first.driver.flush?.();
    first.abandon();
    expect(marks(file)).toBe(DIRTY);
    const host = await open(file, {}, { readOnly: true });
    await host.reopen({ "lazy-refcounts": false }, { readOnly: false });
    expect(marks(file)).toBe(DIRTY);
    await host.driver.truncate?.(2 * SIZE);
    await host.driver.pwrite?.(SIZE, new Uint8Array(SIZE).fill(6));
    expect(marks(file)).toBe(0n);
    const expected = new Uint8Array(2 * SIZE).fill(5, 0, SIZE).fill(6, SIZE);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.driver.flush?.();
    expect(await host.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0 });
    await host.close();
  });

  it("to read-write that changes nothing leaves the mark to who mends the counts", async () => {
    const file = await image({ "lazy-refcounts": true });
    mark(file, DIRTY);
    const host = await open(file, {}, { readOnly: true });
    await host.reopen({}, { readOnly: false });
    await host.close();
    expect(marks(file)).toBe(DIRTY);
  });

  it("to read-write of an image that is marked as damaged is refused", async () => {
    const file = await image();
    mark(file, CORRUPT);
    const host = await open(file, {}, { readOnly: true });
    await expect(host.reopen({}, { readOnly: false })).rejects.toMatchObject({
      code: "EACCES",
      message: "qcow2: Image is corrupt; cannot be opened read/write",
    });
    await host.driver.pread(0, new Uint8Array(512));
    await host.close();
  });

  it.each([
    {
      what: "late counts in version 2",
      create: { version: "v2" },
      options: { "lazy-refcounts": true },
    },
    { what: "a slice longer than a cluster", create: {}, options: { "l2-cache-entry-size": 8192 } },
    {
      what: "parts larger than the whole",
      create: {},
      options: { "cache-size": 8192, "l2-cache-size": 16384 },
    },
  ])("with $what is refused, and nothing changes", async ({ create, options }) => {
    const file = await image(create);
    const host = await open(file);
    await expect(host.reopen(options)).rejects.toMatchObject({ code: "EINVAL" });
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    expectBytes(await contentOf(host.driver), new Uint8Array(SIZE).fill(5), "content");
    await host.close();
  });

  it("takes slices of another size, between requests", async () => {
    const file = await image();
    const host = await open(file);
    const expected = new Uint8Array(SIZE);
    for (const [number, slice] of [512, 4096, 1024, 2048, 512].entries()) {
      const at = number * 50_000;
      await host.driver.pwrite?.(at, new Uint8Array(50_000).fill(number + 1));
      expected.fill(number + 1, at, at + 50_000);
      await host.reopen({ "l2-cache-entry-size": slice, "l2-cache-size": 2 * slice });
      expectBytes(await contentOf(host.driver), expected, `content in slices of ${slice} bytes`);
    }
    await host.close();
    const again = await openInMemory(file.bytes);
    expectBytes(await contentOf(again.driver), expected, "content at the end");
    expect(await again.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0 });
    await again.close();
  });

  it("turns late counts on and off", async () => {
    const file = await image();
    const host = await open(file);
    await host.reopen({ "lazy-refcounts": true });
    await host.driver.pwrite?.(0, new Uint8Array(4096));
    expect(marks(file)).toBe(DIRTY);
    await host.reopen({ "lazy-refcounts": false });
    expect(marks(file)).toBe(0n);
    await host.driver.pwrite?.(8192, new Uint8Array(4096));
    expect(marks(file)).toBe(0n);
    await host.close();
  });

  it("with late counts in version 2 is refused as opening is", async () => {
    const file = await image({ version: "v2" });
    const refused = {
      code: "EINVAL",
      message: "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
      context: { version: 2 },
    };
    const options = { "lazy-refcounts": true };
    await expect(open(growingFile(file.bytes), options)).rejects.toMatchObject(refused);
    const host = await open(file);
    await expect(host.reopen(options)).rejects.toMatchObject(refused);
    await host.close();
  });

  it("is not needed when marking an image as dirty failed once", async () => {
    const file = await image({ "lazy-refcounts": true });
    const host = await open(file);
    const write = () => host.driver.pwrite?.(0, new Uint8Array(4096).fill(5));
    host.gate.failAt({ at: 1, when: "after" });
    await expect(write()).rejects.toMatchObject({ code: "EIO" });
    await write();
    expect(marks(file)).toBe(DIRTY);
    await host.driver.close();
    expect(marks(file)).toBe(0n);
    expect(await (await openInMemory(file)).driver.check?.()).toMatchObject({
      corruptions: 0,
      leaks: 0,
    });
  });

  it("changes what overlap checks look at", async () => {
    const file = await image();
    const first = await open(file);
    await first.driver.pwrite?.(0, new Uint8Array(4096).fill(1));
    await first.close();
    // The entry refers to the table of counts.
    const bytes = new ImageBytes(file.bytes);
    bytes.set64(bytes.entry(0), (1n << 63n) | BigInt(bytes.refcountTable));
    const host = await open(growingFile(file.bytes), { "overlap-check": "none" });
    await host.reopen({ "overlap-check": "constant" });
    await expect(host.driver.pwrite?.(0, new Uint8Array(512))).rejects.toMatchObject({
      code: "EIO",
    });
    expect(host.corruptions).toHaveLength(1);
    await host.close();
  });

  it("passes discards of guests on as the node says then", async () => {
    const file = await image();
    const host = await open(file, {}, { discard: "ignore" });
    const discards = (): number =>
      host.gate.log.filter(({ operation }) => operation === "pdiscard").length;
    await host.driver.pwrite?.(0, new Uint8Array(8192).fill(1));
    await host.driver.pdiscard?.(0, 4096);
    await host.driver.flush?.();
    expect(discards()).toBe(0);
    await host.reopen({}, { discard: "unmap" });
    await host.driver.pdiscard?.(4096, 4096);
    await host.driver.flush?.();
    expect(discards()).toBe(1);
    await host.close();
  });
});

describe("an image that is given up and taken back", () => {
  it("is whole in between, and shows what the other process did", async () => {
    const file = await image({ "lazy-refcounts": true });
    const host = await open(file);
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await host.driver.inactivate?.();
    expect(marks(file)).toBe(0n);
    await expect(host.driver.pwrite?.(0, new Uint8Array(1))).rejects.toMatchObject({
      code: "EPERM",
      message: "the image was given up to another process",
    });
    const other = await openInMemory(file);
    await other.driver.snapshots?.create({
      name: "one",
      vmStateSize: 0,
      dateMs: 0,
      vmClockNs: 0,
      diskSize: SIZE,
    });
    await other.driver.truncate?.(2 * SIZE);
    await other.driver.amend?.({ "refcount-bits": 4 });
    await other.driver.pwrite?.(SIZE, new Uint8Array(SIZE).fill(6));
    await other.driver.close();
    await host.driver.activate?.();
    expect(host.driver.size).toBe(2 * SIZE);
    expect(host.resizedCount).toBe(1);
    expect(await host.driver.snapshots?.list()).toMatchObject([{ name: "one" }]);
    await host.driver.pwrite?.(4096, new Uint8Array(4096).fill(7));
    const expected = new Uint8Array(2 * SIZE).fill(5, 0, SIZE).fill(6, SIZE).fill(7, 4096, 8192);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.driver.flush?.();
    expect(await host.driver.check?.()).toMatchObject({ corruptions: 0, leaks: 0 });
    await host.close();
  });

  it("is not written when it is closed meanwhile", async () => {
    const file = await image();
    const host = await open(file);
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await host.driver.inactivate?.();
    await host.driver.inactivate?.();
    const before = file.bytes.slice();
    await host.close();
    expectBytes(file.bytes, before, "file");
  });

  it("that was made another one is refused", async () => {
    const file = await image();
    const host = await open(file);
    await host.driver.inactivate?.();
    const kept = file.bytes;
    file.bytes = (await createInMemory({ size: SIZE, "cluster-size": 8192 })).slice();
    await expect(host.driver.activate?.()).rejects.toMatchObject({ code: "EINVAL" });
    file.bytes = kept;
    mark(file, CORRUPT);
    await expect(host.driver.activate?.()).rejects.toMatchObject({ code: "EACCES" });
    await host.close();
  });

  it("goes on when giving it up failed", async () => {
    const file = await image();
    const host = await open(file);
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    host.gate.failAt({ at: 1, code: "ENOSPC" });
    await expect(host.driver.inactivate?.()).rejects.toMatchObject({ code: "ENOSPC" });
    await host.driver.activate?.();
    await host.driver.pwrite?.(0, new Uint8Array(10).fill(6));
    const expected = new Uint8Array(SIZE).fill(5).fill(6, 0, 10);
    expectBytes(await contentOf(host.driver), expected, "content");
    await host.close();
    expect(await (await openInMemory(file.bytes)).driver.check?.()).toMatchObject({
      corruptions: 0,
      leaks: 0,
    });
  });
});

describe("tables that nobody uses", () => {
  async function reader(interval: number) {
    const env = manualEnv();
    const bytes = await image();
    const writer = await open(bytes);
    await writer.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await writer.close();
    const host = await openInMemory(bytes.bytes, {
      env,
      options: { "cache-clean-interval": interval },
    });
    const reads = async (): Promise<number> => {
      const before = host.gate.log.length;
      await host.driver.pread(0, new Uint8Array(512));
      return host.gate.log.length - before - 1;
    };
    return { env, host, reads };
  }

  it("are forgotten after one to two intervals; then no timer runs", async () => {
    const { env, host, reads } = await reader(10);
    expect(env.clock.sleeping).toBe(0);
    expect(await reads()).toBe(1);
    expect(env.clock.sleeping).toBe(1);
    await env.clock.advance(10_000);
    expect(await reads()).toBe(0);
    await env.clock.advance(10_000);
    expect(await reads()).toBe(0);
    await env.clock.advance(20_000);
    expect(env.clock.sleeping).toBe(0);
    expect(await reads()).toBe(1);
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });

  it("are kept with an interval of 0, and in a drained section", async () => {
    const { env, host, reads } = await reader(0);
    expect(await reads()).toBe(1);
    expect(env.clock.sleeping).toBe(0);
    await host.close();
    const drained = await reader(10);
    await drained.reads();
    await drained.host.driver.drainBegin?.();
    expect(drained.env.clock.sleeping).toBe(0);
    await drained.env.clock.advance(60_000);
    expect(await drained.reads()).toBe(0);
    drained.host.driver.drainEnd?.();
    expect(drained.env.clock.sleeping).toBe(1);
    await drained.host.close();
    expect(drained.env.clock.sleeping).toBe(0);
  });

  it("are not those with changes, which no timer waits for", async () => {
    const env = manualEnv();
    const host = await openInMemory(await image(), { env, options: { "cache-clean-interval": 1 } });
    await host.driver.pwrite?.(0, new Uint8Array(SIZE).fill(5));
    await env.clock.advance(10_000);
    expect(env.clock.sleeping).toBe(0);
    await host.driver.flush?.();
    expect(env.clock.sleeping).toBe(1);
    await env.clock.advance(10_000);
    expectBytes(await contentOf(host.driver), new Uint8Array(SIZE).fill(5), "content");
    await host.close();
    expect(env.clock.sleeping).toBe(0);
  });
});
