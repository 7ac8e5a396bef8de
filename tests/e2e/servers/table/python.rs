//! Servers in Python.

use super::{Server, servers};

/// The answer of a WSGI application, `app` in app.py.
const WSGI: &str = r#"
import os
BODY = b"worker " + os.environ["CLUSTERD_WORKER_ID"].encode()
def app(_environment, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
"#;

/// The answer of an ASGI application, `app` in app.py.
const ASGI: &str = r#"
import os
BODY = b"worker " + os.environ["CLUSTERD_WORKER_ID"].encode()
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})
"#;

/// Imports, and the answer.
const HEAD: &str =
    "import os\nPORT = int(os.environ['PORT'])\nBODY = 'worker ' + os.environ['CLUSTERD_WORKER_ID']\n";

fn wsgi(command: &'static str, module: &'static str) -> Server {
    Server::of(command).python(module).file("app.py", WSGI)
}

fn asgi(command: &'static str, module: &'static str) -> Server {
    Server::of(command).python(module).file("app.py", ASGI)
}

/// A program that is all of the server.
fn script(content: &'static str) -> Server {
    Server::of("{python} server.py")
        .env("PYTHONUNBUFFERED", "1")
        .file("head.py", HEAD)
        .file("server.py", content)
}

servers! {
    http_server => Server::of("{python} -m http.server {port}").says("Directory listing").in_ci().accepting_in_ci();
    http_server_of_one_address => Server::of("{python} -m http.server {port} --bind 127.0.0.1").says("Directory");
    http_server_of_ipv6 => Server::of("{python} -m http.server {port} --bind ::").says("Directory");
    socketserver_that_forks => script("
from head import *
import http.server, socketserver
class Server(socketserver.ForkingMixIn, http.server.HTTPServer): pass
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY.encode())
Server(('', PORT), Handler).serve_forever()
");
    wsgiref => script("
from head import *
from wsgiref.simple_server import make_server
def app(environment, start_response):
    start_response('200 OK', [])
    return [BODY.encode()]
make_server('', PORT, app).serve_forever()
");
    xmlrpc => script("
from head import *
from xmlrpc.server import SimpleXMLRPCServer
server = SimpleXMLRPCServer(('localhost', PORT))
server.register_function(lambda: BODY, 'who')
server.serve_forever()
").answers(
        b"POST /RPC2 HTTP/1.0\r\nContent-Length: 53\r\n\r\n<methodCall><methodName>who</methodName></methodCall>",
        b"<string>worker ",
    );
    /// A listener for each family.
    asyncio_of_every_host => script("
from head import *
import asyncio
async def serve(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(f'HTTP/1.0 200 OK\\r\\n\\r\\n{BODY}'.encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, None, PORT)
    await server.serve_forever()
asyncio.run(main())
").in_ci();
    /// The same, by libuv.
    uvloop => script("
from head import *
import asyncio, uvloop
async def serve(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(f'HTTP/1.0 200 OK\\r\\n\\r\\n{BODY}'.encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, None, PORT)
    await server.serve_forever()
uvloop.run(main())
").python("uvloop");
    selectors => script("
from head import *
import selectors, socket
listener = socket.create_server(('', PORT), family=socket.AF_INET6, dualstack_ipv6=True)
listener.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(listener, selectors.EVENT_READ)
while selector.select():
    try:
        connection, address = listener.accept()
    except BlockingIOError:
        continue
    connection.setblocking(True)
    connection.recv(4096)
    connection.sendall(f'HTTP/1.0 200 OK\\r\\n\\r\\n{BODY}'.encode())
    connection.close()
");
    asyncore_of_ftp => Server::of("{python} -m pyftpdlib -p {port} -i 0.0.0.0 -n 500").python("pyftpdlib")
        .greets(b"220 ");
    aiosmtpd => Server::of("{python} -m aiosmtpd -n -l 0.0.0.0:{port}").python("aiosmtpd").greets(b"220 ");
    aiohttp => script("
from head import *
from aiohttp import web
async def answer(request):
    return web.Response(text=BODY)
app = web.Application()
app.add_routes([web.get('/', answer)])
web.run_app(app, host=None, port=PORT)
").python("aiohttp");
    aiohttp_that_shares_its_port => script("
from head import *
from aiohttp import web
async def answer(request):
    return web.Response(text=BODY)
app = web.Application()
app.add_routes([web.get('/', answer)])
web.run_app(app, port=PORT, reuse_port=True)
").python("aiohttp");
    tornado => script("
from head import *
import asyncio, tornado.web
class Main(tornado.web.RequestHandler):
    def get(self):
        self.write(BODY)
async def main():
    tornado.web.Application([('/', Main)]).listen(PORT)
    await asyncio.Event().wait()
asyncio.run(main())
").python("tornado");
    tornado_with_two_processes => script("
from head import *
import asyncio, tornado.netutil, tornado.process, tornado.web, tornado.httpserver
class Main(tornado.web.RequestHandler):
    def get(self):
        self.write(BODY)
sockets = tornado.netutil.bind_sockets(PORT)
tornado.process.fork_processes(2)
async def main():
    tornado.httpserver.HTTPServer(tornado.web.Application([('/', Main)])).add_sockets(sockets)
    await asyncio.Event().wait()
asyncio.run(main())
").python("tornado");
    twisted => Server::of("{python} -m twisted web --listen tcp:{port} --path .").python("twisted.web")
        .says("Directory listing");
    twisted_of_both_families => Server::of("{python} -m twisted web --path .").arg("--listen")
        .arg(r"tcp6:{port}:interface=\:\:").python("twisted.web").says("Directory listing");
    hypercorn => asgi("{python} -m hypercorn -b 0.0.0.0:{port} app:app", "hypercorn");
    hypercorn_of_both_families => asgi("{python} -m hypercorn -b [::]:{port} app:app", "hypercorn");
    uvicorn => asgi("{python} -m uvicorn --host 0.0.0.0 --port {port} app:app", "uvicorn").in_ci().accepting_in_ci().intercepted_in_ci();
    uvicorn_of_one_address => asgi("{python} -m uvicorn --port {port} app:app", "uvicorn");
    uvicorn_of_ipv6 => asgi("{python} -m uvicorn --host :: --port {port} app:app", "uvicorn");
    uvicorn_with_two_processes =>
        asgi("{python} -m uvicorn --workers 2 --host 0.0.0.0 --port {port} app:app", "uvicorn");
    daphne => asgi("{python} -m daphne -b 0.0.0.0 -p {port} app:app", "daphne");
    granian => asgi("granian --interface asgi --host 0.0.0.0 --port {port} app:app", "granian");
    granian_of_wsgi => wsgi("granian --interface wsgi --port {port} app:app", "granian");
    gunicorn => wsgi("gunicorn -b 0.0.0.0:{port} app:app", "gunicorn");
    gunicorn_of_both_families => wsgi("gunicorn -b 0.0.0.0:{port} -b [::1]:{port} app:app", "gunicorn").in_ci().accepting_in_ci();
    gunicorn_with_threads => wsgi("gunicorn -b [::]:{port} -w 2 --threads 4 app:app", "gunicorn");
    gunicorn_with_gevent => wsgi("gunicorn -b 0.0.0.0:{port} -k gevent -w 2 app:app", "gevent");
    gunicorn_with_tornado => wsgi("gunicorn -b 0.0.0.0:{port} -k tornado -w 2 app:app", "tornado");
    gunicorn_that_preloads =>
        wsgi("gunicorn -b 0.0.0.0:{port} -w 2 --preload --reuse-port app:app", "gunicorn");
    waitress => wsgi("{python} -m waitress --listen=*:{port} app:app", "waitress");
    waitress_of_one_address => wsgi("{python} -m waitress --host=127.0.0.1 --port={port} app:app", "waitress");
    cheroot => wsgi("{python} -m cheroot --bind 0.0.0.0:{port} app:app", "cheroot");
    cherrypy => script("
from head import *
import cherrypy
class Root:
    @cherrypy.expose
    def index(self):
        return BODY
cherrypy.config.update({'server.socket_host': '0.0.0.0', 'server.socket_port': PORT})
cherrypy.quickstart(Root())
").python("cherrypy");
    robyn => script("
from head import *
from robyn import Robyn
app = Robyn(__file__)
@app.get('/')
def answer():
    return BODY
app.start(host='0.0.0.0', port=PORT)
").python("robyn");
    sanic => Server::of("sanic app:app --host 0.0.0.0 --port {port} --single-process").python("sanic").file("app.py", "
import os
from sanic import Sanic, text
app = Sanic('app')
@app.get('/')
async def answer(request):
    return text('worker ' + os.environ['CLUSTERD_WORKER_ID'])
");
    sanic_with_two_processes => Server::of("sanic app:app --host 0.0.0.0 --port {port} --workers 2").python("sanic")
        .file("app.py", "
import os
from sanic import Sanic, text
app = Sanic('app')
@app.get('/')
async def answer(request):
    return text('worker ' + os.environ['CLUSTERD_WORKER_ID'])
");
    websockets => script("
from head import *
import asyncio, http, websockets
def page(connection, request):
    return connection.respond(http.HTTPStatus.OK, BODY)
async def main():
    async with websockets.serve(None, None, PORT, process_request=page):
        await asyncio.Event().wait()
asyncio.run(main())
").python("websockets");
    gevent => script("
from head import *
from gevent.pywsgi import WSGIServer
def app(environment, start_response):
    start_response('200 OK', [])
    return [BODY.encode()]
WSGIServer(('', PORT), app).serve_forever()
").python("gevent");
    eventlet => script("
from head import *
import eventlet, eventlet.wsgi
def app(environment, start_response):
    start_response('200 OK', [])
    return [BODY.encode()]
eventlet.wsgi.server(eventlet.listen(('0.0.0.0', PORT)), app)
").python("eventlet");
    flask => Server::of("{python} -m flask run --host 0.0.0.0 --port {port}").python("flask").file("app.py", "
import os
from flask import Flask
app = Flask(__name__)
@app.get('/')
def answer():
    return 'worker ' + os.environ['CLUSTERD_WORKER_ID']
");
    django => Server::of("{python} server.py runserver --noreload 0.0.0.0:{port}").python("django").file("server.py", "
import os
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
settings.configure(DEBUG=True, ROOT_URLCONF=__name__, ALLOWED_HOSTS=['*'], SECRET_KEY='secret')
urlpatterns = [path('', lambda request: HttpResponse('worker ' + os.environ['CLUSTERD_WORKER_ID']))]
execute_from_command_line()
");
    bottle => script("
from head import *
import bottle
bottle.route('/')(lambda: BODY)
bottle.run(host='0.0.0.0', port=PORT)
").python("bottle");
    grpc => script("
from concurrent import futures
from head import *
import grpc
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_insecure_port(f'[::]:{PORT}')
server.start()
server.wait_for_termination()
").python("grpc").answers(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0");
    asyncssh => script("
from head import *
import asyncio, asyncssh
async def main():
    key = asyncssh.generate_private_key('ssh-ed25519')
    await asyncssh.listen('', PORT, server_host_keys=[key])
    await asyncio.Event().wait()
asyncio.run(main())
").python("asyncssh").greets(b"SSH-2.0-");
    pymodbus => script("
from head import *
import pymodbus.server as server, pymodbus.datastore as store
block = store.ModbusSequentialDataBlock(1, [7] * 100)
try:
    device = store.ModbusDeviceContext(hr=block)
except AttributeError:
    device = store.ModbusSlaveContext(hr=block)
server.StartTcpServer(context=store.ModbusServerContext(device, single=True), address=('0.0.0.0', PORT))
").python("pymodbus").answers(b"\0\x01\0\0\0\x06\x01\x03\0\x01\0\x01", b"\x03\x02\0\x07");
}
