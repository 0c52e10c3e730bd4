import { TestHost } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import {
  nbdDefinition,
  nbdOptionsSchema,
  parseNbdFilename,
  serverAddress,
} from "@blocklayer/nbd-client";
import { describeProblems } from "@blocklayer/schema";
import { describe, expect, it } from "vitest";
import { rejection } from "./expectations.ts";

const inet = { type: "inet", family: 0, keepAlive: true };

describe("options", () => {
  it.each([
    ["server.type=inet,server.host=a,server.port=1", { ...inet, host: "a", port: 1 }],
    [
      "server.type=inet,server.host=a,server.port=1,server.ipv4=on",
      { ...inet, host: "a", port: 1, family: 4 },
    ],
    [
      "server.type=inet,server.host=a,server.port=1,server.ipv4=off",
      { ...inet, host: "a", port: 1, family: 6 },
    ],
    [
      "server.type=inet,server.host=a,server.port=1,server.ipv6=on",
      { ...inet, host: "a", port: 1, family: 6 },
    ],
    [
      "server.type=inet,server.host=a,server.port=1,server.ipv6=off",
      { ...inet, host: "a", port: 1, family: 4 },
    ],
    [
      "server.type=inet,server.host=a,server.port=1,server.ipv4=on,server.ipv6=on",
      { ...inet, host: "a", port: 1 },
    ],
    [
      "server.type=inet,server.host=a,server.port=1,server.keep-alive=off",
      { ...inet, host: "a", port: 1, keepAlive: false },
    ],
    ["server.type=unix,server.path=/run/nbd", { type: "unix", path: "/run/nbd" }],
    ["server.type=unix,server.path=nbd,server.abstract=on", { type: "unix", path: "\0nbd" }],
    ["server.type=fd,server.str=7", { type: "fd", descriptor: 7 }],
    ["host=a", { ...inet, host: "a", port: 10809 }],
    ["host=a,port=99", { ...inet, host: "a", port: 99 }],
    ["path=/run/nbd", { type: "unix", path: "/run/nbd" }],
  ])("%s is an address", (text, address) => {
    const parsed = nbdOptionsSchema.parseDotted(text);
    expect(parsed.ok && serverAddress(parsed.value)).toEqual(address);
  });

  it("have defaults", () => {
    const parsed = nbdOptionsSchema.parse({ host: "a" });
    expect(parsed.ok && parsed.value).toEqual({
      host: "a",
      export: "",
      "reconnect-delay": 0,
      "open-timeout": 0,
      "x-blocklayer-requests-max": 64,
      "x-blocklayer-request-timeout": 0,
    });
  });

  it.each([
    ["export=x", "NBD server address missing"],
    ["port=2", "NBD server address missing"],
    ["host=a,path=b", "path and host may not be used at the same time"],
    [
      "host=a,server.type=unix,server.path=b",
      "Cannot use 'server' and path/host/port at the same time",
    ],
    ["path=b,port=2", "port may not be used without host"],
    ["server.type=inet,server.host=a", "Parameter 'server.port' is missing"],
    [`host=a,export=${"x".repeat(4097)}`, "export name too long to send to server"],
    ["host=a,export=x\0y", "an export name has no NUL"],
    ["host=a,reconnect-delay=-1", "reconnect-delay"],
    ["host=a,nonsense=1", "Parameter 'nonsense' is unexpected"],
  ])("%s is refused: %s", (text, message) => {
    const parsed = nbdOptionsSchema.parseDotted(text);
    expect(parsed.ok ? "" : describeProblems(parsed.problems)).toContain(message);
  });

  it.each([
    [{ host: "a", port: "http" }, "EINVAL", "address resolution failed for a:http"],
    [{ host: "a", port: 65536 }, "EINVAL", "address resolution failed for a:65536"],
    [{ server: { type: "fd", str: "mine" } }, "EINVAL", "no file descriptor is called:mine"],
    [{ server: { type: "vsock", cid: "2", port: "1" } }, "ENOTSUP", "vsock"],
    [{ host: "a", "tls-creds": "tls0" }, "ENOTSUP", "TLS is not supported"],
    [{ host: "a", "tls-hostname": "b" }, "ENOTSUP", "TLS is not supported"],
    [{ host: "a", "x-dirty-bitmap": "b" }, "ENOTSUP", "Dirty bitmaps"],
  ])("%j can not be opened: %s", async (options, code, message) => {
    const connect = (): never => {
      throw new Error("nothing is connected to");
    };
    await rejection(TestHost.open(nbdDefinition({ connect }), { options }), code, message);
  });
});

describe("parseNbdFilename", () => {
  it.each([
    ["nbd://host", { server: { type: "inet", host: "host", port: "10809" } }],
    ["nbd://host:99/disk", { server: { type: "inet", host: "host", port: "99" }, export: "disk" }],
    [
      "nbd+tcp://[::1]//disk%20a",
      { server: { type: "inet", host: "::1", port: "10809" }, export: "/disk a" },
    ],
    [
      "nbd+unix:///disk?socket=/run/nbd",
      { server: { type: "unix", path: "/run/nbd" }, export: "disk" },
    ],
    ["nbd+unix:///?socket=%00name", { server: { type: "unix", path: "name", abstract: true } }],
    ["nbd:host:99", { server: { type: "inet", host: "host", port: "99" } }],
    [
      "nbd:host:99:exportname=disk:1",
      { server: { type: "inet", host: "host", port: "99" }, export: "disk:1" },
    ],
    [
      "nbd:unix:/run/nbd:exportname=disk",
      { server: { type: "unix", path: "/run/nbd" }, export: "disk" },
    ],
  ])("%s", (fileName, options) => {
    expect(parseNbdFilename(fileName)).toEqual(options);
    expect(nbdOptionsSchema.parse(options).ok).toBe(true);
  });

  it.each(["disk.raw", "/nbd", "file:nbd", "http://host/nbd", "nbd"])("%s is none", (fileName) => {
    expect(parseNbdFilename(fileName)).toBeUndefined();
  });

  it.each([
    ["nbds://host/disk", "ENOTSUP", "TLS is not supported"],
    ["nbds+unix:///disk?socket=/run/nbd", "ENOTSUP", "TLS is not supported"],
    ["nbd+vsock://2:10809/", "ENOTSUP", "vsock is not supported"],
    [
      "nbd://host/disk?tls-certificates=/etc",
      "EINVAL",
      "the parameter tls-certificates is not known",
    ],
    ["nbd+unix:///disk", "EINVAL", "the parameter socket is missing"],
    ["nbd:localhost", "EINVAL", "invalid NBD URI"],
  ])("%s is refused with %s", (fileName, code, message) => {
    let error: unknown;
    try {
      parseNbdFilename(fileName);
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(BlockError);
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
  });
});
