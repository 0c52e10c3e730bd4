import { lstat, mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { connect, Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { realEnv } from "@blocklayer/env";
import { NbdServer } from "@blocklayer/nbd-server";
import { listenTcp, listenUnix } from "@blocklayer/nbd-server/node";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { TestDisk } from "./test-disk.ts";

let directory = "";
let server: NbdServer;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "nbd-listen-"));
  server = new NbdServer({ env: realEnv() });
  await server.addExport({ name: "disk", backend: new TestDisk() });
});

afterEach(async () => {
  await server.stop(100);
  await rm(directory, { recursive: true, force: true });
});

/** Resolves with the greeting. */
function greeting(socket: Socket): Promise<number> {
  return new Promise((resolve, reject) => {
    socket.once("data", (bytes) => resolve(bytes.length));
    socket.once("error", reject);
    socket.once("close", () => resolve(0));
  });
}

const gone = (socket: Socket): Promise<void> =>
  new Promise((resolve) => socket.once("close", () => resolve()).resume());

describe("a unix socket", () => {
  it("lies in a private directory of its own, which is gone after close", async () => {
    const listener = await listenUnix({ server });
    const parent = dirname(listener.path);
    expect((await stat(parent)).mode & 0o777).toBe(0o700);
    expect((await stat(listener.path)).mode & 0o777).toBe(0o600);
    expect(listener.uri("a b")).toContain("nbd+unix:///a%20b?socket=");
    const socket = connect({ path: listener.path });
    expect(await greeting(socket)).toBe(18);
    await listener.close();
    await listener.close();
    await expect(stat(parent)).rejects.toMatchObject({ code: "ENOENT" });
    // Who is connected stays until the server is stopped.
    expect(server.connections.length).toBe(1);
    const closed = gone(socket);
    await server.stop(100);
    await closed;
  });

  it("can be put at a path, where nothing else is left", async () => {
    const path = join(directory, "nbd.sock");
    const listener = await listenUnix({ server, path });
    expect(await readdir(directory)).toEqual(["nbd.sock"]);
    expect((await lstat(path)).mode & 0o777).toBe(0o600);
    await expect(listenUnix({ server, path })).rejects.toMatchObject({
      code: "EADDRINUSE",
      message: `Failed to bind socket to ${path}: Address already in use`,
      context: { address: path },
    });
    await listener[Symbol.asyncDispose]();
    expect(await readdir(directory)).toEqual([]);
  });

  it("replaces a dead socket, but no file", async () => {
    const path = join(directory, "nbd.sock");
    await writeFile(path, "precious");
    await expect(listenUnix({ server, path })).rejects.toMatchObject({ code: "EADDRINUSE" });
    expect((await stat(path)).size).toBe(8);
  });

  it.each([
    [
      "a missing directory",
      "missing/nbd.sock",
      "ENOENT",
      /^Failed to make a directory for the socket in .*missing/,
    ],
    [
      "a path that is too long",
      `${"x".repeat(110)}.sock`,
      "EINVAL",
      /^UNIX socket path '.*' is too long$/,
    ],
  ])("%s is refused", async (_, name, code, message) => {
    await expect(listenUnix({ server, path: join(directory, name) })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
    expect(await readdir(directory)).toEqual([]);
  });

  it.each([
    [89, true],
    [90, false],
  ])("in a directory whose path has %d bytes can be had: %s", async (length, isPossible) => {
    const long = join(directory, "d".repeat(length - directory.length - 1));
    await mkdir(long);
    const path = join(long, "s.sock");
    if (isPossible) {
      const listener = await listenUnix({ server, path });
      expect(await readdir(long)).toEqual(["s.sock"]);
      await listener.close();
    } else {
      await expect(listenUnix({ server, path })).rejects.toMatchObject({
        code: "EINVAL",
        message: `UNIX socket path '${path}' is too long`,
        hint: expect.stringContaining("may have 89 bytes"),
        context: { address: path },
      });
    }
    expect(await readdir(long)).toEqual([]);
  });

  it("a socket that the server refuses is closed", async () => {
    const listener = await listenUnix({ server });
    await server.stop();
    const socket = connect({ path: listener.path });
    expect(await greeting(socket)).toBe(0);
    await listener.close();
  });
});

describe("TCP", () => {
  it("is refused without the flag", async () => {
    await expect(listenTcp({ server, insecureLoopback: false })).rejects.toMatchObject({
      code: "EPERM",
      message: "listening by TCP without TLS is refused",
      hint: expect.stringContaining("insecureLoopback"),
    });
  });

  it.each([["0.0.0.0"], ["::"], ["192.0.2.1"], ["127.0.0.1.example.org"], ["::ffff:192.0.2.1"]])(
    "is refused at %s",
    async (host) => {
      await expect(
        listenTcp({ server, host, port: 0, insecureLoopback: true }),
      ).rejects.toMatchObject({
        code: "EPERM",
        message: `listening at ${host} without TLS is refused`,
      });
    },
  );

  it("serves this machine, and counts connections per address", async () => {
    const listener = await listenTcp({ server, port: 0, insecureLoopback: true });
    expect(listener.uri("disk")).toBe(`nbd://127.0.0.1:${listener.port}/disk`);
    const sockets = Array.from({ length: 21 }, () => connect(listener.port, listener.host));
    const greetings = await Promise.all(sockets.map(greeting));
    expect(greetings.filter((length) => length === 18).length).toBe(20);
    expect(server.connections[0]?.peer).toMatch(/^127\.0\.0\.1:\d+$/);
    for (const socket of sockets) socket.destroy();
    await listener.close();
  });

  it("a client that can not be accepted does not end the process", async () => {
    const emitted: Server[] = [];
    const listen = vi.spyOn(Server.prototype, "listen").mockImplementation(function (
      this: Server,
      ...args: unknown[]
    ) {
      emitted.push(this);
      listen.mockRestore();
      return Reflect.apply(Server.prototype.listen, this, args) as Server;
    });
    const listener = await listenTcp({ server, port: 0, insecureLoopback: true });
    emitted[0]?.emit("error", new Error("accept EMFILE"));
    emitted[0]?.emit("error", new Error("accept EMFILE"));
    const socket = connect(listener.port, listener.host);
    expect(await greeting(socket)).toBe(18);
    socket.destroy();
    await listener.close();
  });

  it("a port in use is an error", async () => {
    const listener = await listenTcp({ server, port: 0, insecureLoopback: true });
    await expect(
      listenTcp({ server, port: listener.port, insecureLoopback: true }),
    ).rejects.toMatchObject({ code: "EADDRINUSE" });
    await listener[Symbol.asyncDispose]();
  });
});
