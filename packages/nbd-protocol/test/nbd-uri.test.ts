import { formatNbdUri, type NbdAddress, parseNbdUri } from "@blocklayer/nbd-protocol";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { failure } from "./bytes.ts";

const base: NbdAddress = {
  transport: "tcp",
  host: "",
  port: 10809,
  socket: "",
  exportName: "",
  tls: false,
  user: "",
  query: {},
};
const unix: NbdAddress = { ...base, transport: "unix", port: 0, socket: "/run/nbd" };

describe("parsing", () => {
  it.each<[string, NbdAddress]>([
    ["nbd://example.com", { ...base, host: "example.com" }],
    ["nbd://example.com/", { ...base, host: "example.com" }],
    ["nbd://example.com/disk", { ...base, host: "example.com", exportName: "disk" }],
    ["nbd://example.com//disk", { ...base, host: "example.com", exportName: "/disk" }],
    ["nbd://example.com/a/b", { ...base, host: "example.com", exportName: "a/b" }],
    [
      "nbd://example.com/hello%20world",
      { ...base, host: "example.com", exportName: "hello world" },
    ],
    ["nbd://example.com/a%3Fb%23c", { ...base, host: "example.com", exportName: "a?b#c" }],
    ["nbd://h:1234/x", { ...base, host: "h", port: 1234, exportName: "x" }],
    ["nbd://h:/x", { ...base, host: "h", exportName: "x" }],
    ["nbd+tcp://h", { ...base, host: "h" }],
    ["NBD://h", { ...base, host: "h" }],
    ["nbds://h", { ...base, host: "h", tls: true }],
    ["nbds+tcp://h", { ...base, host: "h", tls: true }],
    ["nbds://alice@h", { ...base, host: "h", tls: true, user: "alice" }],
    ["nbds://a%40b@h", { ...base, host: "h", tls: true, user: "a@b" }],
    ["nbd://[::1]:10810/x", { ...base, host: "::1", port: 10810, exportName: "x" }],
    ["nbd://[fe80::1%25eth0]", { ...base, host: "fe80::1%eth0" }],
    ["nbd+unix:///?socket=/run/nbd", unix],
    ["nbd+unix://?socket=/run/nbd", unix],
    ["nbd+unix:///disk?socket=%2Frun%2Fnbd", { ...unix, exportName: "disk" }],
    ["nbd+unix:////disk?socket=/run/nbd", { ...unix, exportName: "/disk" }],
    ["nbd+unix:///?socket=%00/abstract", { ...unix, socket: "\0/abstract" }],
    ["nbds+unix://bob@/?socket=/run/nbd", { ...unix, tls: true, user: "bob" }],
    [
      "nbd+vsock://2:1024/x",
      { ...base, transport: "vsock", host: "2", port: 1024, exportName: "x" },
    ],
    ["nbd+vsock://1:100000", { ...base, transport: "vsock", host: "1", port: 100000 }],
    [
      "nbds://h/?tls-verify-peer=0&tls-hostname=a.b",
      { ...base, host: "h", tls: true, query: { "tls-verify-peer": "0", "tls-hostname": "a.b" } },
    ],
    ["nbd://h?x", { ...base, host: "h", query: { x: "" } }],
    ["nbd:localhost:10809", { ...base, host: "localhost" }],
    ["nbd:localhost:1:exportname=a:b", { ...base, host: "localhost", port: 1, exportName: "a:b" }],
    ["nbd:[::1]:1", { ...base, host: "::1", port: 1 }],
    ["nbd:unix:/run/nbd", unix],
    ["nbd:unix:/run/nbd:exportname=disk", { ...unix, exportName: "disk" }],
  ])("understands %s", (uri, expected) => {
    expect(parseNbdUri(uri)).toEqual(expected);
  });

  it.each([
    ["http://h", "scheme"],
    ["", "scheme"],
    ["nbd:", "scheme"],
    ["nbd:localhost", "scheme"],
    ["nbd+udp://h", "scheme"],
    ["nbd://", "host"],
    ["nbd:///disk", "host"],
    ["nbd://a:b:c", "host"],
    ["nbd://[::1", "host"],
    ["nbd://h:x", "host"],
    ["nbd://%zz", "host"],
    ["nbd://h:0", "port"],
    ["nbd://h:65536", "port"],
    ["nbd:h:70000", "port"],
    ["nbd+vsock://h:1", "host"],
    ["nbd://h?socket=/x", "socket"],
    ["nbd+unix:///", "socket"],
    ["nbd+unix:///?socket=", "socket"],
    ["nbd+unix://h/?socket=/x", "host"],
    ["nbd://a:b@h", "user"],
    ["nbd://h/#x", "fragment"],
    ["nbd://h/%", "export name"],
    ["nbd://h/%ff", "export name"],
    ["nbd://h/%00", "export name"],
    [`nbd://h/${"a".repeat(4097)}`, "export name"],
    ["nbd://h?a=1&a=2", "query"],
    ["nbd://h?%=1", "query"],
  ])("refuses %s", (uri, field) => {
    expect(failure(() => parseNbdUri(uri))).toMatchObject({
      code: "EINVAL",
      operation: "nbd-uri",
      field,
      value: uri,
      message: expect.stringMatching(/^invalid NBD URI: /),
    });
  });

  it("takes export names up to 4096 bytes", () => {
    expect(parseNbdUri(`nbd://h/${"a".repeat(4096)}`).exportName.length).toBe(4096);
  });
});

