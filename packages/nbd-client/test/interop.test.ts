import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { RequestFlag } from "@blocklayer/driver";
import { modelTest, patternBytes, readAll, TestHost } from "@blocklayer/driver-tests";
import { realEnv } from "@blocklayer/env";
import { connectNbd, listExports, nbd } from "@blocklayer/nbd-client/node";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";
import { hasPeer, Workshop } from "./peer.ts";

const SIZE = 2 ** 20;
const env = realEnv();
const { fua, mayUnmap } = RequestFlag;

function openNode(path: string, options: object = {}, generic = {}): Promise<TestHost> {
  return TestHost.open(nbd, { env, options: { path, ...options }, generic });
}

describe.skipIf(!hasPeer("nbdkit"))("nbdkit", () => {
  it("memory: equals an array of bytes over random operations", async () => {
    using workshop = new Workshop();
    await using host = await openNode(workshop.nbdkit("memory", String(SIZE)));
    expect([host.driver.size, host.driver.zeroes]).toEqual([SIZE, "native"]);
    await modelTest(host.driver, 1, 200);
  });

  it("file: what was written is in the file, and the other way round", async () => {
    using workshop = new Workshop();
    const file = workshop.file("disk");
    const content = patternBytes(SIZE, 3);
    writeFileSync(file, content);
    await using host = await openNode(workshop.nbdkit("file", file));
    const { driver } = host;
    expect(Buffer.compare(await readAll(driver), content)).toBe(0);
    const data = patternBytes(8192, 9);
    await driver.pwrite?.(4096, data, { flags: fua });
    await driver.pwriteZeroes?.(65536, 65536, { flags: mayUnmap });
    await driver.pwriteZeroes?.(262144, 4096);
    await driver.pdiscard?.(524288, 65536);
    await driver.flush?.();
    content.set(data, 4096);
    content.fill(0, 65536, 131072);
    content.fill(0, 262144, 266240);
    content.fill(0, 524288, 589824);
    expect(Buffer.compare(readFileSync(file), content)).toBe(0);
    expect(Buffer.compare(await readAll(driver), content)).toBe(0);
  });

  it("64 requests at once with answers out of order", async () => {
    using workshop = new Workshop();
    const socket = workshop.nbdkit("--filter=delay", "pattern", "1G", "rdelay=1ms");
    await using connection = await connectNbd({ type: "unix", path: socket });
    const work = Array.from({ length: 200 }, async (_, index) => {
      const buffer = new Uint8Array(4096);
      const offset = ((index * 7919) % 2 ** 17) * 4096;
      await connection.read(offset, buffer);
      const expected = Buffer.alloc(4096);
      for (let at = 0; at < 4096; at += 8) expected.writeBigUInt64BE(BigInt(offset + at), at);
      expect(Buffer.compare(buffer, expected)).toBe(0);
    });
    await Promise.all(work);
  });

  it("errors are those of single requests", async () => {
    using workshop = new Workshop();
    const socket = workshop.nbdkit(
      "--filter=error",
      "memory",
      String(SIZE),
      "error-pwrite=ENOSPC",
      "error-pwrite-rate=100%",
      "error-zero=EIO",
      "error-zero-rate=100%",
    );
    await using host = await openNode(socket);
    const { driver } = host;
    await rejection(driver.pwrite?.(0, new Uint8Array(512)) ?? Promise.resolve(), "ENOSPC");
    await rejection(driver.pwriteZeroes?.(0, 512) ?? Promise.resolve(), "EIO");
    expect(await readAll(driver)).toEqual(new Uint8Array(SIZE));
  });

  it("a read-only server is refused to a writer and serves a reader", async () => {
    using workshop = new Workshop();
    const socket = workshop.nbdkit("-r", "memory", String(SIZE));
    await rejection(openNode(socket), "EACCES");
    await using host = await openNode(socket, {}, { readOnly: true });
    expect(await readAll(host.driver)).toEqual(new Uint8Array(SIZE));
  });

  it("oldstyle, and a server that wants TLS", async () => {
    using workshop = new Workshop();
    const oldstyle = workshop.nbdkit("-o", "memory", String(SIZE));
    await using connection = await connectNbd(`nbd+unix:///?socket=${oldstyle}`);
    expect(connection.info.size).toBe(SIZE);
    writeFileSync(workshop.file("psk"), "alice:0123456789abcdef0123456789abcdef\n");
    const secure = workshop.nbdkit(
      "--tls=require",
      `--tls-psk=${workshop.file("psk")}`,
      "memory",
      String(SIZE),
    );
    const work = connectNbd(`nbd+unix:///?socket=${secure}`);
    await rejection(work, "ENOTSUP", "TLS negotiation required (GO)");
  });

  it("minimum blocks become the alignment", async () => {
    using workshop = new Workshop();
    const socket = workshop.nbdkit(
      "--filter=blocksize-policy",
      "memory",
      String(SIZE),
      "blocksize-minimum=4096",
      "blocksize-preferred=65536",
      "blocksize-maximum=131072",
      "blocksize-error-policy=error",
    );
    await using host = await openNode(socket);
    expect(host.driver.limits).toMatchObject({
      requestAlignment: 4096,
      optTransfer: 65536,
      maxTransfer: 131072,
    });
    await modelTest(host.driver, 2, 60);
  });

  it("lists exports with their properties", async () => {
    using workshop = new Workshop();
    const folder = workshop.file("disks");
    mkdirSync(folder);
    writeFileSync(`${folder}/a`, new Uint8Array(1024));
    writeFileSync(`${folder}/b`, new Uint8Array(2048));
    const socket = workshop.nbdkit("file", `dir=${folder}`);
    const uri = `nbd+unix:///?socket=${socket}`;
    const listed = await listExports(uri, { withInfo: true });
    const sizes = listed.map(({ exportName, info }) => [exportName, info?.size]);
    expect(sizes.sort()).toEqual([
      ["a", 1024],
      ["b", 2048],
    ]);
  });

  it("a server that is killed and comes back is used again", async () => {
    using workshop = new Workshop();
    const file = workshop.file("disk");
    writeFileSync(file, patternBytes(SIZE, 5));
    const socket = workshop.nbdkit("file", file);
    await using host = await openNode(socket, { "reconnect-delay": 20 });
    const { driver } = host;
    await driver.pread(0, new Uint8Array(512));
    workshop.killLast();
    const buffer = new Uint8Array(512);
    const work = driver.pread(4096, buffer);
    workshop.restartNbdkit(socket, "file", file);
    await work;
    expect(buffer).toEqual(patternBytes(SIZE, 5).slice(4096, 4608));
  });
});

