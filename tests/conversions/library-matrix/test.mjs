// Writes this leg's name into its database, and finds no other one there; nor another leg's file in the workspace.
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";

const { hostname, port, protocol } = new URL(process.env.DATABASE_URL);
const leg = `${process.env.VERSION ?? process.version}-${protocol.slice(0, -1)}-${process.env.POOL}`;
const socket = connect(Number(port), hostname, () => socket.write(`${leg}\n`));
socket.on("error", (error) => { console.error(error); process.exit(1); });
let answer = "";
socket.on("data", (data) => (answer += data));
socket.on("end", () => {
  mkdirSync("reports", { recursive: true });
  const others = readdirSync("reports");
  writeFileSync(`reports/${leg}.xml`, `<testsuite name="${leg}"/>\n`);
  console.log(`${leg}: database has ${JSON.stringify(answer)}, reports has ${JSON.stringify(others)}`);
  process.exit(answer === `${leg}\n` && others.length === 0 ? 0 : 1);
});
