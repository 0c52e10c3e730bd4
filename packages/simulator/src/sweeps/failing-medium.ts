import { rejected } from "@blocklayer/driver";
import { Medium, type MediumOptions } from "../disk/medium.ts";
import type { FaultPlan, SweptOperation } from "./fault-plan.ts";

/** A simulated medium whose requests fail as a plan says; a write that fails has been done by half. */
export class FailingMedium extends Medium {
  readonly #plan: FaultPlan;

  constructor(options: MediumOptions, plan: FaultPlan) {
    super(options);
    this.#plan = plan;
  }

  override read(offset: number, buffer: Uint8Array): Promise<void> {
    return this.#do("read", () => super.read(offset, buffer));
  }

  override async write(offset: number, buffer: Uint8Array, fua: boolean): Promise<void> {
    const half = buffer.subarray(0, Math.floor(buffer.length / 1024) * 512);
    const error = this.#plan.strike(this.name, "write");
    await super.write(offset, error === undefined ? buffer : half, fua);
    if (error !== undefined) throw error;
  }

  override zero(offset: number, length: number, unmaps: boolean, fua: boolean): Promise<void> {
    return this.#do("zeroes", () => super.zero(offset, length, unmaps, fua));
  }

  override discard(offset: number, length: number): Promise<void> {
    return this.#do("discard", () => super.discard(offset, length));
  }

  override flush(): Promise<void> {
    return this.#do("flush", () => super.flush());
  }

  override status(offset: number, length: number, unit: number): ReturnType<Medium["status"]> {
    const error = this.#plan.strike(this.name, "status");
    return error === undefined ? super.status(offset, length, unit) : rejected(error);
  }

  #do(operation: SweptOperation, work: () => Promise<void>): Promise<void> {
    const error = this.#plan.strike(this.name, operation);
    return error === undefined ? work() : rejected(error);
  }
}
