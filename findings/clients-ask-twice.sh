#!/bin/bash
# Subject: HTTP clients that keep connections, when the server closes one after a request came and before an answer: node 20,
#   undici 7.16, urllib3 2.6, requests 2.32, aiohttp 3.13, Go 1.19, curl 7.88, Java 17 (HttpClient, HttpURLConnection),
#   Ruby 3.1 Net::HTTP; seen on Debian 12.
# Expected: who repeats a request at all repeats a GET and never a POST (RFC 9110, 9.2.2: not automatically for methods that are
#   not idempotent, unless the client knows that the first was not carried out).
# Seen: curl sends a POST a second time on a new connection and ends with 0, and so does Java's HttpURLConnection unless
#   -Dsun.net.http.retryPost=false. A GET is repeated by these two, urllib3's PoolManager, aiohttp, Go, Java's HttpClient and
#   Net::HTTP; by Node's http, undici and requests nothing is.
# How: a server answers the first request of each connection and closes the connection when it has read the second. Each client
#   asks twice. What counts is how often the second request has arrived, and what the client says of it.
# Why: a server that cuts kept connections looks healthy to whoever tests it with curl, and an order may be placed twice.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"; kill "$server" 2>/dev/null || true' EXIT
server=
cd "$folder"

python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check urllib3==2.6.0 requests==2.32.5 aiohttp==3.13.2
npm install --silent --no-fund --no-audit undici@7.16.0 >/dev/null
echo "node $(node --version), $(go version), $(curl --version | head -n 1 | cut -d ' ' -f 1-2), $(java -version 2>&1 | head -n 1), $(ruby --version)"

cat >server.py <<'PYTHON'
import collections, http.server, json, threading

ARRIVED = collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered = False

    def do_GET(self):
        if self.path == "/arrived":
            return self.answer(json.dumps(ARRIVED).encode())
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        ARRIVED[self.path] += 1
        if self.answered:
            self.close_connection = True
        else:
            self.answered = True
            self.answer(b"x")

    do_POST = do_GET

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
mkfifo port
python3 server.py >port &
server=$!
read -r port <port
url=http://127.0.0.1:$port

cat >node.js <<'JS'
const http = require('node:http');
const [method, ...urls] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true });
const ask = (url) => new Promise((resolve, reject) => {
  http.request(url, { agent, method }, (response) => response.resume().on('end', resolve)).on('error', reject)
    .end(method === 'POST' ? 'x' : '');
});
(async () => { for (const url of urls) { await ask(url); await new Promise((next) => setTimeout(next, 50)); } process.exit(); })();
JS
cat >undici.js <<'JS'
const { request } = require('undici');
const [method, ...urls] = process.argv.slice(2);
(async () => {
  for (const url of urls) {
    await (await request(url, { method, body: method === 'POST' ? 'x' : null })).body.text();
    await new Promise((next) => setTimeout(next, 50));
  }
  process.exit();
})();
JS
cat >urllib3_.py <<'PYTHON'
import sys, urllib3
pool = urllib3.PoolManager()
for url in sys.argv[2:]:
    pool.request(sys.argv[1], url, body="x" if sys.argv[1] == "POST" else None)
PYTHON
cat >requests_.py <<'PYTHON'
import sys, requests
session = requests.Session()
for url in sys.argv[2:]:
    session.request(sys.argv[1], url, data="x" if sys.argv[1] == "POST" else None)
PYTHON
cat >aiohttp_.py <<'PYTHON'
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        for url in sys.argv[2:]:
            async with session.request(sys.argv[1], url, data="x" if sys.argv[1] == "POST" else None) as response:
                await response.read()
asyncio.run(main())
PYTHON
cat >client.go <<'GO'
package main

