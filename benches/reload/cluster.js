// Node's own cluster of a program: `cluster.js WORKERS PROGRAM`. A worker that ends by itself is replaced. HUP replaces all, one
// by one, each by one that listens before the old one is asked to leave, and says so at the end.
const cluster = require('node:cluster');
const { once } = require('node:events');

const [workers, exec] = process.argv.slice(2);
cluster.setupPrimary({ exec });
cluster.on('exit', (worker) => worker.exitedAfterDisconnect || cluster.fork());
for (let i = 0; i < Number(workers); i++) cluster.fork();
process.on('SIGHUP', async () => {
  for (const old of Object.values(cluster.workers)) {
    await once(cluster.fork(), 'listening');
    old.disconnect();
    await once(old, 'exit');
  }
  console.log('reloaded');
});
process.on('SIGTERM', () => process.exit());
