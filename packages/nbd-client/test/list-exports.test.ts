import { manualEnv } from "@blocklayer/env";
import { listExportsOver } from "@blocklayer/nbd-client";
import {
  decodeInfoRequest,
  encodeGreeting,
  encodeOptionError,
  encodeOptionReply,
  encodeServerEntry,
  NbdOption,
  NbdOptionReply,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";
import { FakeServer, goReplies } from "./fake-server.ts";

const { LIST, INFO, ABORT } = NbdOption;
const ENTRIES = [
  { exportName: "", description: "" },
  { exportName: "disk", description: "the big one" },
  { exportName: "gone", description: "" },
];

function sendList(server: FakeServer): void {
  for (const entry of ENTRIES) {
    server.send(encodeOptionReply(LIST, NbdOptionReply.SERVER, encodeServerEntry(entry)));
  }
  server.send(encodeOptionReply(LIST, NbdOptionReply.ACK));
}

describe("listExportsOver", () => {
  it("lists names and descriptions, and says goodbye", async () => {
    const server = new FakeServer({ chunkSize: 5 });
    const env = manualEnv();
    const listing = listExportsOver(server.client, { env });
    await server.greet();
    expect((await server.option()).option).toBe(LIST);
    sendList(server);
    expect((await server.option()).option).toBe(ABORT);
    server.send(encodeOptionReply(ABORT, NbdOptionReply.ACK));
    server.end();
    expect(await listing).toEqual(ENTRIES.map((entry) => ({ ...entry, info: undefined })));
    expect([server.isDestroyed, env.clock.sleeping]).toEqual([true, 0]);
  });

  it("asks for the properties of each where it is told to", async () => {
    const server = new FakeServer();
    const listing = listExportsOver(server.client, { env: manualEnv(), withInfo: true });
    await server.greet();
    await server.option();
    sendList(server);
    for (const { exportName } of ENTRIES) {
      const { option, payload } = await server.option();
      expect([option, decodeInfoRequest(payload).exportName]).toEqual([INFO, exportName]);
      if (exportName === "gone") {
        server.send(encodeOptionError(INFO, NbdOptionReply.ERR_UNKNOWN, "gone"));
      } else if (exportName === "") {
        server.send(encodeOptionError(INFO, NbdOptionReply.ERR_UNSUP, ""));
      } else {
        server.send(...goReplies({ size: 777 }, INFO));
      }
    }
    await server.option();
    // A server may close without acknowledging.
    server.cut();
    const sizes = (await listing).map(({ info }) => info?.size);
    expect(sizes).toEqual([undefined, 777, undefined]);
  });

  it("rejects with what the server answers", async () => {
    const server = new FakeServer();
    const listing = listExportsOver(server.client, { env: manualEnv() });
    await server.greet();
    await server.option();
    server.send(encodeOptionError(LIST, NbdOptionReply.ERR_POLICY, ""));
    await server.option();
    server.end();
    const error = await rejection(listing, "EPERM", "Denied by server (LIST)");
    expect(error.hint).toBeUndefined();
  });

  it("rejects with ENOTSUP when there are no options", async () => {
    const server = new FakeServer();
    const listing = listExportsOver(() => Promise.resolve(server.client), { env: manualEnv() });
    await server.greet(encodeGreeting(0));
    await rejection(listing, "ENOTSUP", "lists no exports");
  });

  it("rejects with EPROTO a list that would fill the memory", async () => {
    const server = new FakeServer();
    const listing = listExportsOver(server.client, { env: manualEnv() });
    await server.greet();
    await server.option();
    const entry = encodeServerEntry({ exportName: "", description: "x".repeat(4096) });
    const reply = encodeOptionReply(LIST, NbdOptionReply.SERVER, entry);
    for (let count = 0; count < 1024; count += 1) server.send(reply);
    await rejection(listing, "EPROTO", "list of exports is longer than 4194304 bytes");
  });

  it("rejects with EPROTO when the list is none", async () => {
    const server = new FakeServer();
    const listing = listExportsOver(server.client, { env: manualEnv() });
    await server.greet();
    await server.option();
    server.send(encodeOptionReply(LIST, NbdOptionReply.INFO));
    await rejection(listing, "EPROTO", "reply of type 3 does not answer option 3");
  });
});
