import type { ByteReceiver, ByteStream } from "@blocklayer/nbd-protocol";
import type { Decisions } from "../decisions.ts";
import { Inbox, type Loss } from "./inbox.ts";
import type { SimulatedProcess } from "./simulated-process.ts";
import { UnfinishedWrite } from "./unfinished-write.ts";

/** How the network treats a connection. */
export interface LinkBehaviour {
  /** Bytes that are under way in one direction before `write` is not taken any more. */
  readonly capacity: number;
  /** Of 16 deliveries, how many bring a part of what is there; its end may lie anywhere. */
  readonly splits: number;
  /** Milliseconds that a delivery takes at most. */
  readonly delayMs: number;
}

/** What a stream needs of its world. */
export interface StreamHost {
  /** As it is now. */
  readonly behaviour: () => LinkBehaviour;
  readonly decisions: Decisions;
  readonly post: (tag: string, deliver: () => void, delayMs?: number) => void;
  /** Told of a rule of the contract that the code above has broken. */
  readonly report: (kind: string, message: string) => void;
}

export interface StreamOptions {
  readonly name: string;
  readonly address?: string;
  readonly process: SimulatedProcess;
  /** Bytes are read into the receiver's memory, as sockets do; otherwise they arrive in memory of the transport. */
  readonly lends: boolean;
}

const KIND = "stream misused";
/** What memory is filled with before a read: whoever still looks at what the last one left there is found out. */
const POISON = 0xbd;
/** Bytes behind the end of a read that are poisoned too. */
const POISON_MORE = 64;

/**
 * One end of a simulated connection. It keeps to the contract of byte streams, and reports whoever above it does not.
 *
 * Every call of the receiver is a completion of its own, so it never comes within a call of the stream.
 */
export class SimulatedStream implements ByteStream {
  readonly peer: string;
  readonly address?: string;
  readonly inbox: Inbox = new Inbox();
  /** Sees bytes on their way out, in order, and may change them. Called once for each byte. */
  onSend: ((bytes: Uint8Array) => Uint8Array) | undefined;
  /** Sees bytes just before and just after the receiver does. */
  onDeliver: ((bytes: Uint8Array, isOver: boolean) => void) | undefined;
  /** This end is gone: destroyed, or told so. Called once. */
  onGone: (() => void) | undefined;
  /** What this end sends does not arrive for now. */
  isBlocked: boolean = false;
  readonly #host: StreamHost;
  readonly #options: StreamOptions;
  #other: SimulatedStream | undefined;
  #receiver: ByteReceiver | undefined;
  #unfinished: UnfinishedWrite | undefined;
  #isPaused: boolean = false;
  #isDeliveryDue: boolean = false;
  #isCalling: boolean = false;
  #isEndWanted: boolean = false;
  #isEndDelivered: boolean = false;
  #isGone: boolean = false;
  #isClosed: boolean = false;

  constructor(host: StreamHost, options: StreamOptions) {
    this.#host = host;
    this.#options = options;
    this.peer = options.name;
    if (options.address !== undefined) this.address = options.address;
  }

  /** Whether nothing is delivered or sent any more. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Whether it has sent its end. */
  get isEndSent(): boolean {
    return this.#isEndWanted && this.#unfinished === undefined;
  }

  /** For the link. */
  connect(other: SimulatedStream): void {
    this.#other = other;
  }

