import { encodeRequest, NbdCommand, RequestReader } from "@blocklayer/nbd-protocol";
import { expect, it } from "vitest";

const write = encodeRequest(
  { type: NbdCommand.WRITE, flags: 0, cookieHigh: 0, cookieLow: 7, offset: 0, length: 4 },
  false,
  new Uint8Array([1, 2, 3, 4]),
);

it("takes no memory for a payload before it is admitted, and asks again at every call", () => {
  const asked: number[] = [];
  const taken: number[] = [];
  let isAdmitted = false;
  const reader = new RequestReader({
    extended: false,
    volatile: true,
    allocate: (length) => {
      taken.push(length);
      return new Uint8Array(length);
    },
    admit: (length) => {
      asked.push(length);
      return isAdmitted;
    },
  });
  reader.push(write);
  expect(reader.next()).toBeUndefined();
  expect(reader.next()).toBeUndefined();
  expect(asked).toEqual([4, 4]);
  expect(taken).toEqual([]);
  isAdmitted = true;
  expect(reader.next()?.payload).toEqual(new Uint8Array([1, 2, 3, 4]));
  expect(asked).toEqual([4, 4, 4]);
  expect(taken).toEqual([4]);
});

it("asks once for a payload that arrives in several chunks", () => {
  const asked: number[] = [];
  const reader = new RequestReader({
    extended: false,
    admit: (length) => {
      asked.push(length);
      return true;
    },
  });
  reader.push(write.subarray(0, 30));
  expect(reader.next()).toBeUndefined();
  reader.push(write.subarray(30));
  expect(reader.next()?.cookieLow).toBe(7);
  expect(asked).toEqual([4]);
});

it("does not ask for requests without a payload", () => {
  const reader = new RequestReader({ extended: false, admit: () => false });
  const header = { flags: 0, cookieHigh: 0, cookieLow: 1, offset: 0, length: 8 };
  reader.push(encodeRequest({ ...header, type: NbdCommand.READ }, false));
  expect(reader.next()?.type).toBe(NbdCommand.READ);
});
