import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BlockNode, Graph } from "@blocklayer/block-graph";
import { BitmapManager, type DirtyBitmap } from "@blocklayer/dirty-bitmap";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { qcow2Definition } from "@blocklayer/qcow2";
import { describe, expect, it } from "vitest";
import { bytes, type Disk, failure, MiB } from "./bitmap-rig.ts";

const has = isThere();

/** Whether the tools of qemu are installed. Says so when they are not; throws when they must be. */
function isThere(): boolean {
  const { BLOCKLAYER_REQUIRE_PEERS: isRequired } = process.env;
  const found = spawnSync("qemu-img", ["--version"], { stdio: "ignore" }).status === 0;
  if (!found && isRequired === "1") throw new Error("qemu-img is not installed");
  if (!found) process.stderr.write("tests with qcow2 images are skipped: no qemu-img\n");
  return found;
}

/** A process with an image in a graph. */
interface Machine {
  readonly graph: Graph;
  readonly bitmaps: BitmapManager;
  readonly node: BlockNode;
  readonly disk: Disk;
  /** Ends it in order. */
  stop(): Promise<void>;
}

class Shop implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "bitmaps-"));
  readonly image: string = join(this.path, "a.qcow2");

  run(program: string, ...args: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" });
    expect([status, stdout, stderr]).toEqual([0, stdout, stderr]);
    return stdout;
  }

  create(options = "cluster_size=64k"): void {
    this.run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, this.image, "1M");
  }

  async start(options: Record<string, unknown> = {}): Promise<Machine> {
    const graph = new Graph({ env: realEnv(), drivers: [file, qcow2Definition()] as never });
    const bitmaps = new BitmapManager(graph);
    const node = await graph.open({
      driver: "qcow2",
      "node-name": "disk",
      file: { driver: "file", filename: this.image },
      ...options,
    } as never);
    const perm =
      options["read-only"] === true ? ["consistent-read"] : ["consistent-read", "write", "resize"];
    const disk = (await graph.createBackend({ node, perm } as never)) as unknown as Disk;
    const stop = async (): Promise<void> => {
      await disk.close();
      await graph.close();
    };
    return { graph, bitmaps, node, disk, stop };
  }

  expectClean(): void {
    this.run("qemu-img", "check", "-q", "-f", "qcow2", this.image);
  }

  /** Bitmaps by name, with their flags. */
  flags(): Record<string, readonly string[]> {
    const info = JSON.parse(this.run("qemu-img", "info", "-U", "--output=json", this.image)) as {
      "format-specific": { data: { bitmaps?: { name: string; flags: string[] }[] } };
    };
    const { bitmaps = [] } = info["format-specific"].data;
    return Object.fromEntries(bitmaps.map(({ name, flags }) => [name, flags]));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

const GROUP = 65536;

/** Numbers of the dirty groups. */
const dirty = ({ map, granularity, size }: DirtyBitmap): number[] =>
  Array.from({ length: size / granularity }, (_, index) => index).filter((index) =>
    map.get(index * granularity),
  );

describe.skipIf(!has)("bitmaps of a qcow2 image", () => {
  it.each(["cluster_size=64k", "cluster_size=512", "extended_l2=on"])(
    "with %s go from one process to the next, of either kind",
    async (options) => {
      using shop = new Shop();
      shop.create(options);
      const first = await shop.start();
      await first.bitmaps.add(first.node, { name: "x", persistent: true, granularity: GROUP });
      await first.disk.write(GROUP, bytes(1));
      await first.stop();
      expect(shop.flags()).toEqual({ x: ["auto"] });
      shop.run("qemu-io", "-f", "qcow2", "-c", "write 128k 1k", shop.image);
      shop.run("qemu-img", "bitmap", "--add", "--disable", "-g", "65536", shop.image, "theirs");
      const second = await shop.start();
      expect(dirty(second.bitmaps.lookup("disk", "x"))).toEqual([1, 2]);
      await second.disk.write(5 * GROUP, bytes(1));
      second.bitmaps.lookup("disk", "theirs").enable();
      await second.disk.write(6 * GROUP, bytes(1));
      await second.stop();
      shop.expectClean();
      shop.run("qemu-img", "bitmap", "--merge", "x", shop.image, "theirs");
      const third = await shop.start({ "read-only": true });
      expect(dirty(third.bitmaps.lookup("disk", "x"))).toEqual([1, 2, 5, 6]);
      expect(dirty(third.bitmaps.lookup("disk", "theirs"))).toEqual([1, 2, 5, 6]);
      await third.stop();
      shop.expectClean();
    },
  );

  it("are in use from the first write to the end, and untouched by reads", async () => {
    using shop = new Shop();
    shop.create();
    shop.run("qemu-img", "bitmap", "--add", shop.image, "x");
    const reading = await shop.start();
    await reading.disk.read(0, bytes(512));
    expect(shop.flags()).toEqual({ x: ["auto"] });
    await reading.disk.write(0, bytes(512));
    expect(shop.flags()).toEqual({ x: ["in-use", "auto"] });
    await reading.stop();
    expect(shop.flags()).toEqual({ x: ["auto"] });
    shop.expectClean();
  });

  it("follow a resize", async () => {
    using shop = new Shop();
    shop.create("cluster_size=512");
    shop.run("qemu-img", "bitmap", "--add", "-g", "65536", shop.image, "x");
    const machine = await shop.start();
    await machine.disk.truncate(4 * MiB);
    await machine.disk.write(3 * MiB, bytes(1));
    await machine.disk.truncate(5 * MiB);
    await machine.stop();
    shop.expectClean();
    const again = await shop.start();
    expect(dirty(again.bitmaps.lookup("disk", "x"))).toContain(48);
    await again.stop();
  });

  it("are removed from the image too, and refused where the image has none", async () => {
    using shop = new Shop();
    shop.create();
    shop.run("qemu-img", "bitmap", "--add", shop.image, "x");
    const machine = await shop.start();
    await machine.bitmaps.remove("disk", "x");
    expect(shop.flags()).toEqual({});
    await machine.stop();
    shop.expectClean();
    shop.create("compat=0.10");
    const old = await shop.start();
    const error = await failure(() => old.bitmaps.add(old.node, { name: "x", persistent: true }));
    expect([error.code, error.message]).toEqual([
      "ENOTSUP",
      "Can't make bitmap 'x' persistent in 'disk': Cannot store dirty bitmaps in qcow2 v2 files",
    ]);
    await old.stop();
  });

  it("are stored for another process when the image is given up, and loaded after it", async () => {
    using shop = new Shop();
    shop.create();
    const machine = await shop.start();
    const { bitmaps, node, graph, disk } = machine;
    await bitmaps.add(node, { name: "x", persistent: true, granularity: GROUP });
    await disk.write(0, bytes(1));
    await graph.inactivate();
    expect(shop.flags()).toEqual({ x: ["auto"] });
    shop.run("qemu-io", "-f", "qcow2", "-c", "write 192k 1k", shop.image);
    await graph.activate();
    expect(dirty(bitmaps.lookup("disk", "x"))).toEqual([0, 3]);
    await disk.write(9 * GROUP, bytes(1));
    await machine.stop();
    const again = await shop.start();
    expect(dirty(again.bitmaps.lookup("disk", "x"))).toEqual([0, 3, 9]);
    await again.stop();
    shop.expectClean();
  });

  it("survive reopening as read-only and back", async () => {
    using shop = new Shop();
    shop.create();
    const machine = await shop.start();
    const { bitmaps, node, graph, disk } = machine;
    await bitmaps.add(node, { name: "x", persistent: true, granularity: GROUP });
    await disk.write(0, bytes(1));
    await disk.close();
    await graph.setReadOnly(node, true);
    expect(shop.flags()).toEqual({ x: ["auto"] });
    await graph.setReadOnly(node, false);
    const writer = (await graph.createBackend({
      node,
      perm: ["write"],
    } as never)) as unknown as Disk;
    await writer.write(2 * GROUP, bytes(1));
    expect(shop.flags()).toEqual({ x: ["in-use", "auto"] });
    await writer.close();
    await graph.close();
    const again = await shop.start();
    expect(dirty(again.bitmaps.lookup("disk", "x"))).toEqual([0, 2]);
    await again.stop();
  });
});