describe.skipIf(!hasPeer("qemu-nbd"))("qemu-nbd", () => {
  it("raw: equals an array of bytes over random operations", async () => {
    using workshop = new Workshop();
    const file = workshop.file("disk");
    writeFileSync(file, new Uint8Array(SIZE));
    const socket = workshop.qemuNbd("-f", "raw", "-x", "disk", "-e", "2", "--discard=unmap", file);
    await using host = await openNode(socket, { export: "disk" });
    await modelTest(host.driver, 3, 200);
    const content = await readAll(host.driver);
    await host.driver.flush?.();
    expect(Buffer.compare(readFileSync(file), content)).toBe(0);
  });

  it("tells of an export that is not there as it tells its own clients", async () => {
    using workshop = new Workshop();
    const file = workshop.file("disk");
    writeFileSync(file, new Uint8Array(SIZE));
    const socket = workshop.qemuNbd("-f", "raw", "-x", "disk", "-t", file);
    const error = await rejection(
      openNode(socket, { export: "other" }),
      "ENOENT",
      "Requested export not available",
    );
    expect(error.hint).toBe("server reported: export 'other' not present");
    const listed = await listExports({ type: "unix", path: socket });
    expect(listed.map(({ exportName }) => exportName)).toEqual(["disk"]);
  });
});
