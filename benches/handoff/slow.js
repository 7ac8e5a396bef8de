// A web server that does one thing at a time: mostly for 5 ms, and for 200 ms by chance (1 in SLOW_ONE_IN).
const http = require('node:http');

const idle = new Int32Array(new SharedArrayBuffer(4));
const serve = (request, response) => {
  const isSlow = Math.random() * Number(process.env.SLOW_ONE_IN) < 1;
  Atomics.wait(idle, 0, 0, isSlow ? 200 : 5);
  response.setHeader('Connection', 'close').end('x');
};
http.createServer(serve).listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
