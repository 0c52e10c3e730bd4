import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ByteReceiver } from "@blocklayer/nbd-server";
import { SocketStream } from "@blocklayer/nbd-server/node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

interface SocketWithHandle {
  readonly _handle: { useUserBuffer?: unknown };
}

let directory = "";
let server: Server;
let path = "";
const accepted: ((socket: Socket) => void)[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "nbd-stream-"));
  path = join(directory, "socket");
  server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
    accepted.shift()?.(socket),
  );
  await new Promise<void>((resolve) => server.listen(path, resolve));
});

afterEach(async () => {
  await new Promise<void>((resolve) => server.close(() => resolve()));
  await rm(directory, { recursive: true, force: true });
});

/** Collects what arrives, and resolves waits for it. */
class Receiver implements ByteReceiver {
  readonly memory: Uint8Array = new Uint8Array(1000);
  readonly events: string[] = [];
  received: number = 0;
  lent: number = 0;
  readonly #waiting: { readonly event: string; readonly resolve: () => void }[] = [];

  buffer(): Uint8Array {
    this.lent += 1;
    return this.memory;
  }

  data(chunk: Uint8Array): void {
    this.received += chunk.length;
    this.#note("data");
  }

  drained(): void {
    this.#note("drained");
  }

  ended(): void {
    this.#note("ended");
  }

  closed(): void {
    this.#note("closed");
  }

  next(event: string): Promise<void> {
    if (this.events.includes(event)) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ event, resolve }));
  }

  #note(event: string): void {
    this.events.push(event);
    for (const each of this.#waiting.filter((one) => one.event === event)) each.resolve();
  }
}

/** A client and the stream of the server's side. @param isPlain - Node's own buffers are used */
async function pair(isPlain: boolean): Promise<{ client: Socket; stream: SocketStream }> {
  const arrived = new Promise<Socket>((resolve) => accepted.push(resolve));
  const client = connect({ path });
  const socket = await arrived;
  if (isPlain) {
    const { _handle: handle } = socket as unknown as SocketWithHandle;
    handle.useUserBuffer = undefined;
  }
  return { client, stream: new SocketStream(socket, "test") };
}

describe.each([
  ["memory of the receiver", false],
  ["memory of Node", true],
])("a socket that reads into %s", (_, isPlain) => {
  it("delivers bytes, the end and the close", async () => {
    const { client, stream } = await pair(isPlain);
    const receiver = new Receiver();
    stream.start(receiver);
    client.write(new Uint8Array(5000));
    while (receiver.received < 5000) await new Promise((resolve) => setImmediate(resolve));
    expect(receiver.lent > 0).toBe(!isPlain);
    client.end();
    await receiver.next("ended");
    stream.end();
    await receiver.next("closed");
    expect(receiver.events.filter((event) => event !== "data")).toEqual(["ended", "closed"]);
  });

  it("says whether a write was taken, and when the rest is", async () => {
    const { client, stream } = await pair(isPlain);
    const receiver = new Receiver();
    stream.start(receiver);
    expect(stream.write([new Uint8Array(100), new Uint8Array(28)])).toBe(true);
    expect(stream.write([])).toBe(true);
    expect(stream.write([new Uint8Array(4_000_000), new Uint8Array(1)])).toBe(false);
    let count = 0;
    client.on("data", (bytes) => {
      count += bytes.length;
    });
    await receiver.next("drained");
    expect(receiver.events).toEqual(["drained"]);
    stream.end();
    await new Promise<void>((resolve) => client.once("end", resolve));
    expect(count).toBe(4_000_129);
    client.destroy();
    await receiver.next("closed");
  });

  it("delivers nothing while it is paused", async () => {
    const { client, stream } = await pair(isPlain);
    const receiver = new Receiver();
    stream.start(receiver);
    stream.pause();
    await new Promise<void>((resolve) => client.write("hello", () => resolve()));
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(receiver.received).toBe(0);
    stream.resume();
    await receiver.next("data");
    stream.destroy();
    await receiver.next("closed");
    client.destroy();
  });

  it("survives a client that vanishes in the middle of a write", async () => {
    const { client, stream } = await pair(isPlain);
    const receiver = new Receiver();
    stream.start(receiver);
    expect(stream.write([new Uint8Array(8_000_000)])).toBe(false);
    client.destroy();
    await receiver.next("closed");
    expect(receiver.events).toContain("closed");
    expect(receiver.events).not.toContain("drained");
    expect(stream.write([new Uint8Array(1)])).toBe(false);
  });

  it("calls back later, once for each call", async () => {
    const { client, stream } = await pair(isPlain);
    let count = 0;
    await new Promise<void>((resolve) => {
      stream.soon(() => {
        count += 1;
        resolve();
      });
      expect(count).toBe(0);
    });
    expect(count).toBe(1);
    stream.destroy();
    client.destroy();
  });
});
