/** What Node and browsers both have of a message channel, which their own types name differently. */
interface TurnChannel {
  readonly port1: { onmessage: (() => void) | null; ref?(): void; unref?(): void };
  readonly port2: { postMessage(message: number): void };
}

const waiting: (() => void)[] = [];
let channel: TurnChannel | undefined;

/**
 * Resolves in the next macrotask, after every promise job that is ready now has run. Works in Node and in
 * browser workers, and is not delayed by the timers' minimum of 1 ms.
 */
export function settleTurn(): Promise<void> {
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (channel === undefined) {
      channel = new MessageChannel() as unknown as TurnChannel;
      channel.port1.onmessage = deliver;
    }
    // A port that is referenced keeps a Node process alive; it should only while somebody waits.
    channel.port1.ref?.();
    channel.port2.postMessage(0);
  });
}

function deliver(): void {
  const resolve = waiting.shift();
  if (waiting.length === 0) channel?.port1.unref?.();
  resolve?.();
}
