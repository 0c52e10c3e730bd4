import { connectNbd } from "@blocklayer/nbd-client/node";

// Talks over descriptor 3, which it inherited, and tells what it read.
const connection = await connectNbd({ type: "fd", descriptor: 3 });
const buffer = new Uint8Array(4);
await connection.read(512, buffer);
await connection.close();
process.stdout.write(`${connection.info.size} ${buffer.join()}`);
