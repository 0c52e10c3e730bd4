import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BlockDriver } from "@blocklayer/driver";
import { TestHost, type TestHostOptions } from "@blocklayer/driver-tests";
import type { Env } from "@blocklayer/env";
import { manualEnv } from "@blocklayer/env";
import {
  fileDefinition,
  type NativeCalls,
  type OperatingSystem,
  operatingSystem,
} from "@blocklayer/file";
import { afterAll } from "vitest";

/** Both ways of reaching the operating system, for `describe.each`. */
export const WAYS: readonly (readonly [name: string, ffi: boolean])[] = [
  ["with native calls", true],
  ["with plain Node", false],
];

/** Whether native calls can be had on this machine. */
export const hasNative: boolean = (await operatingSystem({ ffi: true })).native !== undefined;

const directories: string[] = [];

afterAll(() => {
  for (const path of directories.splice(0)) rmSync(path, { recursive: true, force: true });
});

/** Makes a directory that goes away after the tests of a file. */
export function temporaryDirectory(base: string = tmpdir()): string {
  const path = mkdtempSync(join(base, "blocklayer-file-"));
  directories.push(path);
  return path;
}

let count = 0;

/** Makes a file with a content and returns its path. */
export function temporaryFile(content: Uint8Array | number = 2 ** 20, base?: string): string {
  count += 1;
  const path = join(temporaryDirectory(base), `disk-${count}.img`);
  writeFileSync(path, typeof content === "number" ? new Uint8Array(content) : content);
  return path;
}

/** An operating system some of whose calls are replaced, and that knows which descriptors are open. */
export interface TestSystem {
  readonly system: OperatingSystem;
  /** Descriptors that were opened and not closed. */
  readonly open: Set<number>;
  /** Names of the calls that were made, in order. */
  readonly calls: string[];
  /** Replaces a call; `undefined` puts the real one back. */
  replace<Name extends keyof OperatingSystem>(
    name: Name,
    call: OperatingSystem[Name] | undefined,
  ): void;
}

/** Answers that name an error as the operating system does. */
export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: injected`), { code });
}

/** Wraps the real operating system. @param native - replaces native calls */
export async function testSystem(
  options: { readonly ffi?: boolean; readonly native?: Partial<NativeCalls> } = {},
): Promise<TestSystem> {
  const real = await operatingSystem({ ffi: options.ffi ?? true });
  const open = new Set<number>();
  const calls: string[] = [];
  const replaced = new Map<string, unknown>();
  const tracked = {
    open: async (path: string, flags: number, mode?: number) => {
      const fd = await real.open(path, flags, mode);
      open.add(fd);
      return fd;
    },
    close: async (fd: number) => {
      open.delete(fd);
      await real.close(fd);
    },
  };
  const native = real.native === undefined ? undefined : overlay(real.native, options.native ?? {});
  const system = new Proxy(real, {
    get: (_target, name: string) => {
      const value =
        replaced.get(name) ??
        (name === "native" ? native : undefined) ??
        (tracked as Record<string, unknown>)[name] ??
        (real as unknown as Record<string, unknown>)[name];
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        calls.push(name);
        return value.apply(real, args);
      };
    },
  });
  return {
    system,
    open,
    calls,
    replace: (name, call) => {
      if (call === undefined) replaced.delete(name);
      else replaced.set(name, call);
    },
  };
}

function overlay(real: NativeCalls, replaced: Partial<NativeCalls>): NativeCalls {
  return new Proxy(real, {
    get: (target, name: keyof NativeCalls) => {
      const call = replaced[name];
      if (call !== undefined) return call;
      return (target[name] as (...args: unknown[]) => unknown).bind(target);
    },
  });
}

/** An environment whose clock a test sets as it likes, also within a call. */
export function steppedEnv(): { readonly env: Env; readonly clock: { nowMs: number } } {
  const clock = { nowMs: 0 };
  const base = manualEnv();
  return {
    clock,
    env: { ...base, clock: { now: () => clock.nowMs, sleep: () => Promise.resolve() } },
  };
}

export interface OpenSettings extends TestHostOptions {
  readonly system?: OperatingSystem;
  readonly ffi?: boolean;
  readonly locking?: "auto" | "on" | "off";
}

/** Opens a file in a test host. Locking is off unless asked for. */
export function openFile(path: string, settings: OpenSettings = {}): Promise<TestHost> {
  const { system, ffi = true, locking = "off", ...host } = settings;
  const definition = fileDefinition(system === undefined ? { ffi } : { system });
  return TestHost.open(definition, { ...host, options: { filename: path, locking } });
}

/** Bytes that are told apart by their place. */
export function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + seed) % 251);
}

/** Reads a range of a driver. */
export async function readBytes(
  driver: BlockDriver,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const buffer = new Uint8Array(length).fill(0xee);
  await driver.pread(offset, buffer);
  return buffer;
}

/** The error that a call rejects with. */
export async function errorOf(promise: Promise<unknown> | undefined): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  return undefined;
}

/** Puts waiting completions of the thread pool and of promises behind us. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
