// A database of names: each line is kept, and the answer to it is the list of all names.
import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";

const server = createServer((socket) => {
  socket.on("error", () => {});
  socket.on("data", (data) => {
    appendFileSync("/var/data/names", data);
    socket.end(readFileSync("/var/data/names"));
  });
});
// The port opens a while after the start, as a real one's does.
setTimeout(() => server.listen(Number(process.env.PORT), () => {
  console.log(`${process.env.NAME} listens as user ${process.getuid()}`);
  writeFileSync("/var/data/ready", "");
}), 300);
process.on("SIGTERM", () => process.exit(0));
