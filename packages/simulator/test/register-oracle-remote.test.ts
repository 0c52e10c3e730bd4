import { describe, expect, it } from "vitest";
import { RegisterOracle } from "../src/register-oracle.ts";

const CELL = 64;

function oracleWithCell(): {
  oracle: RegisterOracle;
  write: () => Uint8Array;
  read: (content: Uint8Array) => string | undefined;
} {
  const oracle = new RegisterOracle({ disk: 1, size: CELL, cellSize: CELL });
  return {
    oracle,
    write: () => {
      const operation = oracle.begin("write", 0, CELL);
      oracle.end(operation, true);
      return oracle.payload(operation);
    },
    read: (content) => {
      const operation = oracle.begin("read", 0, CELL);
      const problem = oracle.check(operation, content);
      oracle.end(operation, true);
      return problem;
    },
  };
}

describe("requests that a lost connection left behind", () => {
  it("may have their effect after later ones, until nothing of them is left", () => {
    const { oracle, write, read } = oracleWithCell();
    const early = oracle.begin("write", 0, CELL);
    const old = oracle.payload(early);
    const gone = oracle.linger(early);
    oracle.end(early, true);
    write();
    expect(read(old)).toBeUndefined();
    gone();
    expect(read(old)).toBeUndefined();
    const last = write();
    expect(read(old)).toContain("a read: cell 0");
    expect(read(last)).toBeUndefined();
  });

  it("that still run end when they end", () => {
    const { oracle, write, read } = oracleWithCell();
    const early = oracle.begin("write", 0, CELL);
    oracle.linger(early)();
    oracle.end(early, true);
    write();
    expect(read(oracle.payload(early))).toContain("a read: cell 0");
  });
});

describe("a crash that the clients survive", () => {
  it("leaves what was lost forbidden, and what runs possible", () => {
    const { oracle, write, read } = oracleWithCell();
    const lost = write();
    const running = oracle.begin("write", 0, CELL);
    expect(oracle.recover(new Uint8Array(CELL), true)).toBeUndefined();
    expect(read(lost)).toContain("a read: cell 0");
    expect(read(new Uint8Array(CELL))).toBeUndefined();
    expect(read(oracle.payload(running))).toBeUndefined();
  });

  it("lets a request that ends later rule out nothing: a part of it may have been lost", () => {
    const { oracle, read, write } = oracleWithCell();
    const running = oracle.begin("write", 0, CELL);
    oracle.recover(new Uint8Array(CELL), true);
    oracle.end(running, true);
    expect(read(new Uint8Array(CELL))).toBeUndefined();
    write();
    expect(read(new Uint8Array(CELL))).toContain("a read: cell 0");
  });

  it("does not judge a read that may have been answered before", () => {
    const { oracle, write } = oracleWithCell();
    const old = write();
    const reading = oracle.begin("read", 0, CELL);
    oracle.recover(new Uint8Array(CELL), true);
    expect(oracle.check(reading, old)).toBeUndefined();
  });

  it("forgives no flushed change that is gone", () => {
    const { oracle, write } = oracleWithCell();
    write();
    oracle.beginFlush()();
    expect(oracle.recover(new Uint8Array(CELL), true)).toContain("after a crash: cell 0");
  });
});
