#!/bin/bash
# Subject: Free Pascal 3.2.2 of Debian 12 (package 3.2.2+dfsg-20), its fphttpserver in a program with threads (unit cthreads).
# Expected: the program is dynamically linked against the C library, so it opens its port by the library's bind and listen, and what
#   is preloaded sees them.
# Seen: it is linked against the library, from which it imports seven functions, dlopen and dlsym among them: none of socket,
#   bind, listen, accept, recv and send is among the symbols that it imports, and a preloaded library, which is loaded, sees no call of
#   bind and listen, while the server answers.
# How: a small server, compiled here; its imported symbols; requests to it with a library preloaded that writes a
#   line for each call; and the same with Python's http.server, where it sees both.
# Why: "dynamically linked" does not mean that calls can be intercepted by preloading. Whoever does so finds the library loaded, and an
#   ordinary EADDRINUSE: ask for the imported symbols, or intercept system calls instead (seccomp user notification).
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
cd "$dir"
version=3.2.2+dfsg-20
apt-get -qq -o APT::Sandbox::User=root download fp-compiler-3.2.2=$version fp-units-{rtl,base,fcl,net}-3.2.2=$version > /dev/null
for package in *.deb; do dpkg -x "$package" root; done
units=$(echo "$dir"/root/usr/lib/*/fpc/3.2.2/units/x86_64-linux)
cat > server.pas <<'PASCAL'
program hello;
{$mode objfpc}{$H+}
uses cthreads, sysutils, fphttpserver;
type
  TServer = class(TFPHttpServer)
    procedure Answer(Sender: TObject; var Request: TFPHTTPConnectionRequest; var Response: TFPHTTPConnectionResponse);
  end;
procedure TServer.Answer(Sender: TObject; var Request: TFPHTTPConnectionRequest; var Response: TFPHTTPConnectionResponse);
begin
  Response.Content := 'hello';
end;
var
  Server: TServer;
begin
  Server := TServer.Create(nil);
  Server.Port := StrToInt(GetEnvironmentVariable('PORT'));
  Server.Threaded := true;
  Server.OnRequest := @Server.Answer;
  Server.Active := true;
end.
PASCAL
root/usr/bin/ppcx64-3.2.2 -n -l -Fu"$units/*" -Fl/usr/lib/x86_64-linux-gnu -oserver server.pas > log 2>&1 || { cat log; exit 1; }
grep -E 'Compiler version|lines compiled' log
cat > witness.c <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>
#include <unistd.h>
#define SEEN(name) (void)!write(2, name "\n", sizeof name)
static void __attribute__((constructor)) loaded(void) { SEEN("loaded"); }
int bind(int fd, const struct sockaddr *address, socklen_t length) {
    SEEN("bind");
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind"))(fd, address, length);
}
int listen(int fd, int backlog) { SEEN("listen"); return ((int (*)(int, int))dlsym(RTLD_NEXT, "listen"))(fd, backlog); }
C
cc -shared -fPIC -o witness.so witness.c
cat > probe.py <<'PY'
import os, socket, subprocess, sys, time, urllib.request
def check(what, seen, expected):
    print(f"{what}: {seen}", flush=True)
    assert seen == expected, f"changed: it was {expected}"
def witnessed(command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    environment = os.environ | {"PORT": str(port), "LD_PRELOAD": os.path.abspath("witness.so")}
    server = subprocess.Popen(command, env=environment, stdout=-3, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read(); break
            except OSError:
                assert time.monotonic() < deadline and server.poll() is None, "no answer within 30 s"
                time.sleep(0.1)
    finally:
        server.kill()
    return [line for line in server.communicate()[1].split("\n") if line in ("loaded", "bind", "listen")]
symbols = subprocess.run(["readelf", "--dyn-syms", "--wide", "server"], capture_output=True, text=True, check=True).stdout
imported = {line.split()[7].split("@")[0] for line in symbols.splitlines() if " UND " in line and len(line.split()) > 7}
libraries = subprocess.run(["ldd", "server"], capture_output=True, text=True, check=True).stdout
check("the server has the C library, and imports dlsym", ("libc.so.6" in libraries, "dlsym" in imported), (True, True))
check("of the calls of sockets it imports", sorted(imported & {"socket", "bind", "listen", "accept", "accept4", "recv", "send"}), [])
check("it answers, and what was preloaded saw", witnessed(["./server"]), ["loaded"])
script = "import http.server, os; http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()"
check("Python's answers, and what was preloaded saw", witnessed([os.path.realpath(sys.executable), "-c", script]), ["loaded", "bind", "listen"])
PY
python3 probe.py && echo ok
