//! What other languages bring with them: Java, Ruby, PHP, Perl, Erlang and the rest.

use super::{Server, servers};

/// The answer of a Rack application.
const RACK: &str = "
body = \"worker #{ENV['CLUSTERD_WORKER_ID']}\"
run ->(_) { [200, { 'content-type' => 'text/plain', 'content-length' => body.size.to_s }, [body]] }
";

/// The answer of a PSGI application.
const PSGI: &str = "
my $body = \"worker $ENV{CLUSTERD_WORKER_ID}\";
sub { [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $body], [$body]] };
";

servers! {
    java => Server::of("java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC Server.java")
        .file("Server.java", include_str!("../../fixtures/Server.java")).in_ci().accepting_in_ci();
    java_of_ipv4 =>
        Server::of("java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true Server.java")
        .file("Server.java", include_str!("../../fixtures/Server.java"));
    java_server_socket => Server::of("java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC Plain.java").file("Plain.java", r#"
import java.net.*;
public class Plain {
    public static void main(String[] arguments) throws Exception {
        ServerSocket server = new ServerSocket(Integer.parseInt(System.getenv("PORT")));
        while (true) {
            try (Socket client = server.accept()) {
                client.getInputStream().read(new byte[4096]);
                client.getOutputStream().write("HTTP/1.0 200 OK\r\n\r\nworker".getBytes());
            }
        }
    }
}
"#);
    mono => Server::of_shell("mcs -out:Server-$$.exe Server.cs && exec mono Server-$$.exe").needs("mono").needs("mcs")
        .file("Server.cs", r#"
using System;
using System.Net;
using System.Net.Sockets;
using System.Text;
class Server {
    static void Main() {
        var listener = new TcpListener(IPAddress.Any, int.Parse(Environment.GetEnvironmentVariable("PORT")));
        listener.Start();
        while (true) {
            using (var client = listener.AcceptTcpClient()) {
                var stream = client.GetStream();
                stream.Read(new byte[4096], 0, 4096);
                var answer = Encoding.ASCII.GetBytes("HTTP/1.0 200 OK\r\n\r\nworker for " + client.Client.RemoteEndPoint);
                stream.Write(answer, 0, answer.Length);
            }
        }
    }
}
"#);
    php => Server::of("php -S 0.0.0.0:{port} server.php").file("server.php", "<?php echo 'worker ';").in_ci().accepting_in_ci();
    php_of_localhost => Server::of("php -S localhost:{port} server.php").file("server.php", "<?php echo 'worker ';");
    php_with_processes => Server::of("php -S [::]:{port} server.php").file("server.php", "<?php echo 'worker ';")
        .env("PHP_CLI_SERVER_WORKERS", "3");
    php_streams => Server::of("php server.php").file("server.php", "<?php
$server = stream_socket_server('tcp://0.0.0.0:' . getenv('PORT'));
while (true) {
    $client = @stream_socket_accept($server, -1);
    if (!$client) continue;
    fread($client, 4096);
    fwrite($client, \"HTTP/1.0 200 OK\\r\\n\\r\\nworker\");
    fclose($client);
}
");
    puma => Server::of("puma -b tcp://0.0.0.0:{port} -t 1:2").file("config.ru", RACK).in_ci().accepting_in_ci();
    puma_with_processes => Server::of("puma -p {port} -w 2 -t 1:2").file("config.ru", RACK);
    unicorn => Server::of("unicorn -l 0.0.0.0:{port}").file("config.ru", RACK);
    thin => Server::of("thin start -p {port} -R config.ru").file("config.ru", RACK);
    webrick => Server::of("ruby {folder}/server.rb").needs("ruby")
        .file("server.rb", include_str!("../../fixtures/webrick.rb"));
    ruby_tcp_server => Server::of("ruby server.rb").file("server.rb", include_str!("../../fixtures/tcp_server.rb"));
    perl => Server::of("perl server.pl").file("server.pl", include_str!("../../fixtures/server.pl"));
    plackup => Server::of("plackup -p {port} app.psgi").file("app.psgi", PSGI);
    starman => Server::of("starman --workers 2 --listen :{port} app.psgi").file("app.psgi", PSGI);
    twiggy => Server::of("twiggy --listen :{port} app.psgi").file("app.psgi", PSGI);
    mojolicious => Server::of("perl app.pl daemon -l http://*:{port}").needs_file("/usr/share/perl5/Mojolicious.pm")
        .file("app.pl", "
use Mojolicious::Lite -signatures;
get '/' => sub ($c) { $c->render(text => 'worker ') };
app->start;
");
    /// It copies the options of its listener to each connection.
    erlang => Server::of_shell("erlc {folder}/server.erl && exec erl -noshell -s server").needs("erlc").in_its_own_folder().file("server.erl", r#"
-module(server).
-export([start/0]).
start() ->
    Port = list_to_integer(os:getenv("PORT")),
    {ok, Listener} = gen_tcp:listen(Port, [binary, {active, false}, {reuseaddr, true}, {backlog, 128}]),
    serve(Listener).
serve(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    _ = gen_tcp:recv(Socket, 0),
    _ = gen_tcp:send(Socket, "HTTP/1.0 200 OK\r\n\r\nworker"),
    gen_tcp:close(Socket),
    serve(Listener).
"#).in_ci();
    elixir => Server::of("elixir server.exs").file("server.exs", r#"
{:ok, listener} = :gen_tcp.listen(String.to_integer(System.get_env("PORT")), [:binary, active: false, reuseaddr: true])
serve = fn serve ->
  {:ok, socket} = :gen_tcp.accept(listener)
  _ = :gen_tcp.recv(socket, 0)
  _ = :gen_tcp.send(socket, "HTTP/1.0 200 OK\r\n\r\nworker")
  :gen_tcp.close(socket)
  serve.(serve)
end
serve.(serve)
"#);
    guile => Server::of("guile --no-auto-compile server.scm").file("server.scm", r#"
(use-modules (web server))
(run-server (lambda (request body) (values '((content-type . (text/plain))) "worker"))
  'http (list #:addr INADDR_ANY #:port (string->number (getenv "PORT"))))
"#);
    sbcl => Server::of("sbcl --script server.lisp").file("server.lisp", r#"
(require :sb-bsd-sockets)
(defvar *server* (make-instance 'sb-bsd-sockets:inet-socket :type :stream :protocol :tcp))
(setf (sb-bsd-sockets:sockopt-reuse-address *server*) t)
(sb-bsd-sockets:socket-bind *server* #(0 0 0 0) (parse-integer (sb-ext:posix-getenv "PORT")))
(sb-bsd-sockets:socket-listen *server* 64)
(loop
  (let* ((client (sb-bsd-sockets:socket-accept *server*))
         (stream (sb-bsd-sockets:socket-make-stream client :input t :output t :buffering :full)))
    (read-line stream)
    (format stream "HTTP/1.0 200 OK~C~C~C~Cworker" #\return #\newline #\return #\newline)
    (finish-output stream)
    (sb-bsd-sockets:socket-close client)))
"#);
    tcl => Server::of("tclsh server.tcl").file("server.tcl", r#"
proc answer {channel host port} {
    fconfigure $channel -translation crlf -blocking 0
    fileevent $channel readable [list reply $channel]
}
proc reply {channel} {
    if {[gets $channel line] < 0 && ![eof $channel]} return
    catch { puts -nonewline $channel "HTTP/1.0 200 OK\n\nworker" }
    catch { close $channel }
}
socket -server answer $env(PORT)
vwait forever
"#);
    prolog => Server::of("swipl server.pl").file("server.pl", "
:- use_module(library(http/thread_httpd)).
:- use_module(library(http/http_dispatch)).
:- http_handler(root(.), answer, []).
answer(_) :- format('Content-type: text/plain~n~nworker').
:- initialization(main, main).
main :- getenv('PORT', Text), atom_number(Text, Port), http_server(http_dispatch, [port(Port)]), thread_get_message(stop).
");
    lua => Server::of("lua5.4 server.lua").needs_file("/usr/share/lua/5.4/socket.lua").file("server.lua", r#"
local socket = require("socket")
local server = assert(socket.bind("*", os.getenv("PORT")))
while true do
  local client = server:accept()
  client:receive()
  client:send("HTTP/1.0 200 OK\r\n\r\nworker")
  client:close()
end
"#);
    r => Server::of("Rscript server.R").needs_file("/usr/lib/R/site-library/httpuv").file("server.R", r#"
answer <- function(request) list(status = 200L, headers = list("Content-Type" = "text/plain"), body = "worker")
httpuv::runServer("0.0.0.0", as.integer(Sys.getenv("PORT")), list(call = answer))
"#);
    ocaml => Server::of("ocaml -I +unix unix.cma server.ml").file("server.ml", r#"
let () =
  let port = int_of_string (Sys.getenv "PORT") in
  let rec skip input = if String.trim (input_line input) <> "" then skip input in
  let answer input output = skip input; output_string output "HTTP/1.0 200 OK\r\n\r\nworker"; flush output in
  Unix.establish_server answer (Unix.ADDR_INET (Unix.inet_addr_any, port))
"#);
    racket => Server::of("racket server.rkt").file("server.rkt", r#"
#lang racket/base
(require racket/tcp)
(define listener (tcp-listen (string->number (getenv "PORT")) 64 #t))
(let loop ()
  (define-values (in out) (tcp-accept listener))
  (read-line in)
  (write-string "HTTP/1.0 200 OK\r\n\r\nworker" out)
  (close-output-port out)
  (close-input-port in)
  (loop))
"#);
    /// Its accept asks for an address of IPv4.
    d => Server::compiled("servers/server.d", &["gdc"]);
}
