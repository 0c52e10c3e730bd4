import { manualEnv } from "@blocklayer/env";
import { describe, expect, it } from "vitest";
import { BackendQueue } from "../src/backend-queue.ts";

async function turns(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
}

describe("a queue of requests that wait for the end of a drained section", () => {
  it("does not lose one to the late abort of another that has started or was rejected", async () => {
    const queue = new BackendQueue(manualEnv(), () => true);
    const [started, rejected] = [new AbortController(), new AbortController()];
    const first = queue.add(() => Promise.resolve("first"), started.signal);
    queue.restart();
    expect(await first).toBe("first");
    const second = queue.add(() => Promise.resolve("second"), rejected.signal);
    queue.rejectAll(() => new Error("closed"));
    await expect(second).rejects.toThrow("closed");
    const third = queue.add(() => Promise.resolve("third"), undefined);
    started.abort(new Error("too late"));
    rejected.abort(new Error("too late"));
    expect(queue.length).toBe(1);
    queue.restart();
    expect(await third).toBe("third");
  });

  it("starts none of the rest when a section begins with the start of one", async () => {
    let isOpen = true;
    const order: number[] = [];
    const queue = new BackendQueue(manualEnv(), () => isOpen);
    const requests = [1, 2].map((number) =>
      queue.add(() => {
        order.push(number);
        isOpen = false;
        return Promise.resolve();
      }, undefined),
    );
    queue.restart();
    await turns();
    expect(order).toEqual([1]);
    isOpen = true;
    queue.restart();
    await Promise.all(requests);
    expect(order).toEqual([1, 2]);
  });

  it("hands on what a request fails with, and starts the next", async () => {
    const queue = new BackendQueue(manualEnv(), () => true);
    const first = queue.add(() => Promise.reject(new Error("EIO")), undefined);
    const second = queue.add(() => Promise.resolve(), undefined);
    queue.restart();
    await expect(first).rejects.toThrow("EIO");
    await second;
  });
});
