import type { BlockJob } from "@blocklayer/block-job";
import { ALL_PERMISSIONS, Permissions } from "@blocklayer/driver";
import { BlockError } from "@blocklayer/errors";
import { JobStartStep } from "@blocklayer/jobs";
import { describe, expect, it } from "vitest";
import { failure, IdleDriver, Rig } from "./job-rig.ts";

const UNSHARED_WRITE = ALL_PERMISSIONS - Permissions.write;

describe("the id of a block job", () => {
  it("is the name of a backend of its main node", async () => {
    const rig = new Rig();
    const mainNode = await rig.disk("disk");
    await rig.graph.createBackend({ node: mainNode, perm: ["consistent-read"] });
    await rig.graph.createBackend({ node: mainNode, name: "drive0", perm: ["consistent-read"] });
    const options = { type: "stream", driver: new IdleDriver(), mainNode };
    expect((await rig.blockJobs.create(options)).job.id).toBe("drive0");
    expect(await failure(() => rig.blockJobs.create(options))).toMatchObject({
      code: "EEXIST",
      message: "Job ID 'drive0' already in use",
    });
  });

  it.each(["no main node", "a main node without a backend"])("is missing with %s", async (how) => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const mainNode = how === "no main node" ? {} : { mainNode: node };
    const call = (): unknown =>
      rig.blockJobs.create({ type: "stream", driver: new IdleDriver(), ...mainNode });
    expect(await failure(call)).toMatchObject({
      code: "EINVAL",
      message: "Invalid job ID ''",
      hint: "an explicit job ID is required",
      context: how === "no main node" ? {} : { node: "disk" },
    });
  });

  it.each(["", "0a", "_x", "-x", ".x", "#x", "a b"])("is not '%s'", async (id) => {
    const error = await failure(() => new Rig().create({ id }));
    expect(error).toMatchObject({ code: "EINVAL", message: `Invalid job ID '${id}'` });
  });

  it("is not there for an internal job, which no query shows", async () => {
    const rig = new Rig();
    const blockJob = await rig.create({ isInternal: true });
    expect(blockJob.job.id).toBeUndefined();
    expect(rig.blockJobs.query()).toEqual([]);
    expect(rig.blockJobs.list()).toEqual([blockJob]);
    expect(rig.events).toEqual([]);
    expect(blockJob.describe()).toBe("backup job ''");
  });
});

describe("creating a block job", () => {
  it.each([
    { fault: "speed", code: "EINVAL", message: "Parameter 'speed' expects a non-negative value" },
    { fault: "node", code: "EPERM", message: /^Permission conflict on node 'second'/ },
  ])("that fails for its $fault leaves nothing behind", async ({ fault, code, message }) => {
    const rig = new Rig();
    const [first, second] = [await rig.disk("first"), await rig.disk("second")];
    await rig.graph.createBackend({ node: second, perm: ["write"] });
    const call = (): unknown =>
      rig.create({
        speed: fault === "speed" ? -1 : 0,
        nodes: [
          { name: "main node", node: first },
          { name: "target", node: second, shared: UNSHARED_WRITE },
        ],
      });
    const error = await failure(call);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(rig.events).toEqual(["S:created", "S:null"]);
    expect([rig.blockJobs.list(), rig.jobs.list(), rig.defects]).toEqual([[], [], []]);
    expect([first.parents.size, second.parents.size]).toEqual([0, 1]);
    first.checkOperation("resize");
    await rig.create();
  });

  it("that another one conflicts with names both", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const nodes = [
      { name: "main node", node, perm: Permissions.consistentRead, shared: UNSHARED_WRITE },
    ];
    await rig.create({ nodes });
    const error = await failure(() =>
      rig.create({
        id: "other",
        type: "mirror",
        nodes: [{ name: "target", node, perm: Permissions.write }],
      }),
    );
    expect(error.message).toBe(
      "Permission conflict on node 'disk': permissions 'write' are both required by mirror job 'other' (uses node 'disk' as 'target' child) and unshared by backup job 'job0' (uses node 'disk' as 'main node' child).",
    );
  });

  it("is a step of a transaction", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const nodes = [{ name: "main node", node }];
    const step = new JobStartStep(async () => (await rig.create({ nodes })).job);
    await rig.graph.change([step]);
    expect(step.job?.isStarted).toBe(true);
    const other = new JobStartStep(async () => (await rig.create({ id: "two", nodes })).job);
    const refuse = {
      prepare: () => {
        throw new BlockError("EIO", "refused");
      },
    };
    await failure(() => rig.graph.change([other, refuse]));
    await rig.settle();
    expect(rig.blockJobs.list().map(({ job }) => job.id)).toEqual(["job0"]);
    expect(node.parents.size).toBe(1);
  });
});

