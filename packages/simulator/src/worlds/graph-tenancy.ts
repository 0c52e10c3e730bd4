import type { PermissionName } from "@blocklayer/driver";
import { ALL_PERMISSIONS, permissionMask } from "@blocklayer/driver";
import { assert } from "@blocklayer/errors";
import { GraphGuest } from "./graph-guest.ts";
import { type ModelNode, type ModelRoot, refuseIf } from "./graph-model.ts";
import { modelAttach } from "./graph-model-steps.ts";
import type { Moves } from "./graph-moves.ts";
import { GraphResizer } from "./graph-resizer.ts";
import type { GraphSite, SiteClient } from "./graph-site.ts";
import { GraphTenant } from "./graph-tenant.ts";

const PERMS = [
  ["consistent-read", "write"],
  ["consistent-read"],
  ["consistent-read", "write", "resize"],
  ["consistent-read", "write-unchanged"],
] as const satisfies readonly [readonly PermissionName[], ...(readonly PermissionName[])[]];

const SHARES = [
  ["consistent-read", "write", "write-unchanged", "resize"],
  ["consistent-read", "write-unchanged", "resize"],
  ["consistent-read"],
  ["consistent-read", "write", "write-unchanged"],
] as const satisfies readonly [readonly PermissionName[], ...(readonly PermissionName[])[]];

/** Requests of a client that comes later. */
const REQUESTS_MAX = 12;

export interface TenancyParts {
  readonly site: GraphSite;
  readonly moves: Moves;
}

/** Clients come and go, with permissions that suit each other or not. */
export class Tenancy {
  /** What clients do by themselves. */
  readonly #work: Promise<void>[] = [];
  readonly #site: GraphSite;
  readonly #moves: Moves;
  #clientCount = 0;

  constructor({ site, moves }: TenancyParts) {
    this.#site = site;
    this.#moves = moves;
  }

  /** Plugs a new backend into a node. */
  async openBackend(
    at: ModelNode | undefined = this.#moves.pickShown(),
    requestsMax: number = REQUESTS_MAX,
  ): Promise<void> {
    if (at === undefined) return;
    const { graph, simulation } = this.#site;
    const { decisions } = simulation;
    const [number, perm, shared] = [this.#number(), this.#perms(), this.#shares()];
    const name = `guest-${number}`;
    const root = rootOf(`block device '${name}'`, false, perm, shared);
    let guest: GraphGuest | undefined;
    const isOpen = await this.#site.perform({
      name: `plug ${name} into ${at.name} (${perm.join(", ")}; shares ${shared.join(", ")})`,
      change: () => this.#attachRoot(root, "root", at),
      isDone: () => isHeldBy(this.#site, at, root.name),
      run: async () => {
        const disk = await graph.createBackend({ node: at.name, name, perm, shared });
        const mayWrite = (perm as readonly string[]).includes("write");
        guest = new GraphGuest({
          site: this.#site,
          name,
          number,
          root,
          mayWrite,
          disk: disk as unknown as GraphGuest["disk"],
        });
        this.#add(guest);
      },
    });
    assert(isOpen === (guest !== undefined), "a guest has a backend");
    const count = decisions.choose(`${name} requests`, requestsMax);
    if (guest !== undefined) this.#work.push(guest.work(count));
  }

  async closeBackend(): Promise<void> {
    const guests = this.#site.clients.filter((client) => client instanceof GraphGuest);
    const { decisions } = this.#site.simulation;
    const guest = guests[decisions.choose("guest that leaves", Math.max(1, guests.length))];
    if (guest !== undefined) await this.close(guest);
  }

