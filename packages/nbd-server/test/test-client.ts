import { type ManualEnv, manualEnv } from "@blocklayer/env";
import {
  decodeExportNameReply,
  decodeGreeting,
  decodeSimpleReply,
  encodeClientFlags,
  encodeInfoRequest,
  encodeOption,
  encodeRequest,
  NbdCommand,
  NbdOption,
} from "@blocklayer/nbd-protocol";
import { type ExportOptions, NbdServer, type NbdServerOptions } from "@blocklayer/nbd-server";
import { readU32 } from "@blocklayer/offsets";
import { expect } from "vitest";
import { Loopback } from "./loopback.ts";
import { TestDisk } from "./test-disk.ts";

/** One reply to an option. */
export interface OptionReplyAt {
  readonly option: number;
  readonly type: number;
  readonly payload: Uint8Array;
}

export interface RequestSketch {
  readonly flags?: number;
  readonly offset?: number;
  readonly length?: number;
  readonly payload?: Uint8Array;
}

/** The client's side of the protocol, for tests that read every byte. */
export class TestClient {
  readonly wire: Loopback;
  readonly env: ManualEnv;
  #cookie: number = 0;

  constructor(world: World, wire: Loopback = new Loopback()) {
    this.wire = wire;
    this.env = world.env;
    world.server.accept(wire.stream);
  }

  /** Lets everything happen that can happen without time passing. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 4; turn += 1) await this.env.clock.advance(0);
  }

  greet(flags: number = 3): void {
    expect(decodeGreeting(this.wire.read(18))).toEqual({ style: "newstyle", flags: 3 });
    this.wire.send(encodeClientFlags(flags));
  }

  option(option: number, payload?: Uint8Array): OptionReplyAt[] {
    this.wire.send(encodeOption(option, payload));
    return this.optionReplies();
  }

  optionReplies(): OptionReplyAt[] {
    const bytes = this.wire.read();
    const replies: OptionReplyAt[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = readU32(bytes, at + 16);
      replies.push({
        option: readU32(bytes, at + 8),
        type: readU32(bytes, at + 12),
        payload: bytes.slice(at + 20, at + 20 + length),
      });
      at += 20 + length;
    }
    return replies;
  }

  /** Chooses an export and begins to send requests. */
  go(exportName: string = "disk"): OptionReplyAt[] {
    this.greet();
    return this.option(NbdOption.GO, encodeInfoRequest({ exportName, infos: [] }));
  }

  exportName(exportName: string = "disk"): { size: number; transmissionFlags: number } {
    this.greet();
    this.wire.send(encodeOption(NbdOption.EXPORT_NAME, new TextEncoder().encode(exportName)));
    return decodeExportNameReply(this.wire.read());
  }

  /** Returns a request; its cookie counts from 1. */
  request(type: number, sketch: RequestSketch = {}): Uint8Array {
    this.#cookie += 1;
    const payload = sketch.payload ?? new Uint8Array(0);
    return encodeRequest(
      {
        type,
        flags: sketch.flags ?? 0,
        cookieHigh: 0xabcd,
        cookieLow: this.#cookie,
        offset: sketch.offset ?? 0,
        length: sketch.length ?? payload.length,
      },
      false,
      payload,
    );
  }

  send(type: number, sketch?: RequestSketch): number {
    this.wire.send(this.request(type, sketch));
    return this.#cookie;
  }

  /** Reads one reply. @param dataLength - bytes that follow if it is a success */
  reply(dataLength: number = 0): { error: number; cookie: number; data: Uint8Array } {
    const { error, cookieHigh, cookieLow } = decodeSimpleReply(this.wire.read(16));
    expect(cookieHigh).toBe(0xabcd);
    const data = error === 0 ? this.wire.read(dataLength) : new Uint8Array(0);
    expect(data.length).toBe(error === 0 ? dataLength : 0);
    return { error, cookie: cookieLow, data };
  }

  /** The cookie of the next reply. */
  peekCookie(): number {
    return decodeSimpleReply(this.wire.peek(16)).cookieLow;
  }

  read(offset: number, length: number): number {
    return this.send(NbdCommand.READ, { offset, length });
  }
}

/** A server with one export over a test disk. */
export interface World {
  readonly env: ManualEnv;
  readonly server: NbdServer;
  readonly disk: TestDisk;
}

export async function makeWorld(
  options: Partial<NbdServerOptions> = {},
  exported: Partial<ExportOptions> = {},
  disk: TestDisk = new TestDisk(),
): Promise<World> {
  const env = manualEnv();
  const server = new NbdServer({ env, ...options });
  await server.addExport({ name: "disk", backend: disk, writable: true, ...exported });
  return { env, server, disk };
}

/** Checks that nothing is left of anybody: no connection, no timer, no memory. */
export async function expectNothingLeft({ env, server }: World): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) await env.clock.advance(0);
  expect(server.connections).toEqual([]);
  expect(server.heldBytes).toBe(0);
  expect(env.clock.sleeping).toBe(0);
  for (const each of server.exports) expect(each.connections).toEqual([]);
}
