// Node's own cluster of `app.js`, or of another program, on this port with this many workers.
const cluster = require('node:cluster');
const path = require('node:path');

const [port, workers, app = 'app.js'] = process.argv.slice(2);
cluster.setupPrimary({ exec: path.join(__dirname, app), args: [port] });
for (let i = 0; i < Number(workers); i++) cluster.fork();