  /** Plugs in the client that changes the length of its disk. */
  async openResizer(at: ModelNode): Promise<void> {
    const { graph, simulation } = this.#site;
    const number = this.#number();
    const name = `resizer-${number}`;
    const perm = ["consistent-read", "write", "resize"] as const;
    const root = rootOf(`block device '${name}'`, false, perm, SHARES[0]);
    await this.#site.perform({
      name: `plug ${name} into ${at.name}`,
      change: () => this.#attachRoot(root, "root", at),
      isDone: () => isHeldBy(this.#site, at, root.name),
      run: async () => {
        const disk = await graph.createBackend({ node: at.name, name, perm });
        const resizer = new GraphResizer({ site: this.#site, name, number, root, disk });
        this.#add(resizer);
        this.#work.push(resizer.work(simulation.decisions.choose(`${name} requests`, 12)));
      },
    });
  }

  /** Closes a backend, with requests on their way. */
  async close(guest: GraphGuest | GraphResizer): Promise<void> {
    const { edge } = guest;
    if (guest.isLeaving || edge === undefined) return;
    guest.isLeaving = true;
    await this.#site.perform({
      name: `unplug ${guest.name}`,
      change: () => this.#detachRoot(guest.root),
      isDone: () => !edge.isAttached,
      run: () => guest.disk.close(),
    });
    this.#delete(guest);
  }

  /** A job, say, holds a node. */
  async openTenant(): Promise<void> {
    const at = this.#moves.pickShown();
    if (at === undefined) return;
    const { graph, simulation } = this.#site;
    const { decisions } = simulation;
    const number = this.#number();
    const [perm, shared] = [permissionMask(this.#perms()), permissionMask(this.#shares())];
    const stays = decisions.chance("stays", 1, 2);
    const root: ModelRoot = { isRoot: true, name: `tenant-${number}`, stays, perm, shared };
    const tenant = new GraphTenant(this.#site, root.name, number, root);
    const isOpen = await this.#site.perform({
      name: `${root.name} moves into ${at.name} (${perm}/${shared}${stays ? ", to stay" : ""})`,
      change: () => this.#attachRoot(root, "main", at),
      isDone: () => isHeldBy(this.#site, at, root.name),
      run: async () => {
        const node = this.#site.node(at.name);
        tenant.edge = await graph.attachRoot(tenant, node, { name: "main", perm, shared });
        this.#add(tenant);
      },
    });
    if (isOpen) this.#work.push(tenant.work(decisions.choose(`${root.name} reads`, REQUESTS_MAX)));
  }

  async closeTenant(): Promise<void> {
    const tenants = this.#tenants();
    const { decisions } = this.#site.simulation;
    const tenant = tenants[decisions.choose("tenant that leaves", Math.max(1, tenants.length))];
    if (tenant !== undefined) await this.moveOut(tenant);
  }

  async moveOut(tenant: GraphTenant): Promise<void> {
    const { edge } = tenant;
    if (tenant.isLeaving || edge === undefined) return;
    tenant.isLeaving = true;
    await this.#site.perform({
      name: `${tenant.name} moves out`,
      change: () => this.#detachRoot(tenant.root),
      isDone: () => !edge.isAttached,
      run: () => tenant.leave(),
    });
    this.#delete(tenant);
  }

  /** A tenant wants other permissions, and gets them or keeps what he has. */
  async changePermissions(): Promise<void> {
    const tenants = this.#tenants();
    const { graph, simulation } = this.#site;
    const tenant =
      tenants[simulation.decisions.choose("tenant with wishes", Math.max(1, tenants.length))];
    const edge = tenant?.edge;
    if (tenant === undefined || edge === undefined) return;
    const { root } = tenant;
    const [perm, shared] = [permissionMask(this.#perms()), permissionMask(this.#shares())];
    await this.#site.perform({
      name: `${root.name} wants ${perm}/${shared}`,
      isAlone: true,
      change: () => {
        root.perm = perm;
        root.shared = shared;
      },
      run: () => graph.setPermissions(edge, { perm, shared }),
    });
  }

  /** Resolves when no client wants anything any more. */
  async settled(): Promise<void> {
    await Promise.all(this.#work);
  }

  /** Everybody goes. */
  async closeAll(): Promise<void> {
    for (const client of [...this.#site.clients]) {
      if (client instanceof GraphGuest || client instanceof GraphResizer) await this.close(client);
      if (client instanceof GraphTenant) await this.moveOut(client);
    }
  }

  #tenants(): GraphTenant[] {
    return this.#site.clients.filter(
      (client): client is GraphTenant => client instanceof GraphTenant && !client.isLeaving,
    );
  }

  #attachRoot(root: ModelRoot, name: string, at: ModelNode): void {
    const { model } = this.#site;
    refuseIf(model.nodes.get(at.name) !== at, `${at.name} is gone`);
    modelAttach(model, root, name, "root", at);
  }

  #detachRoot(root: ModelRoot): void {
    const { model } = this.#site;
    model.edges = model.edges.filter(({ parent }) => parent !== root);
  }

  #add(client: SiteClient): void {
    this.#site.clients.push(client);
    this.#site.replug();
  }

  #delete(client: SiteClient): void {
    const { clients } = this.#site;
    const index = clients.indexOf(client);
    if (index >= 0) clients.splice(index, 1);
  }

  #number(): number {
    this.#clientCount += 1;
    return this.#clientCount;
  }

  #perms(): readonly PermissionName[] {
    const { decisions } = this.#site.simulation;
    return PERMS[decisions.weighted("permissions", [4, 2, 1, 1])] ?? PERMS[0];
  }

  #shares(): readonly PermissionName[] {
    const { decisions } = this.#site.simulation;
    return SHARES[decisions.weighted("shares", [6, 1, 1, 2])] ?? SHARES[0];
  }
}

function rootOf(
  name: string,
  stays: boolean,
  perm: readonly PermissionName[],
  shared: readonly PermissionName[],
): ModelRoot {
  const mask = permissionMask(shared);
  return { isRoot: true, name, stays, perm: permissionMask(perm), shared: mask & ALL_PERMISSIONS };
}

function isHeldBy({ graph }: GraphSite, at: ModelNode, name: string): boolean {
  const parents = graph.findNode(at.name)?.parents ?? [];
  return [...parents].some(({ parent }) => parent.describe() === name);
}
