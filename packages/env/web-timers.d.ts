/** The clocks, timers and sources of chance that only the real environment may touch. */
declare function setTimeout(callback: () => void, delayMs?: number): unknown;
declare function clearTimeout(timer: unknown): void;
declare const performance: { now(): number };
declare const crypto: { getRandomValues(bytes: Uint8Array): Uint8Array };
declare const navigator: { readonly hardwareConcurrency?: number } | undefined;
declare var MessageChannel: { new (): object };
