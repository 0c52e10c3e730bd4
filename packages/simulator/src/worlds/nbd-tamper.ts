import { NbdMagic, NbdOptionReply } from "@blocklayer/nbd-protocol";
import { readU32, writeU32 } from "@blocklayer/offsets";
import type { Simulation } from "../simulation.ts";
import type { NbdWiretap } from "./nbd-wiretap.ts";

const HEADER = 16;
const OPTION_HEADER = 20;

/**
 * Changes what a server sends so that a client can know that it is wrong: magic numbers, cookies that nobody waits
 * for, lengths beyond all bounds, a reply twice. From then on the client must not use the connection.
 *
 * @see docs/reliability.md section 3.2, NC-1
 */
export class NbdTamper {
  readonly #simulation: Simulation;
  readonly #tap: NbdWiretap;
  readonly #chance: number;
  readonly #isOn: () => boolean;
  #isDone: boolean = false;
  /** What is sent after this many bytes more is known to be wrong by the client. */
  #sent: number = 0;
  #wrongUntil: number = Number.POSITIVE_INFINITY;
  #delivered: number = 0;
  #isTransmission: boolean = false;

  /**
   * @param chance - of 16 bursts, how many are changed
   * @param isOn - whether anything is changed at all now
   */
  constructor(simulation: Simulation, tap: NbdWiretap, chance: number, isOn: () => boolean) {
    this.#simulation = simulation;
    this.#tap = tap;
    this.#chance = chance;
    this.#isOn = isOn;
    const { server, client } = tap.link;
    const before = server.onSend;
    server.onSend = (bytes) => this.#send(bytes, before?.(bytes) ?? bytes);
    const delivered = client.onDeliver;
    client.onDeliver = (bytes, isOver) => {
      delivered?.(bytes, isOver);
      if (isOver) this.#arrived(bytes.length);
    };
  }

  /** The client has read what was changed. */
  get isSeen(): boolean {
    return this.#delivered >= this.#wrongUntil;
  }

  #send(original: Uint8Array, bytes: Uint8Array): Uint8Array {
    const { decisions } = this.#simulation;
    const start = this.#sent;
    let changed = bytes;
    const isWanted = !this.#isDone && this.#isOn();
    if (isWanted && decisions.chance("tampers", this.#chance, 16)) {
      changed = this.#change(original.slice(), start) ?? bytes;
    }
    this.#sent += changed.length;
    return changed;
  }

  /** Changes the first frame, if one begins here. */
  #change(bytes: Uint8Array, start: number): Uint8Array | undefined {
    const first = bytes.length < HEADER ? 0 : readU32(bytes, 0);
    const isFrame = this.#tap.frameStarts.has(start);
    if (!isFrame) return undefined;
    if (first === NbdMagic.SIMPLE_REPLY) return this.#changeReply(bytes, start);
    if (first === NbdMagic.OPTION_REPLY_HIGH && bytes.length >= OPTION_HEADER) {
      return this.#changeOptionReply(bytes, start);
    }
    return undefined;
  }

  #changeReply(bytes: Uint8Array, start: number): Uint8Array {
    const { decisions } = this.#simulation;
    this.#isTransmission = true;
    let wrong = bytes;
    switch (decisions.choose("how to tamper", 4)) {
      case 0:
        bytes[decisions.choose("byte of the magic", 4)] = 0xff;
        this.#wrong(start, 4);
        return bytes;
      case 1:
        bytes[8 + decisions.choose("byte of the cookie", 8)] = 0xe7;
        break;
      case 2:
        // The lower half alone names the request; the upper half tells which use of it is meant.
        writeU32(bytes, 8, (readU32(bytes, 8) + 1) % 2 ** 32);
        break;
      default:
        wrong = new Uint8Array(bytes.length + HEADER);
        wrong.set(bytes.subarray(0, HEADER));
        wrong.set(bytes, HEADER);
        writeU32(wrong, 8, 0xdead);
    }
    this.#wrong(start, HEADER);
    return wrong;
  }

  #changeOptionReply(bytes: Uint8Array, start: number): Uint8Array {
    const { decisions } = this.#simulation;
    switch (decisions.choose("how to tamper", 4)) {
      case 0:
        bytes[decisions.choose("byte of the magic", 8)] = 0xff;
        break;
      case 1:
        // The answer to another option.
        writeU32(bytes, 8, 3);
        break;
      case 2:
        // Longer than any answer.
        writeU32(bytes, 16, 0x7fff_ffff);
        break;
      default:
        // A kind of answer that belongs to another option.
        writeU32(bytes, 12, NbdOptionReply.SERVER);
    }
    this.#wrong(start, OPTION_HEADER);
    return bytes;
  }

  #wrong(start: number, length: number): void {
    this.#isDone = true;
    this.#wrongUntil = start + length;
    this.#tap.wrongFrom = start;
    this.#tap.link.isTroubled = true;
    this.#simulation.sometimes("a reply was tampered with");
  }

  #arrived(length: number): void {
    const wasSeen = this.isSeen;
    this.#delivered += length;
    if (wasSeen || !this.isSeen || !this.#isTransmission) return;
    const { client, name } = this.#tap.link;
    this.#simulation.expect(client.isGone, "bad reply accepted", () => name);
  }
}
