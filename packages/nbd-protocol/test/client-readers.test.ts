import {
  encodeExportNameReply,
  encodeGreeting,
  encodeOptionError,
  encodeOptionReply,
  encodeServerEntry,
  GreetingReader,
  NbdOption,
  NbdOptionReply,
  OptionReplyReader,
} from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { bytes, failure, join, readAll, volatileSplit } from "./bytes.ts";

const oldstyle = new Uint8Array(152);
oldstyle.set(bytes('"NBDMAGIC" 0000420281861253 0000000000010000 0000 0003'));

describe("the greeting", () => {
  it.each([
    ["newstyle", encodeGreeting(3), { style: "newstyle", flags: 3 }],
    ["oldstyle", oldstyle, { style: "oldstyle", size: 65536, transmissionFlags: 3 }],
  ])("is read wherever it is cut, and the rest kept: %s", (_name, wire, greeting) => {
    for (let cut = 0; cut <= wire.length; cut += 1) {
      const reader = new GreetingReader();
      const chunks = volatileSplit(join(wire, bytes("abcd")), [cut]);
      const seen: unknown[] = [];
      for (const chunk of chunks) {
        reader.push(chunk);
        const value = reader.next();
        if (value === undefined) continue;
        seen.push(value);
        expect(chunk.subarray(chunk.length - reader.takeRest().length)).toEqual(
          cut === wire.length ? bytes("") : bytes("abcd"),
        );
        break;
      }
      expect(seen).toEqual([greeting]);
    }
  });

  it("closes when it is not one", () => {
    const reader = new GreetingReader();
    reader.push(bytes('"SSH-2.0-OpenSSH_9"'));
    const expected = { code: "EPROTO", field: "greeting magic", limit: "4e42444d41474943" };
    expect(failure(() => reader.next())).toMatchObject(expected);
    expect(failure(() => reader.next())).toMatchObject(expected);
  });
});

describe("option replies", () => {
  const entry = encodeServerEntry({ exportName: "vda", description: "" });
  const stream = join(
    encodeOptionReply(NbdOption.LIST, NbdOptionReply.SERVER, entry),
    encodeOptionReply(NbdOption.LIST, NbdOptionReply.ACK),
    encodeOptionError(NbdOption.GO, NbdOptionReply.ERR_UNKNOWN, "no"),
  );

  it("are read wherever the stream is cut", () => {
    for (let cut = 0; cut <= stream.length; cut += 1) {
      const all = readAll(new OptionReplyReader(), volatileSplit(stream, [cut]), (reply) => reply);
      expect(all).toEqual([
        { option: 3, type: NbdOptionReply.SERVER, payload: entry },
        { option: 3, type: NbdOptionReply.ACK, payload: bytes("") },
        { option: 7, type: NbdOptionReply.ERR_UNKNOWN, payload: bytes('"no"') },
      ]);
    }
  });

  it.each([true, false])("to EXPORT_NAME have no header; without zeroes: %s", (noZeroes) => {
    const wire = join(
      encodeExportNameReply({ size: 512, transmissionFlags: 1 }, noZeroes),
      bytes("67446698"),
    );
    const reader = new OptionReplyReader();
    reader.push(wire.slice(0, 9));
    expect(reader.nextExportName(noZeroes)).toBeUndefined();
    reader.push(wire.slice(9));
    expect(reader.nextExportName(noZeroes)).toEqual({ size: 512, transmissionFlags: 1 });
    expect(reader.takeRest()).toEqual(bytes("67446698"));
  });

  it("have up to 64 KiB of data", () => {
    const run = (length: number): number | undefined => {
      const reader = new OptionReplyReader();
      reader.push(encodeOptionReply(3, NbdOptionReply.SERVER, new Uint8Array(length)));
      return reader.next()?.payload.length;
    };
    expect([run(65535), run(65536)]).toEqual([65535, 65536]);
    expect(failure(() => run(65537))).toMatchObject({
      code: "EPROTO",
      field: "option reply length",
      value: 65537,
      limit: 65536,
    });
  });

  it("are counted for each option", () => {
    const run = (count: number): number => {
      const chunks = Array.from({ length: count }, () =>
        encodeOptionReply(3, NbdOptionReply.SERVER, entry),
      );
      const ack = encodeOptionReply(3, NbdOptionReply.ACK);
      const reader = new OptionReplyReader({ maxReplies: 10 });
      return readAll(reader, [ack, ...chunks, ack, ...chunks], () => 0).length;
    };
    expect([run(8), run(9)]).toEqual([18, 20]);
    expect(failure(() => run(11))).toMatchObject({
      code: "EPROTO",
      field: "option reply count",
      value: 11,
      limit: 10,
    });
  });

  it("close after a wrong magic number", () => {
    const reader = new OptionReplyReader();
    reader.push(new Uint8Array(20));
    const expected = { code: "EPROTO", field: "option reply magic", limit: "0003e889045565a9" };
    expect(failure(() => reader.next())).toMatchObject(expected);
    expect(failure(() => reader.nextExportName(true))).toMatchObject(expected);
  });
});
