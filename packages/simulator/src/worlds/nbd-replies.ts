import { BlockError } from "@blocklayer/errors";
import { NbdCommand, type NbdReply, ReplyReader } from "@blocklayer/nbd-protocol";
import type { Decisions } from "../decisions.ts";
import { sameBytes } from "../disk/same-bytes.ts";
import type { Simulation, World } from "../simulation.ts";
import { CONTEXTS, chunksOf, drawRequest, type ModelRequest } from "./nbd-replies-plan.ts";

/** What memory of a chunk holds once it may be used again. */
const POISON = 0xbd;

/**
 * Structured and extended replies at a client: several requests are answered at once, their chunks mixed and cut
 * anywhere. A model of a server tiles reads with data and holes, tells the status of contexts, and now and then
 * gets one thing wrong. What is right must come out as it was said, and what is wrong must not come out at all.
 *
 * @see docs/reliability.md section 3.2, NS-4, NS-5 and NC-1
 */
export const nbdRepliesWorld: World = {
  name: "nbd-replies",
  situations: ["a read came in pieces", "a status came", "an error came", "a fault was noticed"],
  run: (simulation) => new RepliesLife(simulation).live(),
};

class RepliesLife {
  readonly #simulation: Simulation;
  readonly #decisions: Decisions;
  readonly #extended: boolean;
  readonly #reader: ReplyReader<ModelRequest>;
  readonly #requests: ModelRequest[] = [];
  readonly #buffers = new Map<ModelRequest, Uint8Array>();
  readonly #answered = new Set<ModelRequest>();

  constructor(simulation: Simulation) {
    const { decisions } = simulation;
    this.#simulation = simulation;
    this.#decisions = decisions;
    this.#extended = decisions.chance("extended", 1, 2);
    this.#reader = new ReplyReader({ mode: this.#extended ? "extended" : "structured" });
  }

  async live(): Promise<void> {
    const { scheduler } = this.#simulation;
    await scheduler.turn("replies");
    this.#draw();
    const stream = this.#stream();
    for (let at = 0; at < stream.length; ) {
      const length = Math.min(1 + this.#decisions.choose("bytes", 120), stream.length - at);
      if (!this.#push(stream.slice(at, at + length))) return;
      at += length;
    }
    const { pending } = this.#reader;
    const isFaulty = this.#requests.some(({ fault }) => this.#isFault(fault));
    this.#simulation.expect(!isFaulty, "fault not noticed", () => this.#faults());
    this.#simulation.expect(pending === 0, "not answered", () => `${pending} requests`);
  }

  #draw(): void {
    for (let cookie = this.#decisions.choose("requests", 4); cookie >= 0; cookie -= 1) {
      const isFirst = this.#requests.length === 0;
      const request = drawRequest(this.#decisions, cookie, isFirst);
      const { type, flags, offset, length } = request;
      const isRead = type === NbdCommand.READ;
      const buffer = new Uint8Array(isRead ? length : 0).fill(POISON);
      this.#requests.push(request);
      this.#buffers.set(request, buffer);
      const expected = { type, flags, offset, length, buffer, tag: request };
      this.#reader.expect(9, cookie, isRead ? expected : { ...expected, contextIds: CONTEXTS });
    }
  }

  /** All chunks, those of one reply in order. */
  #stream(): Uint8Array {
    const replies = this.#requests.map((one) => chunksOf(this.#decisions, one, this.#extended));
    const bytes: number[] = [];
    for (;;) {
      const open = replies.filter((chunks) => chunks.length > 0);
      const next = open[open.length === 0 ? 0 : this.#decisions.choose("whose", open.length)];
      const chunk = next?.shift();
      if (chunk === undefined) return Uint8Array.from(bytes);
      bytes.push(...chunk);
    }
  }

  /** @returns whether the connection goes on */
  #push(chunk: Uint8Array): boolean {
    try {
      this.#reader.push(chunk);
      for (let reply = this.#reader.next(); reply !== undefined; reply = this.#reader.next()) {
        this.#judge(reply);
      }
      chunk.fill(POISON);
      return true;
    } catch (error) {
      const isExpected = this.#requests.some(({ fault }) => this.#isFault(fault));
      const isOurs = error instanceof BlockError && error.code === "EPROTO";
      if (!isOurs) throw error;
      this.#simulation.expect(isExpected, "good reply refused", () => String(error));
      this.#simulation.sometimes("a fault was noticed");
      return false;
    }
  }

  #judge({ tag, error, statuses }: NbdReply<ModelRequest>): void {
    const { simulation } = { simulation: this.#simulation };
    const what = (): string => `request ${tag.cookie}, fault ${tag.fault}`;
    simulation.expect(!this.#answered.has(tag), "answered twice", what);
    simulation.expect(!this.#isFault(tag.fault), "fault not noticed", what);
    simulation.expect(error === tag.error, "other error", what);
    this.#answered.add(tag);
    if (error !== 0) {
      simulation.sometimes("an error came");
    } else if (tag.type === NbdCommand.READ) {
      const buffer = this.#buffers.get(tag) as Uint8Array;
      simulation.expect(sameBytes(buffer, tag.data), "wrong data", what);
      simulation.sometimes("a read came in pieces");
    } else {
      const wanted = CONTEXTS.map((contextId, index) => ({
        contextId,
        extents: tag.extents[index],
      }));
      const isSame = JSON.stringify(statuses) === JSON.stringify(wanted);
      simulation.expect(isSame, "wrong extents", () => `${what()}: ${JSON.stringify(statuses)}`);
      simulation.sometimes("a status came");
    }
  }

  /** Only extended replies tell the offset again. */
  #isFault(fault: ModelRequest["fault"]): boolean {
    return fault !== "none" && (fault !== "other offset" || this.#extended);
  }

  #faults(): string {
    return this.#requests.map(({ fault }) => fault).join(", ");
  }
}
