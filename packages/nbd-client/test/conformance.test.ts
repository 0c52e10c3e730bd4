import { ReferenceDisk, TestHost, testDriver } from "@blocklayer/driver-tests";
import { nbdDefinition } from "@blocklayer/nbd-client";
import { NbdTransmissionFlag } from "@blocklayer/nbd-protocol";
import { describe, it } from "vitest";
import { ALL_FLAGS, type FakeExport, FakeServer, serve } from "./fake-server.ts";

const SIZE = 64 * 1024;
const { HAS_FLAGS, READ_ONLY, SEND_FLUSH } = NbdTransmissionFlag;

function open(facts: FakeExport, chunkSize?: number, autoReadOnly = false): Promise<TestHost> {
  const disk = new ReferenceDisk({ size: SIZE });
  const definition = nbdDefinition({
    connect: () => {
      const server = new FakeServer(chunkSize === undefined ? {} : { chunkSize });
      void serve(server, disk, facts);
      return Promise.resolve(server.client);
    },
  });
  return TestHost.open(definition, { options: { path: "/nbd" }, autoReadOnly });
}

const capabilities = { truncate: false } as const;

testDriver({
  name: "nbd to a server that can do everything",
  describe,
  it,
  open: () => open({}),
  capabilities,
});

testDriver({
  name: "nbd to a server with blocks of 4 KiB and small transfers, in chunks of 700 bytes",
  describe,
  it,
  open: () =>
    open({ flags: ALL_FLAGS, blockSize: { minimum: 4096, preferred: 4096, maximum: 16384 } }, 700),
  capabilities,
});

testDriver({
  name: "nbd to a server that can only read, write and flush",
  describe,
  it,
  open: () => open({ flags: HAS_FLAGS | SEND_FLUSH }),
  capabilities: { ...capabilities, writeZeroes: false, discard: false },
});

testDriver({
  name: "nbd to a read-only server, with auto-read-only",
  describe,
  it,
  open: () => open({ flags: ALL_FLAGS | READ_ONLY }, undefined, true),
  capabilities: { ...capabilities, write: false },
});