describe("a node of a job", () => {
  it("is closed to management commands until the job lets go", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const blockJob = await rig.create();
    const edge = await blockJob.addNode("main node", node, { allow: ["backup-source"] });
    expect(await failure(() => node.checkOperation("resize"))).toMatchObject({
      code: "EBUSY",
      message: "Node 'disk' is busy: block device is in use by block job: backup",
    });
    node.checkOperation("backup-source");
    expect((await failure(() => rig.graph.remove("disk"))).message).toBe(
      "Node 'disk' is busy: block device is in use by block job: backup",
    );
    const other = await rig.create({ id: "other", nodes: [{ name: "main node", node }] });
    await blockJob.removeNode(edge);
    await blockJob.removeNode(edge);
    expect((await failure(() => node.checkOperation("backup-source"))).code).toBe("EBUSY");
    await other.removeAllNodes();
    node.checkOperation("resize");
    await rig.graph.remove("disk");
  });

  it("is the door for the job's requests", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const blockJob = await rig.create();
    const edge = await blockJob.addNode("target", node, { perm: Permissions.write });
    expect(edge).toMatchObject({ name: "target", perm: Permissions.write, parent: blockJob });
    expect(blockJob.nodes).toMatchObject([{ name: "target", edge }]);
    await edge.pwrite(0, new Uint8Array(512).fill(3));
    expect(node.io.inFlight).toBe(0);
  });

  it("stays the job's when another is put in its place", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const backend = await rig.graph.createBackend({ node, perm: ["write"] });
    const blockJob = await rig.create({ nodes: [{ name: "main node", node }] });
    const filter = await rig.filter("filter", "disk");
    await rig.graph.change([rig.graph.replaceNode(node, filter)]);
    expect(blockJob.nodes[0]?.edge.node).toBe(node);
    expect((backend as unknown as { node: unknown }).node).toBe(filter);
  });

  it("closes with the job when nobody else holds it, and its faults are told", async () => {
    const rig = new Rig();
    const driver = new IdleDriver();
    const blockJob = await rig.create({ driver });
    for (const name of ["one", "two"]) {
      const node = await rig.scriptedDisk(name);
      await blockJob.addNode(name, node, { perm: Permissions.write });
      node.isOwned = false;
      node.io.writeGeneration += 1;
      rig.scripted.instance(name).failNth("flush", 1, "EIO", { persistent: true });
    }
    blockJob.job.start();
    await rig.settle();
    driver.finish();
    expect(await blockJob.job.completed()).toBeUndefined();
    expect(rig.graph.nodes()).toEqual([]);
    expect(blockJob.nodes).toEqual([]);
    expect(rig.defects.map((defect) => (defect as BlockError).code)).toEqual(["EIO"]);
  });

  it("is given back when the job is given up without a word to its keeper", async () => {
    const rig = new Rig();
    const node = await rig.scriptedDisk("disk");
    const blockJob = await rig.create({
      nodes: [{ name: "main node", node, perm: Permissions.write }],
    });
    node.isOwned = false;
    node.io.writeGeneration += 1;
    rig.scripted.instance("disk").failNth("flush");
    blockJob.job.failEarly();
    await rig.settle();
    expect(rig.graph.nodes()).toEqual([]);
    expect(rig.log).toEqual([expect.stringMatching(/^backup job 'job0': BlockError: /)]);
    expect(rig.blockJobs.list()).toEqual([]);
  });

  it("is given back before the job's end is told", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const driver = new IdleDriver();
    const blockJob = await rig.create({ driver, nodes: [{ name: "main node", node }] });
    const parents: number[] = [];
    rig.jobs.events.on("completed", () => parents.push(node.parents.size));
    blockJob.job.start();
    await rig.settle();
    driver.finish();
    await blockJob.job.completed();
    expect(parents).toEqual([0]);
  });

  it.each([1, 2])("is given back when the job is cancelled while it takes node %i", async (nth) => {
    const rig = new Rig();
    const source = await rig.disk("disk");
    const target = await rig.disk("target");
    const attach = rig.graph.attachRoot.bind(rig.graph);
    let calls = 0;
    rig.graph.attachRoot = async (...args) => {
      calls += 1;
      // The job is gone when it gets the node.
      if (calls === nth) await rig.jobs.get("job0").cancelAndWait();
      return attach(...args);
    };
    await expect(rig.copy(source, target)).rejects.toMatchObject({ code: "ECANCELED" });
    await rig.settle();
    expect([source.parents.size, target.parents.size]).toEqual([0, 0]);
    expect([rig.jobs.list(), rig.blockJobs.list(), rig.defects]).toEqual([[], [], []]);
    source.checkOperation("backup-source");
  });

  it("is given back when the next one can not be taken and the job was cancelled meanwhile", async () => {
    const rig = new Rig();
    const source = await rig.disk("disk");
    const attach = rig.graph.attachRoot.bind(rig.graph);
    rig.graph.attachRoot = (parent, node, options) => {
      if (options.name === "main node") return attach(parent, node, options);
      rig.jobs.get("job0").cancel();
      return Promise.reject(new BlockError("EPERM", "conflict"));
    };
    await expect(rig.copy(source, source)).rejects.toMatchObject({ code: "EPERM" });
    await rig.settle();
    expect([source.parents.size, rig.jobs.list(), rig.defects]).toEqual([0, [], []]);
  });

  it("is given back when a job is cancelled before it was started", async () => {
    const rig = new Rig();
    const node = await rig.disk("disk");
    const blockJob = await rig.create({ nodes: [{ name: "main node", node }] });
    await blockJob.job.cancelAndWait({ force: true });
    expect([node.parents.size, rig.blockJobs.list()]).toEqual([0, []]);
  });
});