  start(receiver: ByteReceiver): void {
    if (this.#receiver !== undefined) this.#misused("started twice");
    this.#receiver = receiver;
    this.deliverSoon();
  }

  pause(): void {
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.deliverSoon();
  }

  write(chunks: readonly Uint8Array[]): boolean {
    if (this.#isClosed) this.#misused("written to after closed");
    if (this.#isEndWanted) this.#misused("written to after its end");
    if (this.#unfinished !== undefined)
      this.#misused("written to before the last write was drained");
    if (this.#isGone) return false;
    const changed = (): void => this.#misused("memory of an unfinished write changed");
    this.#unfinished = new UnfinishedWrite(chunks, changed);
    const isTaken = this.#send();
    // A write shows the sender that nobody is there.
    if (this.inbox.loss !== undefined) this.lose({ ...this.inbox.loss, isLoud: true });
    return isTaken;
  }

  soon(callback: () => void): void {
    this.#post("soon", callback);
  }

  end(): void {
    if (this.#isClosed) this.#misused("ended after closed");
    if (this.#isEndWanted || this.#isGone) return;
    this.#isEndWanted = true;
    this.#passEnd();
  }

  destroy(): void {
    if (this.#isGone) return;
    this.#leave();
    this.#other?.abandoned();
    this.#closeSoon(undefined);
  }

  /** The other end was destroyed: what is on its way may still arrive, then an end or a reset. */
  abandoned(): void {
    if (this.#isGone) return;
    const { decisions } = this.#host;
    this.#loseBytes();
    const isReset = decisions.chance(`${this.peer} is reset`, 1, 3);
    if (!isReset) this.inbox.isEnded = true;
    const error = new Error("connection reset by peer");
    // After an end only a write shows that the other side does not read either.
    this.lose({ error, isLoud: isReset || this.#unfinished !== undefined || this.#isEndWanted });
  }

  /** The network cuts this end: some of what is on its way may still arrive. */
  cut(error: unknown, isLoud: boolean): void {
    if (this.#isGone) return;
    this.#loseBytes();
    this.lose({ error, isLoud });
  }

  /** This end learns that the connection is lost, when it has read what is on its way. */
  lose(loss: Loss): void {
    if (this.#isGone) return;
    this.inbox.loss = loss;
    this.deliverSoon();
  }

  /** The machine is dead: this end does and hears nothing more. */
  vanish(): void {
    if (!this.#isGone) this.#leave();
  }

  /** Delivers what there is, if it may, at a time that the scheduler chooses. */
  deliverSoon(): void {
    if (this.#isDeliveryDue || this.#nextThing() === undefined) return;
    this.#isDeliveryDue = true;
    const { name } = this.#options;
    const { decisions } = this.#host;
    const { delayMs } = this.#host.behaviour();
    const isLate = delayMs > 0 && decisions.chance(`${name} late`, 1, 4);
    this.#post(
      "net",
      () => {
        this.#isDeliveryDue = false;
        this.#deliver();
      },
      isLate ? 1 + decisions.choose(`${name} delay`, delayMs) : 0,
    );
  }

  /** Room has been made on the way, or the way is open again. */
  wakeSender(): void {
    if (this.#isGone || !this.#send()) return;
    this.#post("drained", () => {
      if (!this.#isGone) this.#receiver?.drained();
    });
    this.#passEnd();
  }

  #deliver(): void {
    if (this.#isCalling) return;
    this.#isCalling = true;
    switch (this.#nextThing()) {
      case "bytes":
        this.#deliverBytes();
        break;
      case "end":
        this.#isEndDelivered = true;
        this.#receiver?.ended();
        this.#passEnd();
        break;
      case "loss":
        this.#leave();
        this.#closeSoon(this.inbox.loss?.error);
        break;
      case undefined:
        break;
    }
    this.#isCalling = false;
    this.deliverSoon();
  }

  #nextThing(): "bytes" | "end" | "loss" | undefined {
    if (this.#receiver === undefined || this.#isGone) return undefined;
    const { inbox } = this;
    if (this.#other?.isBlocked === true) return undefined;
    const isLoud = inbox.loss?.isLoud === true;
    if (this.#isPaused) return isLoud ? "loss" : undefined;
    if (inbox.length > 0) return "bytes";
    if (inbox.isEnded && !this.#isEndDelivered) return "end";
    return inbox.loss !== undefined && (isLoud || !inbox.isEnded) ? "loss" : undefined;
  }

  #deliverBytes(): void {
    const receiver = this.#receiver as ByteReceiver;
    let length = this.#pieceLength();
    let memory: Uint8Array | undefined;
    if (this.#options.lends) {
      memory = receiver.buffer();
      length = Math.min(length, memory.length);
      if (length === 0) this.#misused("lent no memory");
    }
    const bytes = this.inbox.take(length);
    memory?.fill(POISON, 0, length + POISON_MORE);
    memory?.set(bytes);
    this.onDeliver?.(bytes, false);
    receiver.data(memory === undefined ? bytes.slice() : memory.subarray(0, length));
    this.onDeliver?.(bytes, true);
    this.#other?.wakeSender();
  }

  #pieceLength(): number {
    const { decisions } = this.#host;
    const { name } = this.#options;
    const { splits } = this.#host.behaviour();
    const { length } = this.inbox;
    if (splits === 0 || length === 1 || !decisions.chance(`${name} splits`, splits, 16)) {
      return length;
    }
    const bound = decisions.chance(`${name} splits early`, 1, 2) ? Math.min(40, length) : length;
    return length - decisions.choose(`${name} part`, bound);
  }

  /** Moves what fits from the unfinished write to the other end. @returns whether that was all */
  #send(): boolean {
    const unfinished = this.#unfinished;
    const other = this.#other;
    if (unfinished === undefined || other === undefined) return false;
    const room = Math.max(this.#host.behaviour().capacity - other.inbox.length, 0);
    // What is sent to a side that is gone gets lost.
    const isLost = other.isGone || other.inbox.loss !== undefined || this.inbox.loss !== undefined;
    const sent = unfinished.take(isLost ? Number.MAX_SAFE_INTEGER : room);
    if (sent.length > 0) {
      const bytes = this.onSend?.(sent) ?? sent;
      if (!isLost) other.inbox.push(bytes);
      other.deliverSoon();
    }
    if (!unfinished.isDone) return false;
    this.#unfinished = undefined;
    return true;
  }

  #passEnd(): void {
    if (!this.#isEndWanted || this.#unfinished !== undefined || this.#isGone) return;
    const other = this.#other as SimulatedStream;
    other.inbox.isEnded = true;
    other.deliverSoon();
    if (this.#isEndDelivered) {
      this.#leave();
      this.#closeSoon(undefined);
    } else if (this.inbox.loss !== undefined) {
      this.lose({ ...this.inbox.loss, isLoud: true });
    }
  }

  #loseBytes(): void {
    const { decisions } = this.#host;
    const { length } = this.inbox;
    const lost = decisions.chance(`${this.peer} loses bytes`, 1, 2)
      ? 1 + decisions.choose(`${this.peer} lost bytes`, length + 1)
      : 0;
    this.inbox.truncate(Math.max(0, length - lost));
  }

  #leave(): void {
    this.#isGone = true;
    this.#unfinished = undefined;
    this.inbox.truncate(0);
    this.onGone?.();
  }

  #closeSoon(error: unknown): void {
    this.#post("closed", () => {
      this.#isClosed = true;
      this.#receiver?.closed(error);
    });
  }

  #post(what: string, callback: () => void, delayMs: number = 0): void {
    const { name, process } = this.#options;
    this.#host.post(`${what} ${name}`, () => process.deliver(callback), delayMs);
  }

  #misused(what: string): void {
    this.#host.report(KIND, `${this.#options.name}: ${what}`);
  }
}
