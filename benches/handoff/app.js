// The least of a server: answer a byte, close.
const net = require('node:net');

const port = Number(process.argv[2]);
// The client's end of the stream must be read for the socket to close.
const serve = (socket) => socket.on('error', () => {}).resume().end('x');
net.createServer(serve).listen({ port, host: '127.0.0.1', backlog: 4096 });
