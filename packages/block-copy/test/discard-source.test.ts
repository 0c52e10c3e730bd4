import { describe, expect, it, vi } from "vitest";
import { CLUSTER, fixture } from "./fixture.ts";

describe("discarding the source", () => {
  it("frees what was copied and ignores what the source answers", async () => {
    const { engine, source, target, env, before } = fixture();
    engine.setDiscardSource(true);
    source.failNth("pdiscard", 1, "EIO");
    const call = engine.start(0, 4 * CLUSTER, { maxWorkers: 1, maxChunk: 2 * CLUSTER });
    await env.clock.advance(1);
    await call.done;
    expect(call.succeeded).toBe(true);
    expect(target.bytes).toEqual(before);
    expect(
      source.log.filter(({ operation }) => operation === "pdiscard").map(({ offset }) => offset),
    ).toEqual([0, 2 * CLUSTER]);
  });

  it("holds what it discards against writers, and shows it as copied to readers", async () => {
    const { engine, source, env } = fixture();
    engine.setDiscardSource(true);
    source.hold("pdiscard");
    const call = engine.start(CLUSTER, 2 * CLUSTER, { maxWorkers: 1, maxChunk: 2 * CLUSTER });
    await env.clock.advance(1);
    expect(source.held.length).toBe(1);
    expect(engine.isClean(CLUSTER, CLUSTER)).toBe(false);
    expect(engine.status(CLUSTER, 3 * CLUSTER)).toEqual({ clean: true, length: 2 * CLUSTER });
    expect(engine.remainingBitmap().count).toBe(2 * CLUSTER);
    let isCopied = false;
    const copied = engine.copy(CLUSTER, CLUSTER).then(() => {
      isCopied = true;
    });
    await env.clock.advance(1);
    expect(isCopied).toBe(false);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([copied, call.done]);
    expect(engine.isClean(CLUSTER, 2 * CLUSTER)).toBe(true);
  });

  it("says what it is discarding, and until when", async () => {
    const { engine, source, env } = fixture();
    engine.setDiscardSource(true);
    source.hold("pdiscard");
    const call = engine.start(0, 2 * CLUSTER, { maxWorkers: 2, maxChunk: CLUSTER });
    await env.clock.advance(1);
    expect([engine.isDiscarding(5, 1), engine.isDiscarding(2 * CLUSTER, 1)]).toEqual([true, false]);
    await engine.discardsGone(2 * CLUSTER, CLUSTER);
    let isGone = false;
    const gone = engine.discardsGone(5, CLUSTER).then(() => {
      isGone = true;
    });
    await env.clock.advance(1);
    expect(isGone).toBe(false);
    source.releaseAll();
    await env.clock.advance(1);
    await Promise.all([gone, call.done]);
    expect(engine.isDiscarding(0, 4 * CLUSTER)).toBe(false);
  });

  it("is given up by tasks that have not begun with it", async () => {
    const { engine, source, env } = fixture();
    engine.setDiscardSource(true);
    source.hold("pread");
    const call = engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    engine.setDiscardSource(false);
    source.releaseAll();
    await env.clock.advance(1);
    await call.done;
    expect(source.log.some(({ operation }) => operation === "pdiscard")).toBe(false);
  });

  it("is given up by a task that waits for readers when the snapshot breaks", async () => {
    const readers = Promise.withResolvers<void>();
    const waits: number[] = [];
    const { engine, source, env } = fixture({
      beforeDiscard: (offset) => {
        waits.push(offset);
        return readers.promise;
      },
    });
    engine.setDiscardSource(true);
    const call = engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    expect([waits, engine.isDiscarding(0, CLUSTER)]).toEqual([[0], false]);
    engine.setDiscardSource(false);
    readers.resolve();
    await env.clock.advance(1);
    await call.done;
    expect(call.succeeded).toBe(true);
    expect(source.log.some(({ operation }) => operation === "pdiscard")).toBe(false);
  });

  it.each([
    ["the first", 0],
    ["the second", 1],
  ])("is waited for until no task does, whichever ends first: %s", async (_, firstToEnd) => {
    const { engine, source, env } = fixture();
    engine.setDiscardSource(true);
    source.hold("pdiscard");
    const call = engine.start(0, 2 * CLUSTER, { maxWorkers: 2, maxChunk: CLUSTER });
    await env.clock.advance(1);
    const indexes = source.held.map(({ index }) => index);
    expect(indexes.length).toBe(2);
    let isGone = false;
    const gone = engine.discardsGone(0, 2 * CLUSTER).then(() => {
      isGone = true;
    });
    source.release(indexes[firstToEnd] as number);
    await env.clock.advance(1);
    expect([isGone, source.held.length]).toEqual([false, 1]);
    source.release();
    await env.clock.advance(1);
    expect(isGone).toBe(true);
    await Promise.all([gone, call.done]);
  });

  it("is known of when the request begins", async () => {
    const { engine, source, env } = fixture();
    const discard = source.pdiscard.bind(source);
    const known: boolean[] = [];
    vi.spyOn(source, "pdiscard").mockImplementation((...args) => {
      known.push(engine.isDiscarding(0, 1));
      return discard(...args);
    });
    engine.setDiscardSource(true);
    const call = engine.start(0, CLUSTER, { maxWorkers: 1, maxChunk: 0 });
    await env.clock.advance(1);
    await call.done;
    expect(known).toEqual([true]);
  });
});
