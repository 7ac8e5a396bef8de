// Answers each request with its process's number, /compute after 200 ms of work. It knows nothing of clusters.
const http = require('node:http');

const answer = String(process.pid);
const compute = () => {
  const until = performance.now() + 200;
  while (performance.now() < until);
};
const serve = (request, response) => {
  if (request.url === '/compute') compute();
  response.end(answer);
};
http.createServer(serve).listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 });
