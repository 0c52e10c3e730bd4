import type { ByteReceiver } from "@blocklayer/nbd-protocol";
import { describe, expect, it } from "vitest";
import { Decisions } from "../src/decisions.ts";
import { SimulatedLink } from "../src/net/simulated-link.ts";
import { SimulatedProcess } from "../src/net/simulated-process.ts";
import type { LinkBehaviour } from "../src/net/simulated-stream.ts";
import { WorldScheduler } from "../src/world-scheduler.ts";

/** One end's user: notes what it is told. */
class Listener implements ByteReceiver {
  readonly heard: string[] = [];
  readonly memory: Uint8Array = new Uint8Array(64);

  buffer(): Uint8Array {
    return this.memory;
  }
  data(chunk: Uint8Array): void {
    this.heard.push(String.fromCharCode(...chunk));
  }
  drained(): void {
    this.heard.push("<drained>");
  }
  ended(): void {
    this.heard.push("<ended>");
  }
  closed(error?: unknown): void {
    this.heard.push(error === undefined ? "<closed>" : "<lost>");
  }
}

const QUIET: LinkBehaviour = { capacity: Number.POSITIVE_INFINITY, splits: 0, delayMs: 0 };

function connected(list: readonly number[] = [], behaviour: LinkBehaviour = QUIET) {
  const decisions = new Decisions(list);
  const queue: (() => void)[] = [];
  const reports: string[] = [];
  const scheduler = new WorldScheduler({ decisions: new Decisions([]) });
  const [here, there] = ["client", "server"].map((name) => new SimulatedProcess(name, scheduler));
  const link = new SimulatedLink(
    {
      decisions,
      behaviour: () => behaviour,
      post: (_, deliver) => void queue.push(deliver),
      report: (kind, message) => void reports.push(`${kind}: ${message}`),
    },
    { name: "link", client: here as SimulatedProcess, server: there as SimulatedProcess },
  );
  const [client, server] = [new Listener(), new Listener()];
  link.client.start(client);
  link.server.start(server);
  const run = (): void => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) next();
  };
  return { link, client, server, reports, run, server_: there as SimulatedProcess };
}

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe("a simulated connection", () => {
  it("delivers what was written at once, later, in one piece", () => {
    const { link, server, run } = connected();
    expect(link.client.write([bytes("ab"), bytes("c")])).toBe(true);
    link.client.write([bytes("d")]);
    expect(server.heard).toEqual([]);
    run();
    expect(server.heard).toEqual(["abcd"]);
  });

  it("splits where a decision says", () => {
    // No shared memory; splits, not near the end, the last two bytes stay behind.
    const { link, server, run } = connected([0, 1, 0, 2], { ...QUIET, splits: 8 });
    link.client.write([bytes("abcdef")]);
    run();
    expect(server.heard).toEqual(["abcd", "ef"]);
  });

  it("leaves what does not fit with the sender, and tells it when all was taken", () => {
    const { link, client, server, run } = connected([], { ...QUIET, capacity: 3 });
    expect(link.client.write([bytes("abcde")])).toBe(false);
    run();
    expect(server.heard).toEqual(["abc", "de"]);
    expect(client.heard).toEqual(["<drained>"]);
  });

  it("delivers nothing while it is paused, and goes on", () => {
    const { link, server, run } = connected();
    link.server.pause();
    link.client.write([bytes("ab")]);
    run();
    expect(server.heard).toEqual([]);
    link.server.resume();
    run();
    expect(server.heard).toEqual(["ab"]);
  });

  it("is closed for both when both have ended, one after the other", () => {
    const { link, client, server, run } = connected();
    link.client.write([bytes("a")]);
    link.client.end();
    run();
    expect(server.heard).toEqual(["a", "<ended>"]);
    link.server.write([bytes("b")]);
    link.server.end();
    run();
    expect(client.heard).toEqual(["b", "<ended>", "<closed>"]);
    expect(server.heard).toEqual(["a", "<ended>", "<closed>"]);
    expect(link.isOver).toBe(true);
  });

  it("destroyed by one side ends for the other, which learns the rest when it writes", () => {
    const { link, client, server, run } = connected();
    link.client.destroy();
    run();
    expect(client.heard).toEqual(["<closed>"]);
    expect(server.heard).toEqual(["<ended>"]);
    link.server.write([bytes("a")]);
    run();
    expect(server.heard).toEqual(["<ended>", "<lost>"]);
  });

  it("is cut for both; bytes on their way may arrive before", () => {
    const { link, client, server, run } = connected();
    link.client.write([bytes("abc")]);
    link.cut();
    run();
    expect(server.heard).toEqual(["abc", "<lost>"]);
    expect(client.heard).toEqual(["<lost>"]);
  });

  it("is cut in the middle of what is on its way", () => {
    // Memory; the client's end loses nothing and hears at once; the server's end loses two bytes.
    const { link, server, run } = connected([0, 1, 0, 1, 1, 1]);
    link.client.write([bytes("abc")]);
    link.cut();
    run();
    expect(server.heard).toEqual(["a", "<lost>"]);
  });

  it("is half-open: one side hears nothing more, until it heals", () => {
    const { link, client, server, run } = connected();
    link.halfOpen("client");
    run();
    link.server.write([bytes("a")]);
    run();
    expect(client.heard).toEqual(["<lost>"]);
    expect(server.heard).toEqual([]);
    link.heal();
    run();
    expect(server.heard).toEqual(["<lost>"]);
  });

  it("is blocked in one direction until it heals", () => {
    const { link, client, server, run } = connected();
    link.block("client");
    link.client.write([bytes("a")]);
    link.server.write([bytes("b")]);
    run();
    expect([client.heard, server.heard]).toEqual([["b"], []]);
    link.heal();
    run();
    expect(server.heard).toEqual(["a"]);
  });

  it("says nothing to a process that is dead, and is lost for the other one", () => {
    const { link, client, server, run, server_ } = connected();
    link.client.write([bytes("a")]);
    server_.kill();
    link.vanish("server");
    run();
    expect(server.heard).toEqual([]);
    expect(client.heard).toEqual(["<lost>"]);
  });
});