describe("formatting", () => {
  it.each<[string, Partial<NbdAddress>]>([
    ["nbd://h/", { host: "h" }],
    [
      "nbds://alice@h:1/a%2Fb%20c",
      { host: "h", port: 1, tls: true, user: "alice", exportName: "a/b c" },
    ],
    ["nbd://[fe80::1%25eth0]/", { host: "fe80::1%eth0" }],
    ["nbd+unix:///?socket=%2Frun%2Fnbd", unix],
    ["nbd+vsock://2:5/", { transport: "vsock", host: "2", port: 5 }],
    ["nbd://h/?x=%26", { host: "h", query: { x: "&" } }],
  ])("makes %s", (uri, part) => {
    expect(formatNbdUri({ ...base, ...part })).toBe(uri);
  });

  it.each<[string, Partial<NbdAddress>]>([
    ["host", { host: "" }],
    ["socket", { transport: "unix" }],
    ["text", { host: "h", exportName: "\udc00" }],
  ])("refuses an address without a good %s", (field, part) => {
    expect(failure(() => formatNbdUri({ ...base, ...part }))).toMatchObject({
      code: "EINVAL",
      field,
    });
  });
});

const text = fc
  .string({ unit: "grapheme", maxLength: 12 })
  .filter((value) => !value.includes("\0"));
const key = text.filter((value) => value !== "" && value !== "socket");
const place = fc.oneof(
  fc.record({
    transport: fc.constant("tcp" as const),
    host: fc.constantFrom("h", "10.0.0.1", "::1", "a.example"),
    port: fc.integer({ min: 1, max: 65535 }),
    socket: fc.constant(""),
  }),
  fc.record({
    transport: fc.constant("unix" as const),
    host: fc.constant(""),
    port: fc.constant(0),
    socket: text.filter((value) => value !== ""),
  }),
);
const address = fc
  .tuple(place, text, fc.boolean(), text, fc.dictionary(key, text, { maxKeys: 3 }))
  .map(([where, exportName, tls, user, query]) => ({ ...where, exportName, tls, user, query }));

it("reads back what it formats", () => {
  fc.assert(
    fc.property(address, (value) => {
      expect(parseNbdUri(formatNbdUri(value))).toEqual({ ...value, query: { ...value.query } });
    }),
    { numRuns: 200 },
  );
});

it("answers any text with an address or a BlockError", () => {
  const tail = fc.string({ unit: fc.constantFrom(..."nbds+uix:/?#[]@%0a=&h") });
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        tail.map((value) => `nbd${value}`),
      ),
      (uri) => {
        try {
          expect(parseNbdUri(uri).exportName).toBeTypeOf("string");
        } catch (error) {
          expect(error).toMatchObject({ name: "BlockError", code: "EINVAL" });
        }
      },
    ),
    { numRuns: 200 },
  );
});
