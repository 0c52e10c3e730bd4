import { type DriverDefinition, defineDriver, FilterDriver, Role } from "@blocklayer/driver";
import { object, type Schema } from "@blocklayer/schema";

/** A filter that changes nothing: something else that stands in a chain. */
export class SimulatedFilter extends FilterDriver {
  readonly driverName: string = "x-blocklayer-simulated-filter";
}

const schema: Schema<object> = object({});

/** The driver `x-blocklayer-simulated-filter`, over its child `file`. */
export const simulatedFilter: DriverDefinition<"x-blocklayer-simulated-filter", object, "file"> =
  defineDriver({
    driverName: "x-blocklayer-simulated-filter",
    schema,
    children: [{ name: "file", role: Role.filtered | Role.primary, required: true }],
    isFilter: true,
    isProtocol: false,
    supportsBacking: false,
    open: async (host) =>
      new SimulatedFilter(await host.openChild("file", Role.filtered | Role.primary)),
  });
