import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROGRAM = join(import.meta.dirname, "small-demo.ts");

/** The demo with a small disk in a process of its own, with a folder of its own for temporary files. */
export class DemoProcess implements Disposable {
  readonly child: ChildProcess;
  readonly folder: string = mkdtempSync(join(tmpdir(), "demo-test-"));
  /** What it has printed so far. */
  output: string = "";
  readonly ended: Promise<number>;

  constructor(args: readonly string[], writer: string = "-") {
    const words = ["--conditions=@blocklayer/source", PROGRAM, writer, ...args];
    this.child = spawn(process.execPath, words, {
      cwd: this.folder,
      env: { ...process.env, TMPDIR: this.folder },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const hear = (chunk: Buffer): void => {
      this.output += chunk.toString();
    };
    this.child.stdout?.on("data", hear);
    this.child.stderr?.on("data", hear);
    this.ended = new Promise((resolve) => {
      this.child.once("close", (code) => resolve(code ?? -1));
    });
  }

  /** Resolves when the output has `text`. @throws Error it ended without */
  async says(text: string): Promise<void> {
    const { stdout } = this.child;
    let isOver = false;
    void this.ended.then(() => {
      isOver = true;
    });
    while (!this.output.includes(text)) {
      if (isOver) throw new Error(`ended without "${text}":\n${this.output}`);
      await Promise.race([
        this.ended,
        new Promise<void>((resolve) => stdout?.once("data", () => resolve())),
      ]);
    }
  }

  /** What the demo has left in its folder for temporary files. */
  leftovers(): string[] {
    return readdirSync(this.folder);
  }

  /** Command lines of running processes that have to do with it: they name its folder or are called from there. */
  processes(): string[] {
    const found: string[] = [];
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      if (Number(pid) === process.pid) continue;
      const line = commandLine(pid);
      if (line.includes(this.folder)) found.push(`${pid}: ${line}`);
    }
    return found;
  }

  [Symbol.dispose](): void {
    this.child.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function commandLine(pid: string): string {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8");
    return `${readFileSync(`/proc/${pid}/cmdline`, "utf8")} ${environment}`.replaceAll("\0", " ");
  } catch {
    // It has ended meanwhile, or belongs to somebody else.
    return "";
  }
}
