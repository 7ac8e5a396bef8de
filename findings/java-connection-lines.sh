#!/bin/bash
# Subject: Java's two HTTP clients, java.net.http.HttpClient and HttpURLConnection; seen on OpenJDK 17.
# Expected: `Connection` is a list, and several lines of it are one (RFC 9110, 5.3 and 7.6.1): who reads `close` anywhere in it
#   leaves after the response.
# Seen: HttpClient believes the first line, and only if it is `close` and nothing else. HttpURLConnection believes the last. Of
#   two lines that disagree one of them uses the connection again, whatever their order; of `close, keep-alive` HttpClient does.
# How: the same page twice; a server tells which connection it came over.
# Why: a proxy or a shim that adds `Connection: close` to a response which says `keep-alive` already reaches one of them at most.
#   It has to replace the line.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
cd "$folder"

# Answers each request with the Connection lines that its path names, and with the number of its connection.
cat >server.py <<'PYTHON'
import socketserver, urllib.parse

count = 0

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        global count
        count += 1
        number = str(count).encode()
        while request := self.rfile.readline():
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            lines = urllib.parse.unquote(request.split()[1].decode()[1:]).split("|")
            head = "".join(f"Connection: {line}\r\n" for line in lines)
            self.wfile.write(f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(number)}\r\n\r\n".encode() + number)

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON

cat >Ask.java <<'JAVA'
import java.net.*;
import java.net.http.*;

public class Ask {
    interface Get { String get(String url) throws Exception; }

    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        Get modern = url -> client.send(HttpRequest.newBuilder(URI.create(url)).build(),
            HttpResponse.BodyHandlers.ofString()).body();
        Get old = url -> new String(new URL(url).openConnection().getInputStream().readAllBytes());
        for (String lines : new String[] {"close", "close|keep-alive", "keep-alive|close", "close,%20keep-alive"}) {
            String url = "http://127.0.0.1:" + arguments[0] + "/" + lines.replace("|", "%7C");
            System.out.println(lines + ": " + leaves(modern, url) + " " + leaves(old, url));
        }
    }

    static String leaves(Get how, String url) throws Exception {
        String first = how.get(url);
        Thread.sleep(200);
        return how.get(url).equals(first) ? "stays" : "leaves";
    }
}
JAVA

python3 server.py >port &
server=$!
for _ in $(seq 100); do [ -s port ] && break; sleep 0.1; done
java Ask.java "$(cat port)" | tee seen

expected='close: leaves leaves
close|keep-alive: leaves stays
keep-alive|close: stays leaves
close,%20keep-alive: stays leaves'
[ "$(cat seen)" = "$expected" ] || { echo "changed: the answers of HttpClient and HttpURLConnection are others"; exit 1; }
echo ok
