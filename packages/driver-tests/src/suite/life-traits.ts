import {
  ALL_PERMISSIONS,
  type ChildPermissionsInput,
  defaultChildPermissions,
  type PermissionSet,
  Permissions,
} from "@blocklayer/driver";
import { expect, expectBlockError, expectRejection, outcomeOf } from "../expect.ts";
import { releaseOrders } from "../request-gate.ts";
import type { TestChild } from "../test-child.ts";
import type { SuiteContext } from "./conformance-options.ts";
import { perform, RANGE_OPERATIONS } from "./operations.ts";
import { Subject, withSubject } from "./subject.ts";

/** Declared and real operations, permissions, reopen, close, what outlives the close. */
export function lifeTraits(context: SuiteContext): void {
  const { it } = context;
  it("has the operations that its capabilities declare", () => checkOperations(context));
  it("takes permissions on its children as a pure function of its own", () =>
    withSubject(context, "fresh", (subject) => {
      for (const child of subject.host.children.values()) checkPermissions(subject, child);
      return Promise.resolve();
    }));
  it("is as before when a reopen is prepared and aborted", () =>
    withSubject(context, "filled", (subject) => reopenUnchanged(subject, "abort")));
  it("is as before when it is reopened with the same options", () =>
    withSubject(context, "filled", (subject) => reopenUnchanged(subject, "commit")));
  closeTraits(context);
  if (context.options.reopen !== undefined) persistenceTraits(context);
}

async function checkOperations(context: SuiteContext): Promise<void> {
  const { capabilities } = context;
  await withSubject(context, "fresh", ({ driver }) => {
    const rows = [
      ["pwrite", driver.pwrite !== undefined, capabilities.write],
      ["pwritev", driver.pwritev !== undefined, capabilities.writeVector],
      ["pwriteZeroes", driver.pwriteZeroes !== undefined, capabilities.writeZeroes],
      ["pdiscard", driver.pdiscard !== undefined, capabilities.discard],
      ["blockStatus", driver.blockStatus !== undefined, capabilities.blockStatus],
      ["makeEmpty", driver.makeEmpty !== undefined, capabilities.makeEmpty],
    ] as const;
    for (const [name, has, isDeclared] of rows) {
      expect(has === isDeclared, `${name} is ${has ? "there and not" : "not there and"} declared`);
    }
    const { zeroes } = driver;
    const isNative = zeroes === "native";
    expect(
      isNative === (driver.pwriteZeroes !== undefined),
      `zeroes is ${zeroes}, pwriteZeroes is ${isNative ? "missing" : "there"}`,
    );
    expect(
      driver.truncate !== undefined || !capabilities.truncate,
      "truncate is declared and not there",
    );
    return Promise.resolve();
  });
}

function checkPermissions({ driver }: Subject, child: TestChild): void {
  for (let bits = 0; bits < 2 ** 9; bits += 1) {
    const input: ChildPermissionsInput = Object.freeze({
      perm: bits & ALL_PERMISSIONS,
      shared: (bits & 0x80) === 0 ? ALL_PERMISSIONS : Permissions.consistentRead,
      hasParents: (bits & 0x40) !== 0,
      writable: (bits & 0x20) !== 0,
      active: (bits & 0x10) !== 0,
    });
    const ask = (): PermissionSet =>
      driver.childPermissions?.({ name: child.name, role: child.role }, input) ??
      defaultChildPermissions(child.role, input);
    const [first, second] = [ask(), ask()];
    const what = `permissions on ${child.name} from ${JSON.stringify(input)}`;
    expect(
      first.perm === second.perm && first.shared === second.shared,
      `${what}: two answers to one question`,
    );
    for (const mask of [first.perm, first.shared]) {
      expect((mask & ~ALL_PERMISSIONS) === 0, `${what}: ${mask} has bits that are none`);
    }
    const isReader = (input.perm & ~Permissions.consistentRead) === 0 && !input.writable;
    const writes = first.perm & (Permissions.write | Permissions.resize);
    expect(!isReader || writes === 0, `${what}: writes although nobody may write`);
  }
}

async function reopenUnchanged(subject: Subject, end: "abort" | "commit"): Promise<void> {
  const { driver, host } = subject;
  if (driver.prepareReopen === undefined || host.driverOptions === undefined) return;
  const before = factsOf(subject);
  const prepared = await driver.prepareReopen({ options: host.driverOptions, readOnly: false });
  prepared[end]();
  await prepared.clean?.();
  const after = factsOf(subject);
  expect(before === after, `before ${before}, after ${after}`);
  await subject.expectContent(`content after a reopen that ended by ${end}`);
}

function factsOf({ driver }: Subject): string {
  return JSON.stringify([driver.size, driver.flags, driver.limits, driver.zeroes]);
}

function closeTraits(context: SuiteContext): void {
  const { it, capabilities } = context;
  const operations = RANGE_OPERATIONS.filter(({ has }) => has(capabilities));
  it("closes once, twice and by disposal", () =>
    withSubject(context, "filled", async ({ driver, host }) => {
      await host.close();
      await driver.close();
      await driver[Symbol.asyncDispose]();
    }));
  for (const operation of operations) {
    it(`${operation.name} after close rejects with a code`, () =>
      withSubject(context, "filled", async (subject) => {
        const { host, granule } = subject;
        await host.close();
        await expectRejection(operation.send(subject, 0, granule), `${operation.name} after close`);
      }));
    it(`${operation.name} in flight at close settles`, () =>
      withSubject(context, "filled", async (subject) => {
        const { driver, host, granule, middle } = subject;
        host.gate.hold();
        const work = outcomeOf(operation.send(subject, middle - granule, 2 * granule));
        const closing = driver.close();
        await host.gate.releaseUntil(Promise.all([work, closing]), releaseOrders.last);
        await closing;
        const ended = await work;
        if (!ended.ok) expectBlockError(ended.error, `${operation.name} while closing`);
      }));
  }
}

function persistenceTraits(context: SuiteContext): void {
  const { it, options } = context;
  for (const [title, leave] of [
    ["close and open", async (subject: Subject) => subject.host.close()],
    [
      "a crash after a flush",
      async (subject: Subject) => {
        await subject.flush();
        for (const child of subject.host.children.values()) await child.flush();
        subject.host.abandon();
      },
    ],
  ] as const) {
    it(`content outlives ${title}`, async () => {
      const subject = await Subject.open(context, "filled");
      for (const operation of RANGE_OPERATIONS.filter(({ has }) => has(context.capabilities))) {
        const { granule, middle, clusterSize } = subject;
        await perform(subject, operation, 0, granule);
        await perform(
          subject,
          operation,
          middle,
          Math.min(clusterSize, subject.content.length - middle),
        );
      }
      const { content } = subject;
      await leave(subject);
      const host = await options.reopen?.(subject.host);
      expect(host !== undefined, "reopen opened nothing");
      const again = await Subject.of(context, host);
      again.content = content;
      await again.expectContent(`content after ${title}`);
      await again.close();
    });
  }
}
