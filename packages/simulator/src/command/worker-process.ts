/** A process that lives lives: takes tasks, one at a time, and tells what they are at. Ends with its parent, whose number it gets. */
import { endWithParent } from "./children.ts";
import { runTask } from "./run-task.ts";
import type { Task, TaskListener, WorkerMessage } from "./tasks.ts";

function tell(message: WorkerMessage): void {
  if (process.connected) process.send?.(message);
}

const listener: TaskListener = {
  begins: (life) => tell({ begins: life }),
  lived: (report) => tell({ lived: report }),
};

process.on("message", (task: Task) => {
  runTask(task, listener).then(
    (result) => tell({ result }),
    (error: unknown) => tell({ error: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
// Whoever stops the command stops its workers; they are not to die half-way.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => undefined);
endWithParent(Number(process.argv[2]));
