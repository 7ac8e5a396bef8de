//! Servers of Node, Deno and Bun.

use super::{Server, servers};

/// The answer over Node's own http.
const HTTP: &str = "
const http = require('node:http');
http.createServer((request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
  .listen(process.env.PORT);
";

/// The same with Express.
const EXPRESS: &str = "
const app = require('express')();
app.get('/', (request, response) => response.send('worker ' + process.env.CLUSTERD_WORKER_ID));
app.listen(process.env.PORT);
";

servers! {
    /// A cluster worker, as by default.
    node => Server::of("node server.js").file("server.js", HTTP).in_ci().accepting_in_ci();
    node_through_the_shim => Server::of("node server.js").options("--attach preload").file("server.js", HTTP).accepting_in_ci();
    node_of_ipv4 => Server::of("node server.js").file("server.js", "
require('node:http').createServer((request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
  .listen(process.env.PORT, '0.0.0.0');
");
    node_of_one_address => Server::of("node server.js").file("server.js", "
require('node:http').createServer((request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
  .listen(process.env.PORT, '127.0.0.1');
");
    node_of_ipv6_only => Server::of("node server.js").file("server.js", "
require('node:http').createServer((request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
  .listen({ port: process.env.PORT, host: '::', ipv6Only: true });
");
    node_with_a_cluster_of_its_own => Server::of("node server.js").file("server.js", "
const cluster = require('node:cluster');
const http = require('node:http');
if (cluster.isPrimary) {
  cluster.fork();
  cluster.fork();
} else {
  http.createServer((request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
    .listen(process.env.PORT);
}
");
    node_below_a_shell => Server::of_shell("echo started; node server.js; true").needs("node").file("server.js", HTTP);
    node_net => Server::of("node server.js").file("server.js", "
require('node:net').createServer((socket) => {
  socket.on('error', () => {});
  socket.pipe(socket);
}).listen(process.env.PORT);
").answers(b"echo", b"echo");
    node_tls => Server::of("node server.js").needs("openssl").file("server.js", "
const { execSync } = require('node:child_process');
const made = execSync('openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=a -keyout - 2>&1');
const pem = made.toString();
require('node:https').createServer({ key: pem, cert: pem }, (request, response) => response.end('worker'))
  .listen(process.env.PORT);
").answers(
        // A TLS client that speaks too old a version: the alert comes from the server's TLS.
        b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x2f\x01\0",
        b"\x15\x03",
    );
    express => Server::of("node server.js").npm("express").file("server.js", EXPRESS);
    fastify => Server::of("node server.js").npm("fastify").file("server.js", "
const app = require('fastify')();
app.get('/', async () => 'worker ' + process.env.CLUSTERD_WORKER_ID);
app.listen({ port: Number(process.env.PORT) });
").in_ci();
    koa => Server::of("node server.js").npm("koa").file("server.js", "
const Koa = require('koa');
new Koa().use((context) => { context.body = 'worker ' + process.env.CLUSTERD_WORKER_ID; })
  .listen(process.env.PORT);
");
    hapi => Server::of("node server.js").npm("@hapi/hapi").file("server.js", "
const server = require('@hapi/hapi').server({ port: process.env.PORT, host: '0.0.0.0' });
server.route({ method: 'GET', path: '/', handler: () => 'worker ' + process.env.CLUSTERD_WORKER_ID });
server.start();
");
    polka => Server::of("node server.js").npm("polka").file("server.js", "
require('polka')().get('/', (request, response) => response.end('worker ' + process.env.CLUSTERD_WORKER_ID))
  .listen(process.env.PORT);
");
    hono => Server::of("node server.mjs").npm("@hono/node-server").file("server.mjs", "
import { createRequire } from 'node:module';
const require = createRequire(process.env.NODE_PATH + '/');
const { serve } = require('@hono/node-server');
const { Hono } = require('hono');
const app = new Hono().get('/', (context) => context.text('worker ' + process.env.CLUSTERD_WORKER_ID));
serve({ fetch: app.fetch, port: Number(process.env.PORT) });
");
    ws => Server::of("node server.js").npm("ws").file("server.js", "
const { WebSocketServer } = require('ws');
new WebSocketServer({ port: process.env.PORT }).on('connection', (socket) => {
  socket.on('error', () => {});
  socket.send('worker ' + process.env.CLUSTERD_WORKER_ID);
});
").answers(UPGRADE, b"worker ");
    socket_io => Server::of("node server.js").npm("socket.io").file("server.js", "
const { Server } = require('socket.io');
new Server(Number(process.env.PORT));
").page("/socket.io/?EIO=4&transport=polling", "\"sid\"");
    /// It asks by a connection whether its port is free.
    serve => Server::of("serve -l tcp://0.0.0.0:{port} --no-clipboard public").npm("serve")
        .file("public/index.html", "worker of serve").in_ci();
    npm_http_server => Server::of("http-server -p {port} public").npm("http-server")
        .file("public/index.html", "worker of http-server");
    json_server => Server::of("json-server --port {port} --host 0.0.0.0 db.json").npm("json-server")
        .file("db.json", r#"{ "posts": [{ "id": "1", "title": "worker" }] }"#).page("/posts", "worker");
    npm_start => Server::of("npm start").needs("node").env("npm_config_update_notifier", "false")
        .file("package.json", r#"{ "name": "app", "version": "1.0.0", "scripts": { "start": "node server.js" } }"#)
        .file("server.js", HTTP);
    nodemon => Server::of("nodemon --quiet server.js").npm("nodemon").file("server.js", HTTP);
    tsx => Server::of("tsx server.ts").npm("tsx").file("server.ts", "
import http from 'node:http';
const who: string = `worker ${process.env.CLUSTERD_WORKER_ID}`;
http.createServer((request, response) => response.end(who)).listen(process.env.PORT);
");
    deno => Server::of("deno run --allow-all server.ts").file("server.ts", "
const port = Number(Deno.env.get('PORT'));
Deno.serve({ port }, () => new Response('worker ' + Deno.env.get('CLUSTERD_WORKER_ID')));
");
    /// It may not read its environment.
    deno_serve => Server::of("deno serve --port {port} server.ts").file("server.ts", "
export default { fetch: () => new Response('worker of deno') };
").in_ci();
    deno_with_nodes_http => Server::of("deno run --allow-all server.cjs").gets_connections_from_its_primary()
        .file("server.cjs", HTTP);
    bun => Server::of("bun server.js").file("server.js", "
Bun.serve({ port: process.env.PORT, fetch: () => new Response('worker ' + process.env.CLUSTERD_WORKER_ID) });
");
    bun_with_nodes_http => Server::of("bun server.js").file("server.js", HTTP).in_ci();
    bun_with_express => Server::of("bun server.js").npm("express").file("server.js", EXPRESS);
    bun_net => Server::of("bun server.js").file("server.js", "
Bun.listen({
  hostname: '0.0.0.0',
  port: Number(process.env.PORT),
  socket: { data: (socket, data) => { socket.write(data); } },
});
").answers(b"echo", b"echo");
}

/// A client of WebSocket.
pub(super) const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
