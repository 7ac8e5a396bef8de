// The least of a web server: one answer a connection.
const http = require('node:http');

const serve = (request, response) => response.setHeader('Connection', 'close').end('x');
http.createServer(serve).listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
