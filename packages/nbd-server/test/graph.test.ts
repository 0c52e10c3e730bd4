import { type BlockNode, Graph } from "@blocklayer/block-graph";
import { manualEnv } from "@blocklayer/env";
import { memory } from "@blocklayer/memory";
import { NbdCommand, NbdErrno } from "@blocklayer/nbd-protocol";
import { NbdServer } from "@blocklayer/nbd-server";
import { expect, it } from "vitest";
import { TestClient, type World } from "./test-client.ts";
import { TestDisk } from "./test-disk.ts";

const { READ, WRITE, FLUSH } = NbdCommand;
const SIZE = 1024 * 1024 + 100;

async function openGraph(): Promise<{ graph: Graph; node: BlockNode; world: World }> {
  const env = manualEnv();
  const graph = new Graph({ env, drivers: [memory] });
  const node = await graph.open({ driver: "memory", "node-name": "disk", size: SIZE });
  // Of the world only clock and server are used here.
  return { graph, node, world: { env, server: new NbdServer({ env }), disk: new TestDisk(1) } };
}

it("an export is named for its node and has its exact size", async () => {
  const { graph, node, world } = await openGraph();
  await world.server.addExport({ node, writable: true });
  const client = new TestClient(world);
  expect(client.exportName("disk").size).toBe(SIZE);
  client.send(WRITE, { offset: SIZE - 100, payload: new Uint8Array(100).fill(7) });
  client.read(SIZE - 101, 101);
  expect(client.reply().error).toBe(0);
  expect(client.reply(101).data).toEqual(new Uint8Array(101).fill(7).fill(0, 0, 1));
  client.wire.destroy();
  await world.server.stop();
  await graph.close();
});

it("what one connection wrote another sees, and its flush covers it", async () => {
  const { graph, node, world } = await openGraph();
  await world.server.addExport({ node, writable: true });
  const [one, two] = [new TestClient(world), new TestClient(world)];
  one.go();
  two.go();
  one.send(WRITE, { offset: 5, payload: new Uint8Array([1, 2, 3]) });
  expect(one.reply().error).toBe(0);
  two.read(5, 3);
  expect(two.reply(3).data).toEqual(new Uint8Array([1, 2, 3]));
  two.send(FLUSH);
  await two.settle();
  expect(two.reply().error).toBe(0);
  one.wire.destroy();
  two.wire.destroy();
  await world.server.stop();
  await graph.close();
});

it("nobody may resize the disk of an export", async () => {
  const { graph, node, world } = await openGraph();
  await world.server.addExport({ node });
  await expect(graph.createBackend({ node, perm: ["resize"] })).rejects.toMatchObject({
    code: "EPERM",
  });
  await world.server.removeExport("disk");
  const backend = await graph.createBackend({ node, perm: ["resize"] });
  await expect(world.server.addExport({ node })).rejects.toMatchObject({ code: "EPERM" });
  await backend.close();
  await world.server.stop();
  await graph.close();
});

it("requests wait while the disk is drained, up to the limit, and go on afterwards", async () => {
  const { graph, node, world } = await openGraph();
  await world.server.addExport({ node, writable: true });
  const client = new TestClient(world);
  client.go();
  const drained = await node.drain();
  for (let index = 0; index < 300; index += 1) client.read(index, 16);
  await client.settle();
  expect(client.wire.unread).toBe(0);
  expect(client.wire.isPaused).toBe(true);
  expect(node.io.inFlight).toBe(0);
  drained.end();
  await client.settle();
  expect(client.wire.unread).toBe(300 * 32);
  client.wire.destroy();
  await world.server.stop();
  await graph.close();
});

it.each([["removal"], ["stop"]])("%s ends requests that wait for a drained disk", async (how) => {
  const { graph, node, world } = await openGraph();
  await world.server.addExport({ node });
  const client = new TestClient(world);
  client.go();
  const drained = await node.drain();
  client.send(READ, { length: 16 });
  await client.settle();
  const ended =
    how === "removal" ? world.server.removeExport("disk", "hard") : world.server.stop(100);
  await world.env.clock.advance(100);
  await ended;
  expect(client.wire.isClosed).toBe(true);
  expect(world.server.connections).toEqual([]);
  drained.end();
  await world.server.stop();
  await graph.close();
});

it("an error of the disk reaches the client and changes nothing else", async () => {
  const env = manualEnv();
  const graph = new Graph({ env, drivers: [memory] });
  const fail = [{ operation: "pread" as const, offset: 4096, length: 1, code: "EIO" }];
  const node = await graph.open({ driver: "memory", "node-name": "disk", size: 65536, fail });
  const world = { env, server: new NbdServer({ env }), disk: new TestDisk(1) };
  await world.server.addExport({ node });
  const client = new TestClient(world);
  client.go();
  client.read(0, 8192);
  client.read(0, 512);
  await client.settle();
  const errors = new Map<number, number>();
  while (client.wire.unread > 0) {
    const { cookie, error } = client.reply(client.peekCookie() === 1 ? 8192 : 512);
    errors.set(cookie, error);
  }
  expect([errors.get(1), errors.get(2)]).toEqual([NbdErrno.EIO, NbdErrno.SUCCESS]);
  client.wire.destroy();
  await world.server.stop();
  await graph.close();
});
