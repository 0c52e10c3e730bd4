import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { makeDisk } from "../disk.ts";
import { fio } from "../fio.ts";
import { type BenchSettings, interleave, type Row } from "../row.ts";
import { isInstalled, socketReady } from "../workplace.ts";

const run = promisify(execFile);
const GIB = 2 ** 30;

type Contestant = "ours" | "nbdkit" | "qemu-nbd";

/** Servers of the same page-cached 1 GiB raw disk, each on a unix socket of its own. */
async function withServers(
  { workplace }: BenchSettings,
  measure: (sockets: Readonly<Partial<Record<Contestant, string>>>) => Promise<Row[]>,
): Promise<Row[]> {
  const folder = workplace.folder("disk");
  const disk = join(folder, "disk.raw");
  makeDisk(disk, GIB);
  const sockets: Partial<Record<Contestant, string>> = { ours: join(folder, "ours.sock") };
  const children = [workplace.startOwn("serve-disk.ts", [disk, join(folder, "ours.sock")])];
  if (isInstalled("nbdkit")) {
    const socket = join(folder, "nbdkit.sock");
    sockets.nbdkit = socket;
    children.push(workplace.start("nbdkit", ["-f", "-U", socket, "file", disk]));
  }
  if (isInstalled("qemu-nbd")) {
    const socket = join(folder, "qemu.sock");
    sockets["qemu-nbd"] = socket;
    children.push(
      workplace.start("qemu-nbd", [
        "-t",
        "-k",
        socket,
        "--image-opts",
        `driver=raw,file.driver=file,file.filename=${disk},file.locking=off`,
      ]),
    );
  }
  try {
    for (const socket of Object.values(sockets)) await socketReady(socket);
    return await measure(sockets);
  } finally {
    for (const child of children) await workplace.stop(child);
  }
}

function uriOf(socket: string): string {
  return `nbd+unix:///?socket=${socket}`;
}

function turns(
  sockets: Readonly<Partial<Record<Contestant, string>>>,
  turn: (socket: string) => Promise<number>,
): Record<Contestant, () => Promise<number>> {
  return Object.fromEntries(
    Object.entries(sockets).map(([name, socket]) => [name, () => turn(socket)]),
  ) as Record<Contestant, () => Promise<number>>;
}

/** A row against one peer: `ours / peer` must reach `goal`. */
function against(
  what: string,
  figures: Partial<Record<Contestant, number>>,
  peer: Contestant,
  goal: number,
): Row {
  const ours = figures.ours ?? Number.NaN;
  const theirs = figures[peer];
  const text = (figure: number): string => `${Math.round(figure)} requests/s`;
  if (theirs === undefined)
    return { what, ours: text(ours), goal: `>= ${goal} x ${peer}`, isMet: undefined };
  const ratio = ours / theirs;
  return {
    what,
    ours: text(ours),
    peer: `${peer} ${text(theirs)}`,
    ratio,
    goal: `>= ${goal}`,
    isMet: ratio >= goal,
  };
}

/** 4 KiB random reads at queue depth 32. */
export function randomRead(settings: BenchSettings): Promise<Row[]> {
  return random(settings, "randread", { nbdkit: 1.4, "qemu-nbd": 3.5 });
}

/** 4 KiB random writes at queue depth 32. */
export function randomWrite(settings: BenchSettings): Promise<Row[]> {
  return random(settings, "randwrite", { nbdkit: 1.1 });
}

/** One kind of request against each peer that has a goal. */
function random(
  settings: BenchSettings,
  kind: "randread" | "randwrite",
  goals: Readonly<Partial<Record<Contestant, number>>>,
): Promise<Row[]> {
  const { rounds, seconds } = settings;
  return withServers(settings, async (sockets) => {
    const figures = await interleave(
      rounds,
      turns(sockets, (socket) =>
        fio({ uri: uriOf(socket), kind, queueDepth: 32, seconds, size: GIB }),
      ),
    );
    const what = `4 KiB random ${kind === "randread" ? "read" : "write"}, QD 32`;
    return Object.entries(goals).map(([peer, goal]) =>
      against(what, figures, peer as Contestant, goal),
    );
  });
}

/** The whole disk by nbdcopy. */
export function sequentialRead(settings: BenchSettings): Promise<Row[]> {
  return withServers(settings, async (sockets) => {
    const goal = "<= 1.15 x the time of nbdkit";
    const what = "nbdcopy read of 1 GiB";
    if (!isInstalled("nbdcopy")) return [{ what, ours: "", goal, isMet: undefined }];
    const figures: Partial<Record<Contestant, number>> = await interleave(
      settings.rounds,
      turns(sockets, async (socket) => {
        const started = performance.now();
        await run("nbdcopy", [uriOf(socket), "null:"]);
        return performance.now() - started;
      }),
    );
    const ours = figures.ours ?? Number.NaN;
    const theirs = figures.nbdkit;
    const text = (ms: number): string => `${Math.round(ms)} ms`;
    if (theirs === undefined) return [{ what, ours: text(ours), goal, isMet: undefined }];
    const ratio = ours / theirs;
    return [
      {
        what,
        ours: text(ours),
        peer: `nbdkit ${text(theirs)}`,
        ratio,
        goal: "<= 1.15",
        isMet: ratio <= 1.15,
      },
    ];
  });
}
