import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Graph } from "@blocklayer/block-graph";
import { realEnv } from "@blocklayer/env";
import { file } from "@blocklayer/file";
import { NbdServer } from "@blocklayer/nbd-server";
import { listenUnix, type UnixListener } from "@blocklayer/nbd-server/node";
import { raw } from "@blocklayer/raw";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { endPeers, peersMissing, run, runWell } from "./peers.ts";

const missing = peersMissing(["nbdinfo", "nbdcopy", "qemu-img", "qemu-io", "fio"]);
const SIZE = 8 * 1024 * 1024;
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

function pattern(factor: number): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at += 1) bytes[at] = at * factor + (at >>> 12) * 7;
  return bytes;
}

describe.skipIf(missing !== undefined)("with the clients of others", () => {
  let directory = "";
  let disk = "";
  let content: Uint8Array;
  let graph: Graph;
  let server: NbdServer;
  let listener: UnixListener;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "nbd-server-"));
    disk = join(directory, "disk.img");
    content = pattern(31);
    content.fill(0, 1024 * 1024, 3 * 1024 * 1024);
  });

  afterAll(() => rm(directory, { recursive: true, force: true }));

  beforeEach(async () => {
    await writeFile(disk, content);
    graph = new Graph({ env: realEnv(), drivers: [file, raw] });
    const node = await graph.open({
      driver: "raw",
      "node-name": "disk",
      discard: "unmap",
      file: { driver: "file", filename: disk, discard: "unmap" },
    });
    server = new NbdServer({ env: realEnv() });
    await server.addExport({ node, writable: true, description: "a disk" });
    await server.addExport({ node, name: "read only" });
    listener = await listenUnix({ server });
  });

  afterEach(async () => {
    endPeers();
    await listener.close();
    await server.stop(1_000);
    expect(server.connections).toEqual([]);
    expect(server.heldBytes).toBe(0);
    await graph.close();
  });

  it("nbdinfo shows the exports", async () => {
    const text = await runWell("nbdinfo", ["--list", "--json", listener.uri()]);
    const { exports } = JSON.parse(text) as { exports: Record<string, unknown>[] };
    expect(exports).toMatchObject([
      {
        "export-name": "disk",
        description: "a disk",
        "export-size": SIZE,
        is_read_only: false,
        can_fast_zero: true,
        can_flush: true,
        can_fua: true,
        can_multi_conn: true,
        can_trim: true,
        can_zero: true,
        block_size_preferred: 4096,
        block_size_maximum: 33_554_432,
      },
      { "export-name": "read only", is_read_only: true, can_trim: false },
    ]);
    const { status, output } = await run("nbdinfo", [listener.uri("nope")]);
    expect(status).not.toBe(0);
    expect(output).toContain("No such file or directory for export: nope");
  });

  it("nbdcopy reads all of it", async () => {
    const copy = join(directory, "copy.img");
    await runWell("nbdcopy", ["--requests=64", "--connections=4", listener.uri("disk"), copy]);
    expect(sha256(await readFile(copy))).toBe(sha256(content));
  });

  it("nbdcopy writes all of it, zeroes too", async () => {
    const source = join(directory, "source.img");
    const other = pattern(57).fill(0, 5_000_000, 7_000_000);
    await writeFile(source, other);
    await runWell("nbdcopy", ["--flush", source, listener.uri("disk")]);
    expect(sha256(await readFile(disk))).toBe(sha256(other));
  });

  it("qemu-img reads, compares and writes", async () => {
    const uri = listener.uri("disk");
    expect(await runWell("qemu-img", ["info", "-f", "raw", uri])).toContain("virtual size: 8 MiB");
    const copy = join(directory, "copy.img");
    await runWell("qemu-img", ["convert", "-f", "raw", "-O", "raw", uri, copy]);
    expect(sha256(await readFile(copy))).toBe(sha256(content));
    await runWell("qemu-img", ["compare", "-f", "raw", "-F", "raw", uri, copy]);
    const other = content.toReversed();
    await writeFile(copy, other);
    await runWell("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", copy, uri]);
    expect(sha256(await readFile(disk))).toBe(sha256(other));
  });

  it("qemu-io writes patterns, zeroes and discards, and flushes", async () => {
    const steps = [
      "write -P 17 0 64k",
      "write -f -P 18 65536 1M",
      "write -z 4M 128k",
      "write -z -u 5M 64k",
    ];
    const more = [
      "discard 6M 64k",
      "flush",
      "read -P 17 0 64k",
      "read -P 18 64k 1M",
      "read -P 0 4M 128k",
    ];
    const commands = [...steps, ...more].flatMap((step) => ["-c", step]);
    const output = await runWell("qemu-io", ["-f", "raw", listener.uri("disk"), ...commands]);
    expect(output).not.toContain("verification failed");
    const written = await readFile(disk);
    expect(written[0]).toBe(17);
    expect(written[65_536 + 1024 * 1024 - 1]).toBe(18);
    expect(written[4 * 1024 * 1024]).toBe(0);
  });

  it("qemu-io can not write to a read-only export", async () => {
    const uri = listener.uri("read only");
    const { output } = await run("qemu-io", ["-f", "raw", "-c", "write 0 4k", uri]);
    expect(output).toMatch(/read-only|Permission|not permitted/i);
    expect(await runWell("qemu-io", ["-r", "-f", "raw", "-c", "read 0 4k", uri])).toContain(
      "4 KiB",
    );
    expect(sha256(await readFile(disk))).toBe(sha256(content));
  });

  it("fio finds what it wrote, while others send garbage and vanish", async () => {
    const noise: Promise<void>[] = [];
    for (let index = 0; index < 20; index += 1) noise.push(garbage(listener.path, index));
    const args = [
      "--name=verify",
      "--ioengine=nbd",
      `--uri=${listener.uri("disk")}`,
      "--rw=randwrite",
    ];
    const more = [
      "--bs=4k",
      "--iodepth=32",
      "--size=8M",
      "--verify=crc32c",
      "--verify_fatal=1",
      "--verify_state_save=0",
    ];
    const output = await runWell("fio", [...args, ...more]);
    expect(output).toContain("err= 0");
    await Promise.all(noise);
  });
});

/** Connects, says something wrong, and cuts the connection. */
function garbage(path: string, seed: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
    socket.write(Buffer.from(`\0\0\0\x03${"IHAVEOPT".slice(0, seed)}garbage`), () => {
      if (seed < 10) socket.destroy();
    });
    socket.resume();
    if (seed >= 10) socket.once("data", () => socket.destroy());
  });
}