describe("finding block jobs", () => {
  it("is done by id, and lists them newest first", async () => {
    const rig = new Rig();
    const old = await rig.create({ id: "old" });
    const young = await rig.create({ id: "young", speed: 1000 });
    rig.jobs.create({ id: "plain", type: "create", driver: { run: () => Promise.resolve() } });
    expect(rig.blockJobs.list()).toEqual([young, old]);
    expect(rig.blockJobs.get("old")).toBe(old);
    expect(rig.blockJobs.find("plain")).toBeUndefined();
    expect(await failure(() => rig.blockJobs.get("plain"))).toMatchObject({
      code: "ENOENT",
      message: "Block job 'plain' not found",
      errorClass: "DeviceNotActive",
      context: { job: "plain" },
    });
    const row = {
      type: "backup",
      len: 0,
      offset: 0,
      busy: false,
      paused: true,
      ready: false,
      status: "created",
      autoFinalize: true,
      autoDismiss: true,
      ioStatus: "ok",
    };
    expect(rig.blockJobs.query()).toEqual([
      { ...row, device: "young", speed: 1000 },
      { ...row, device: "old", speed: 0 },
    ]);
  });
});

describe("a driver", () => {
  it("without cancel and complete has none", async () => {
    const rig = new Rig();
    const driver = new IdleDriver();
    const { job } = await rig.create({ driver });
    job.start();
    job.setReady();
    expect((await failure(() => job.complete())).code).toBe("EBUSY");
    job.cancel();
    expect(job.isCancelled).toBe(true);
    expect((await job.completed())?.code).toBe("ECANCELED");
  });

  it("is asked whatever it answers to", async () => {
    const rig = new Rig();
    const calls: string[] = [];
    const idle = new IdleDriver();
    const note = (what: string) => (): void => void calls.push(what);
    const { job } = await rig.create({
      driver: {
        run: async (blockJob: BlockJob) => {
          blockJob.job.setReady();
          await idle.run(blockJob);
        },
        pause: note("pause"),
        resume: note("resume"),
        userResume: note("userResume"),
        setSpeed: (speed) => calls.push(`setSpeed ${speed}`),
        cancel: (force) => {
          calls.push(`cancel ${force}`);
          return false;
        },
        complete: note("complete"),
        prepare: note("prepare"),
        commit: note("commit"),
        abort: note("abort"),
        clean: note("clean"),
        free: note("free"),
      },
    });
    job.start();
    await rig.settle();
    job.pause();
    await rig.settle();
    job.setSpeed(5);
    job.resume();
    await rig.settle();
    job.cancel();
    idle.finish();
    await job.completed();
    expect(calls).toEqual([
      "pause",
      "setSpeed 5",
      "userResume",
      "resume",
      "cancel false",
      "prepare",
      "commit",
      "clean",
      "free",
    ]);
  });

  it("completes when told", async () => {
    const rig = new Rig();
    const idle = new IdleDriver();
    const { job } = await rig.create({
      driver: { run: (blockJob) => idle.run(blockJob), complete: () => idle.finish() },
    });
    job.start();
    job.setReady();
    await rig.settle();
    await job.complete();
    expect(await job.completed()).toBeUndefined();
  });
});
