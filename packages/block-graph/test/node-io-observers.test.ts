import { completed, RequestFlag, type WriteObserver } from "@blocklayer/driver";
import { ScriptedDriver } from "@blocklayer/driver-tests";
import { BlockError } from "@blocklayer/errors";
import { describe, expect, it } from "vitest";
import { diskNode, rigNode, rootEdge } from "./io-rig.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
}

function noting(events: string[], name = ""): WriteObserver {
  return {
    beforeWrite: ({ kind, offset, length }) => {
      events.push(`${name}before ${kind} ${offset}+${length}`);
      return undefined;
    },
    afterWrite: ({ kind, offset, length }, error) => {
      const result = error === undefined ? "" : ` ${(error as BlockError).code}`;
      events.push(`${name}after ${kind} ${offset}+${length}${result}`);
    },
    beforeResize: ({ oldSize, newSize }) => {
      events.push(`${name}before resize ${oldSize} ${newSize}`);
      return undefined;
    },
    resized: ({ oldSize, newSize }) => void events.push(`${name}resized ${oldSize} ${newSize}`),
  };
}

describe("observers of writes", () => {
  it("see the aligned range of every change, before and after", async () => {
    const { node } = diskNode({ size: 4096, limits: { requestAlignment: 512 } });
    const events: string[] = [];
    node.addObserver(noting(events));
    const edge = rootEdge(node);
    await edge.pwrite(512, new Uint8Array(512));
    await edge.pwrite(700, new Uint8Array(10));
    await edge.pwriteZeroes(100, 1000);
    await edge.pdiscard(1024, 1024);
    await edge.pread(0, new Uint8Array(4096));
    await edge.flush();
    await node.io.contentReplaced(0, 4096);
    expect(events).toEqual([
      "before write 512+512",
      "after write 512+512",
      "before write 512+512",
      "after write 512+512",
      "before zeroes 0+1536",
      "after zeroes 0+1536",
      "before discard 1024+1024",
      "after discard 1024+1024",
      "before replace 0+4096",
      "after replace 0+4096",
    ]);
  });

  it("cost no turn when they agree at once", () => {
    const { node } = diskNode({ size: 4096 });
    const events: string[] = [];
    node.addObserver(noting(events));
    node.addObserver({ beforeWrite: () => completed });
    expect(rootEdge(node).pwrite(0, new Uint8Array(512))).toBe(completed);
    expect(events).toEqual(["before write 0+512", "after write 0+512"]);
  });

  it("are told before the requester, also of a failure", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const node = rigNode({ driver: () => driver });
    const events: string[] = [];
    node.addObserver(noting(events));
    const edge = rootEdge(node);
    const write = edge.pwrite(0, new Uint8Array(512)).then(
      () => events.push("done"),
      ({ code }: BlockError) => events.push(`failed ${code}`),
    );
    const zeroes = edge
      .pwriteZeroes(512, 512)
      .catch(({ code }: BlockError) => events.push(`failed ${code}`));
    await turns();
    expect(events).toEqual(["before write 0+512", "before zeroes 512+512"]);
    driver.fail(0, "ENOSPC");
    driver.fail(1, "EIO");
    await Promise.all([write, zeroes]);
    expect(new Set(events.slice(2))).toEqual(
      new Set([
        "after write 0+512 ENOSPC",
        "after zeroes 512+512 EIO",
        "failed EIO",
        "failed ENOSPC",
      ]),
    );
    expect(events.indexOf("after write 0+512 ENOSPC")).toBeLessThan(
      events.indexOf("failed ENOSPC"),
    );
    expect(events.indexOf("after zeroes 512+512 EIO")).toBeLessThan(events.indexOf("failed EIO"));
  });

  it.each(["throws", "rejects"])(
    "refuse a change: one that %s keeps it from the driver and from those after it",
    async (how) => {
      const driver = new ScriptedDriver({ size: 4096 });
      const node = rigNode({ driver: () => driver });
      const events: string[] = [];
      const refusal = new BlockError("EPERM", "a read-only bitmap");
      node.addObserver(noting(events));
      node.addObserver({
        beforeWrite: () => {
          if (how === "throws") throw refusal;
          return Promise.reject(refusal);
        },
      });
      node.addObserver(noting(events, "second "));
      const edge = rootEdge(node);
      const changes = [
        edge.pwrite(0, new Uint8Array(512)),
        edge.pwritev(0, [new Uint8Array(512), new Uint8Array(512)]),
        edge.pwriteZeroes(0, 512),
        edge.pdiscard(0, 512),
      ];
      for (const result of await Promise.allSettled(changes)) {
        expect(result).toMatchObject({ reason: { code: "EPERM", message: "a read-only bitmap" } });
      }
      expect(driver.log).toEqual([]);
      expect(events.every((event) => event.startsWith("before"))).toBe(true);
      expect(node.io.inFlight).toBe(0);
      expect(node.io.requestsInFlight()).toEqual([]);
    },
  );

  it("hold a write back before it is issued, in flight and visible to requests that serialise", async () => {
    const driver = new ScriptedDriver({ size: 4096, limits: { requestAlignment: 512 } });
    const node = rigNode({ driver: () => driver });
    let agree = (): void => undefined;
    let isFirst = true;
    node.addObserver({
      beforeWrite: () => {
        if (!isFirst) return undefined;
        isFirst = false;
        return new Promise((resolve) => {
          agree = resolve;
        });
      },
    });
    const events: string[] = [];
    node.addObserver(noting(events));
    const edge = rootEdge(node);
    const held = edge.pwrite(0, new Uint8Array(512).fill(1));
    const partial = edge.pwrite(10, new Uint8Array(10).fill(2));
    await turns();
    expect(driver.log).toEqual([]);
    expect(node.io.inFlight).toBe(2);
    agree();
    await Promise.all([held, partial]);
    expect(driver.log.map(({ operation }) => operation)).toEqual(["pwrite", "pread", "pwrite"]);
    expect([driver.bytes[9], driver.bytes[10], driver.bytes[20]]).toEqual([1, 2, 1]);
    expect(events).toHaveLength(4);
  });

  it("hold every kind of change back one after the other", async () => {
    const { node, disk } = diskNode({ size: 4096 });
    disk.bytes.fill(1);
    const order: string[] = [];
    for (const name of ["first", "second"]) {
      node.addObserver({
        beforeWrite: async ({ kind }) => {
          order.push(`${name} ${kind}`);
          await turns();
        },
      });
    }
    await rootEdge(node).pwriteZeroes(0, 512);
    expect(order).toEqual(["first zeroes", "second zeroes"]);
    expect(disk.bytes[0]).toBe(0);
  });

  it("hear of a growing write's length before and after", async () => {
    const { node } = diskNode({ size: 4096, growing: true });
    const events: string[] = [];
    node.addObserver(noting(events));
    await rootEdge(node).pwrite(4000, new Uint8Array(1000));
    expect(events).toEqual([
      "before resize 4096 5000",
      "before write 4000+1000",
      "resized 4096 5000",
      "after write 4000+1000",
    ]);
  });

  it.each(["pwrite", "truncate"] as const)(
    "may refuse that a %s changes the length",
    async (operation) => {
      const { node, disk } = diskNode({ size: 4096, growing: true });
      node.addObserver({
        beforeResize: () => {
          throw new BlockError("EBUSY", "the bitmap cannot grow");
        },
      });
      const edge = rootEdge(node);
      const request =
        operation === "pwrite" ? edge.pwrite(4096, new Uint8Array(1)) : edge.truncate(8192);
      await expect(request).rejects.toMatchObject({ code: "EBUSY" });
      expect([node.size, disk.size]).toEqual([4096, 4096]);
    },
  );

  it("see the flags of the request", async () => {
    const { node } = diskNode({ size: 4096 });
    const seen: number[] = [];
    node.addObserver({ afterWrite: ({ flags }) => void seen.push(flags) });
    await rootEdge(node).pwrite(0, new Uint8Array(1), { flags: RequestFlag.fua });
    expect(seen).toEqual([RequestFlag.fua]);
  });

  it("may be removed while a write is in flight and are then not told", async () => {
    const driver = new ScriptedDriver({ size: 4096, hold: true });
    const node = rigNode({ driver: () => driver });
    const events: string[] = [];
    const observing = node.addObserver(noting(events));
    const write = rootEdge(node).pwrite(0, new Uint8Array(512));
    observing[Symbol.dispose]();
    driver.releaseAll();
    await write;
    expect(events).toEqual(["before write 0+512"]);
  });
});