describe("who breaks the contract of streams is reported", () => {
  it.each([
    [
      "written to before the last write was drained",
      (link: SimulatedLink) => {
        link.client.write([bytes("abcdef")]);
        link.client.write([bytes("g")]);
      },
    ],
    [
      "written to after its end",
      (link: SimulatedLink) => {
        link.client.end();
        link.client.write([bytes("a")]);
      },
    ],
    ["started twice", (link: SimulatedLink) => link.client.start(new Listener())],
    [
      "memory of an unfinished write changed",
      (link: SimulatedLink) => {
        const memory = bytes("abcdef");
        link.client.write([memory]);
        memory.fill(0);
      },
    ],
  ])("%s", (what, misuse) => {
    const { link, reports, run } = connected([], { ...QUIET, capacity: 3 });
    misuse(link);
    run();
    expect(reports[0]).toBe(`stream misused: link client: ${what}`);
  });

  it("written to after closed", () => {
    const { link, reports, run } = connected();
    link.client.destroy();
    run();
    link.client.write([bytes("a")]);
    expect(reports).toEqual(["stream misused: link client: written to after closed"]);
  });
});

describe("a simulated process", () => {
  it("hears of nothing after its death, and leaves no timer behind", async () => {
    const scheduler = new WorldScheduler({ decisions: new Decisions([]) });
    const process = new SimulatedProcess("one", scheduler, { sleepPieces: 4 });
    const heard: string[] = [];
    void process.env.clock.sleep(100).then(() => heard.push("sleep"));
    process.env.wake(() => heard.push("wake"), "lock");
    await scheduler.run(async () => {
      await scheduler.turn("a moment");
      process.kill();
      await process.dead;
    });
    await scheduler.settle();
    expect(heard.filter((what) => what === "sleep")).toEqual([]);
    expect(scheduler.pendingTags).toEqual([]);
    expect(await process.survive(new Promise(() => undefined))).toBeUndefined();
  });

  it("sleeps as long as it was told, in pieces", async () => {
    const scheduler = new WorldScheduler({ decisions: new Decisions([]) });
    const { env } = new SimulatedProcess("one", scheduler, { sleepPieces: 4 });
    await scheduler.run(() => env.clock.sleep(1001));
    expect(env.clock.now()).toBe(1001);
    const controller = new AbortController();
    const sleep = env.clock.sleep(10, controller.signal);
    controller.abort(new Error("enough"));
    await expect(sleep).rejects.toThrow("enough");
    await expect(env.clock.sleep(10, controller.signal)).rejects.toThrow("enough");
  });
});
