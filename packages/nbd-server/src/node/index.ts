export { listenTcp, type TcpListener, type TcpListenerOptions } from "./listen-tcp.ts";
export { listenUnix, type UnixListener, type UnixListenerOptions } from "./listen-unix.ts";
export type { NbdListener } from "./listener.ts";
export { SocketStream } from "./socket-stream.ts";
