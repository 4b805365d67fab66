// node relay.js SOCKET PORT_FILE: listens on 127.0.0.1 and passes each connection on to the Unix socket SOCKET.
//
// The socket is gone while pccpipe's connection to this machine is broken; a connection waits for it, up to PATIENCE.
// A new socket in its place means that the old one's connections are dead, also if they do not know it.
// Without PORT_FILE, it ends with status 3 if the socket cannot take a connection.
'use strict';
const fs = require('fs');
const net = require('net');
const [socket, portFile] = process.argv.slice(2);
const PATIENCE = 240 * 1000;
// Not the errors of a lack of memory or descriptors, or of a full queue.
const NO_SOCKET = ['ECONNREFUSED', 'ENOENT', 'ENOTSUP', 'EOPNOTSUPP', 'ENOTSOCK', 'ENXIO', 'EINVAL'];
const pairs = new Set();

function inode() {
  try { return fs.statSync(socket).ino; } catch { return 0; }
}

setInterval(() => {
  const now = inode();
  for (const pair of pairs) if (now && pair.inode !== now) pair.end();
}, 1000).unref();

const server = net.createServer({ allowHalfOpen: true }, (client) => {
  const until = Date.now() + PATIENCE;
  client.pause();
  client.on('error', () => client.destroy());
  const attempt = () => {
    if (client.destroyed) return;
    const there = net.connect({ path: socket, allowHalfOpen: true });
    const pair = { inode: inode(), end: () => { there.destroy(); client.destroy(); } };
    let connected = false;
    there.on('connect', () => {
      connected = true;
      pairs.add(pair);
      client.pipe(there);
      there.pipe(client);
    });
    there.on('error', () => {
      if (connected || Date.now() > until) client.destroy();
      else setTimeout(attempt, 250);
    });
    there.on('close', () => { pairs.delete(pair); if (connected) client.end(); });
    client.on('close', () => { if (connected) there.destroy(); });
  };
  attempt();
});

if (portFile) {
  server.listen(0, '127.0.0.1', () => {
    fs.writeFileSync(portFile + '.new', String(server.address().port));
    fs.renameSync(portFile + '.new', portFile);
  });
} else {
  net.connect({ path: socket }).on('connect', () => process.exit(0))
    .on('error', (error) => process.exit(NO_SOCKET.includes(error.code) ? 3 : 1));
}
