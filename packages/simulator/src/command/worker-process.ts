/** A process that lives lives: takes tasks, one at a time, and answers them. Ends with its parent. */
import { runTask } from "./run-task.ts";
import type { Task } from "./tasks.ts";

process.on("message", (task: Task) => {
  runTask(task).then(
    (result) => process.send?.({ result }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
// Whoever stops the command stops its workers; they are not to die half-way.
process.on("SIGINT", () => undefined);