import (
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	for _, url := range os.Args[2:] {
		var body io.Reader
		if os.Args[1] == "POST" {
			body = strings.NewReader("x")
		}
		request, _ := http.NewRequest(os.Args[1], url, body)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			os.Exit(1)
		}
		io.ReadAll(response.Body)
		response.Body.Close()
	}
}
GO
GO111MODULE=off GOCACHE="$folder/go-cache" go build -o go-client client.go
cat >WithHttpClient.java <<'JAVA'
import java.net.URI;
import java.net.http.*;
class WithHttpClient {
    public static void main(String[] words) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 1; i < words.length; i++) {
            var body = words[0].equals("POST") ? HttpRequest.BodyPublishers.ofString("x") : HttpRequest.BodyPublishers.noBody();
            var request = HttpRequest.newBuilder(URI.create(words[i])).version(HttpClient.Version.HTTP_1_1);
            client.send(request.method(words[0], body).build(), HttpResponse.BodyHandlers.ofString());
        }
    }
}
JAVA
cat >WithUrlConnection.java <<'JAVA'
import java.net.*;
class WithUrlConnection {
    public static void main(String[] words) throws Exception {
        for (int i = 1; i < words.length; i++) {
            var connection = (HttpURLConnection) new URL(words[i]).openConnection();
            connection.setRequestMethod(words[0]);
            if (words[0].equals("POST")) {
                connection.setDoOutput(true);
                connection.getOutputStream().write('x');
            }
            connection.getInputStream().readAllBytes();
        }
    }
}
JAVA
javac WithHttpClient.java WithUrlConnection.java
cat >net_http.rb <<'RUBY'
require 'net/http'
method, *urls = ARGV
uri = URI(urls[0])
Net::HTTP.start(uri.host, uri.port) do |http|
  urls.each { |url| method == 'POST' ? http.post(URI(url).path, 'x') : http.get(URI(url).path) }
end
RUBY

arrived() { python3 -c 'import json, sys, urllib.request; print(json.load(urllib.request.urlopen(sys.argv[1])).get(sys.argv[2], 0))' "$url/arrived" "$1"; }

seen=
try() {
    local name=$1 method said
    shift
    for method in GET POST; do
        local words=("$@")
        if [ "$name" = curl ]; then
            words+=(-s -o /dev/null -o /dev/null)
            [ $method = GET ] || words+=(--data x)
        else
            words+=($method)
        fi
        said=succeeds
        "${words[@]}" "$url/$name-$method-1" "$url/$name-$method-2" >/dev/null 2>&1 || said=fails
        seen+="$name $method: the second arrives $(arrived "/$name-$method-2") times, and $said"$'\n'
    done
}
try node node node.js
try undici node undici.js
try urllib3 python/bin/python3 urllib3_.py
try requests python/bin/python3 requests_.py
try aiohttp python/bin/python3 aiohttp_.py
try go ./go-client
try curl curl
try java-http-client java -cp . WithHttpClient
try java-url-connection java -cp . WithUrlConnection
try net-http ruby net_http.rb
printf '%s' "$seen"

expected='node GET: the second arrives 1 times, and fails
node POST: the second arrives 1 times, and fails
undici GET: the second arrives 1 times, and fails
undici POST: the second arrives 1 times, and fails
urllib3 GET: the second arrives 2 times, and succeeds
urllib3 POST: the second arrives 1 times, and fails
requests GET: the second arrives 1 times, and fails
requests POST: the second arrives 1 times, and fails
aiohttp GET: the second arrives 2 times, and succeeds
aiohttp POST: the second arrives 1 times, and fails
go GET: the second arrives 2 times, and succeeds
go POST: the second arrives 1 times, and fails
curl GET: the second arrives 2 times, and succeeds
curl POST: the second arrives 2 times, and succeeds
java-http-client GET: the second arrives 2 times, and succeeds
java-http-client POST: the second arrives 1 times, and fails
java-url-connection GET: the second arrives 2 times, and succeeds
java-url-connection POST: the second arrives 2 times, and succeeds
net-http GET: the second arrives 2 times, and succeeds
net-http POST: the second arrives 1 times, and fails'
if [ "$seen" != "$expected"$'\n' ]; then
    echo "changed: others ask twice"
    exit 1
fi
echo ok
