import { type DriverDefinition, defineDriver, FilterDriver, Role } from "@blocklayer/driver";
import { object } from "@blocklayer/schema";

/** Nothing but `FilterDriver`: the layer that proves a layer does not know it is not the last. */
export class PassThroughFilter extends FilterDriver {
  readonly driverName: string = "x-blocklayer-pass-through";
}

/** {@link PassThroughFilter} for a graph, over its child `file`, under the name `x-blocklayer-pass-through`. */
export const passThrough: DriverDefinition<
  "x-blocklayer-pass-through",
  Readonly<Record<never, never>>,
  "file"
> = defineDriver({
  driverName: "x-blocklayer-pass-through",
  schema: object({}),
  children: [{ name: "file", role: Role.filtered | Role.primary, required: true }],
  isFilter: true,
  isProtocol: false,
  supportsBacking: false,
  open: async (host) =>
    new PassThroughFilter(await host.openChild("file", Role.filtered | Role.primary)),
});
