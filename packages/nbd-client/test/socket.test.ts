import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { realEnv } from "@blocklayer/env";
import { NbdConnection } from "@blocklayer/nbd-client";
import { connectNbd, connectServer, listExports } from "@blocklayer/nbd-client/node";
import { NbdCommand, NbdSize } from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";
import { FakeServer, GREETING, goReplies } from "./fake-server.ts";
import { Workshop } from "./peer.ts";

/** A server on a real socket, spoken for by a test. */
class SocketServer extends FakeServer implements AsyncDisposable {
  readonly #server: Server;
  readonly connection: Promise<Socket>;

  private constructor(server: Server) {
    super();
    this.#server = server;
    this.connection = new Promise((resolve) => {
      server.on("connection", (socket) => {
        socket.on("data", (chunk) => this.receive([chunk]));
        socket.on("error", () => undefined);
        socket.on("close", () => {
          this.isDestroyed = true;
          this.notify();
        });
        resolve(socket);
      });
    });
  }

  static async listen(
    where: { path: string } | { host: string; port: number },
  ): Promise<SocketServer> {
    const server = createServer({ allowHalfOpen: true });
    const self = new SocketServer(server);
    await new Promise<void>((resolve) => server.listen(where, resolve));
    return self;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  override send(...chunks: Uint8Array[]): void {
    this.connection.then((socket) => {
      for (const chunk of chunks) socket.write(chunk);
    }, unreachable);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    (await this.connection).destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function unreachable(error: unknown): never {
  throw error;
}

describe("sockets", () => {
  it("TCP: large transfers both ways, and a soft end", async () => {
    await using server = await SocketServer.listen({ host: "127.0.0.1", port: 0 });
    const size = 2 ** 26;
    const opening = connectNbd(`nbd://127.0.0.1:${server.port}/disk`, { env: realEnv() });
    await server.accept({ size });
    const connection = await opening;
    const data = new Uint8Array(2 ** 21);
    for (let index = 0; index < data.length; index += 4096) data[index] = index / 4096;
    const write = connection.write(0, data);
    const request = await server.request();
    expect(Buffer.compare(request.payload, data)).toBe(0);
    server.reply(request);
    await write;
    const buffer = new Uint8Array(data.length);
    const read = connection.read(0, buffer);
    server.reply(await server.request(), 0, data);
    await read;
    expect(Buffer.compare(buffer, data)).toBe(0);
    const closing = connection.close();
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    (await server.connection).end();
    await closing;
  });

  it("a connected descriptor that a process inherited is taken over", async () => {
    using workshop = new Workshop();
    const path = workshop.file("socket");
    await using server = await SocketServer.listen({ path });
    const socket = createConnection(path);
    await server.connection;
    const child = spawn(
      process.execPath,
      ["--conditions=@blocklayer/source", `${import.meta.dirname}/descriptor-child.ts`],
      { stdio: ["ignore", "pipe", "inherit", socket] },
    );
    socket.destroy();
    await server.accept({ size: 12_800 });
    server.reply(await server.request(), 0, Uint8Array.of(1, 2, 3, 4));
    expect((await server.request()).type).toBe(NbdCommand.DISC);
    (await server.connection).end();
    let text = "";
    for await (const chunk of child.stdout ?? []) text += String(chunk);
    expect(text).toBe("12800 1,2,3,4");
  });

  it("a descriptor that is no socket is refused", async () => {
    const descriptor = openSync(import.meta.filename, "r");
    const message = `File descriptor '${descriptor}' is not a socket`;
    await rejection(connectServer({ type: "fd", descriptor }), "EINVAL", message);
    closeSync(descriptor);
  });

  it.each([
    [
      { type: "unix", path: "/nowhere/nbd" } as const,
      "ENOENT",
      "Failed to connect to '/nowhere/nbd': No such file or directory",
    ],
    [
      { type: "fd", descriptor: 99_999 } as const,
      "EINVAL",
      "File descriptor '99999' is not a socket",
    ],
  ])("%j can not be connected to: %s", async (address, code, message) => {
    await rejection(connectServer(address), code, message);
  });

  it("a port without a server refuses", async () => {
    const server = await SocketServer.listen({ host: "127.0.0.1", port: 0 });
    const { port } = server;
    const probe = connectServer({
      type: "inet",
      host: "127.0.0.1",
      port,
      family: 4,
      keepAlive: true,
    });
    (await probe).destroy();
    await server[Symbol.asyncDispose]();
    await rejection(
      connectNbd(`nbd://127.0.0.1:${port}`),
      "ECONNREFUSED",
      `Failed to connect to '127.0.0.1:${port}': Connection refused`,
    );
  });

  it("a signal stops connecting", async () => {
    const reason = new Error("not wanted");
    const signal = AbortSignal.abort(reason);
    await expect(connectServer({ type: "unix", path: "/x" }, { signal })).rejects.toBe(reason);
    const controller = new AbortController();
    const work = connectServer(
      { type: "inet", host: "127.0.0.1", port: 9, family: 4, keepAlive: false },
      { signal: controller.signal },
    );
    controller.abort(reason);
    await expect(work).rejects.toBe(reason);
  });

  it("a server that resets the connection is told of", async () => {
    using workshop = new Workshop();
    const path = workshop.file("socket");
    await using server = await SocketServer.listen({ path });
    const opening = connectNbd({ type: "unix", path });
    await server.accept();
    const connection = await opening;
    const work = connection.read(0, new Uint8Array(1));
    await server.read(NbdSize.REQUEST);
    (await server.connection).destroy();
    await rejection(work, "ECONNRESET", "server closed the connection");
  });

  it.each(["http://host", "disk.raw"])("%s is no URI", async (uri) => {
    const error = await rejection(connectNbd(uri), "EINVAL", "neither nbd:// nor nbd+unix://");
    expect(error.context).toMatchObject({ value: uri });
    await rejection(listExports(uri), "EINVAL");
    await rejection(connectNbd("nbds://host"), "ENOTSUP");
  });

  it("a greeting that comes before anybody listens is not lost", async () => {
    using workshop = new Workshop();
    const path = workshop.file("socket");
    await using server = await SocketServer.listen({ path });
    server.send(GREETING);
    const stream = await connectServer({ type: "unix", path });
    await new Promise((resolve) => setImmediate(resolve));
    const opening = NbdConnection.open(stream);
    await server.read(NbdSize.CLIENT_FLAGS);
    const { option } = await server.option();
    server.send(...goReplies({}, option));
    expect((await opening).info.size).toBe(65536);
  });
});
