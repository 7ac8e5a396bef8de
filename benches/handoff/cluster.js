// Node's cluster with the least of a server: answer a byte, close.
const cluster = require('node:cluster');
const net = require('node:net');

const [port, workers] = process.argv.slice(2).map(Number);
if (cluster.isPrimary) {
  for (let i = 0; i < workers; i++) cluster.fork();
} else {
  // The client's end of the stream must be read for the socket to close.
  const serve = (socket) => socket.on('error', () => {}).resume().end('x');
  net.createServer(serve).listen({ port, host: '127.0.0.1', backlog: 4096 });
}
