//! Web servers and proxies, mostly as Debian configures them.

use super::{Server, servers};
use crate::harness::nginx_config;

/// One module after the other, as Debian has them.
const APACHE: &str = r#"
ServerRoot "."
ServerName localhost
DefaultRuntimeDir "."
PidFile apache.pid
ErrorLog /dev/stderr
LoadModule mpm_${MPM}_module /usr/lib/apache2/modules/mod_mpm_${MPM}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
User www-data
Group www-data
DocumentRoot {folder}
DirectoryIndex index.html
Listen {port}
"#;

const PAGE: &str = "worker with a page";

fn nginx(config: &'static str) -> Server {
    Server::of("nginx -e stderr -p . -c {folder}/nginx.conf").in_its_own_folder().file("nginx.conf", config)
}

fn apache(mpm: &'static str) -> Server {
    Server::of("apache2 -X -f {folder}/apache.conf")
        .in_its_own_folder()
        .env("MPM", mpm)
        .file("index.html", PAGE)
        .file("apache.conf", APACHE)
}

servers! {
    /// A listener for each family, in each of two processes.
    nginx_as_debian_configures_it => nginx(nginx_config!(
        "daemon off; worker_processes 2; error_log stderr; events {}",
        "listen {port} default_server; listen [::]:{port} default_server;"
    )).in_ci().accepting_in_ci().intercepted_in_ci();
    nginx_of_both_families_at_once => nginx(nginx_config!("daemon off; events {}", "listen [::]:{port} ipv6only=off;"));
    nginx_that_shares_its_port => nginx(nginx_config!(
        "daemon off; worker_processes 2; events { multi_accept on; }",
        "listen {port} reuseport deferred backlog=100 so_keepalive=on;"
    )).accepting_in_ci();
    apache_with_threads => apache("event").in_ci();
    apache_with_processes => apache("prefork");
    lighttpd => Server::of("lighttpd -D -f lighttpd.conf").file("index.html", PAGE).file("lighttpd.conf", r#"
server.document-root = "{folder}"
server.port = {port}
index-file.names = ("index.html")
"#);
    lighttpd_of_both_families => Server::of("lighttpd -D -f lighttpd.conf").file("index.html", PAGE)
        .file("lighttpd.conf", r#"
server.document-root = "{folder}"
server.port = {port}
index-file.names = ("index.html")
$SERVER["socket"] == "[::]:{port}" { }
"#);
    lighttpd_with_two_processes => Server::of("lighttpd -D -f lighttpd.conf").file("index.html", PAGE)
        .file("lighttpd.conf", r#"
server.document-root = "{folder}"
server.port = {port}
server.max-worker = 2
index-file.names = ("index.html")
"#);
    haproxy => Server::of("haproxy -db -f haproxy.cfg").file("haproxy.cfg", r#"
defaults
    mode http
    timeout client 10s
    timeout connect 10s
    timeout server 10s
frontend web
    bind :{port}
    http-request return status 200 content-type text/plain string "worker of haproxy"
"#).in_ci();
    /// A master and its worker.
    haproxy_of_both_families => Server::of("haproxy -W -db -f haproxy.cfg").file("haproxy.cfg", r#"
defaults
    mode http
    timeout client 10s
    timeout connect 10s
    timeout server 10s
frontend web
    bind :::{port} v4v6
    http-request return status 200 content-type text/plain string "worker of haproxy"
"#);
    h2o => Server::of("h2o -m worker -c h2o.conf").file("public/index.html", PAGE).file("h2o.conf", r#"
listen: {port}
user: root
hosts:
  default:
    paths:
      /:
        file.dir: {folder}/public
"#);
    nghttpd => Server::of("nghttpd --no-tls -d . {port}")
        .answers(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\x01\0\0\0\0");
    nghttpx => Server::of("nghttpx --conf=/dev/null -f *,{port};no-tls -b 127.0.0.1,1 --workers=2 --no-location-rewrite")
        .answers(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.1 50");
    busybox => Server::of("busybox httpd -f -p {port} -h .").file("index.html", PAGE);
    mini_httpd => Server::of("mini_httpd -D -p {port} -d public -i mini.pid -u root")
        .file("public/index.html", PAGE).in_ci();
    micro_httpd_below_tcpserver => Server::of("tcpserver -RHl0 0 {port} micro-httpd public")
        .needs("micro-httpd").file("public/index.html", PAGE);
    micro_httpd_below_tcpsvd => Server::of("tcpsvd -E 0 {port} micro-httpd public")
        .needs("micro-httpd").file("public/index.html", PAGE);
    webfs => Server::of("webfsd -F -p {port} -r . -f index.html").file("index.html", PAGE);
    weborf => Server::of("weborf -p {port} -b .").file("index.html", PAGE).page("/index.html", PAGE);
    /// Without a list of who may come: it asks for half of an IPv6 client's address, and judges by what lies in the rest.
    tinyproxy => Server::of("tinyproxy -d -c tinyproxy.conf").file("tinyproxy.conf", "
Port {port}
Timeout 10
LogLevel Error
StatHost \"stat.test\"
").answers(b"GET http://stat.test/ HTTP/1.0\r\nHost: stat.test\r\n\r\n", b"200 OK").in_ci();
    privoxy => Server::of("privoxy --no-daemon privoxy.conf").file("privoxy.conf", "
listen-address 0.0.0.0:{port}
").answers(b"GET http://p.p/ HTTP/1.0\r\nHost: p.p\r\n\r\n", b"Privoxy");
    squid => Server::of("squid -N -f {folder}/squid.conf").in_its_own_folder().file("squid.conf", "
http_port {port}
pid_filename none
access_log none
cache_log /dev/null
cache deny all
http_access allow localhost manager
http_access deny all
shutdown_lifetime 1 seconds
visible_hostname squid.test
").answers(b"GET / HTTP/1.0\r\n\r\n", b"Server: squid");
    varnish => Server::of_shell("exec varnishd -F -a :{port} -b 127.0.0.1:1 -n $PWD -s malloc,10m").needs("varnishd")
        .in_its_own_folder().answers(b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 503");
    uwsgi => Server::of("uwsgi --plugin python3 --http-socket :{port} --master --processes 2 --die-on-term")
        .arg("--wsgi-file").arg("app.py").file("app.py", "
def application(environment, start_response):
    start_response('200 OK', [])
    return [b'worker of uwsgi']
");
    php_fpm => Server::of("php-fpm8.2 -F -R -y {folder}/fpm.conf").in_its_own_folder()
        .file("fpm.conf", "
[global]
error_log = /dev/stderr
[www]
user = nobody
listen = {port}
pm = static
pm.max_children = 2
ping.path = /ping
").answers(FASTCGI_PING, b"pong").in_ci();
    icecast => Server::of("icecast2 -c {folder}/icecast.xml").in_its_own_folder().file("icecast.xml", "
<icecast>
  <limits><sources>2</sources></limits>
  <authentication><source-password>a</source-password><admin-password>a</admin-password></authentication>
  <listen-socket><port>{port}</port></listen-socket>
  <paths><basedir>{folder}</basedir><logdir>.</logdir><webroot>{folder}</webroot><adminroot>{folder}</adminroot></paths>
  <security><changeowner><user>nobody</user><group>nogroup</group></changeowner></security>
</icecast>
").answers(b"GET /nothing HTTP/1.0\r\n\r\n", b"404");
    stunnel => Server::of("stunnel4 {folder}/stunnel.conf").needs("openssl").in_its_own_folder().file("stunnel.conf", "
foreground = yes
pid =
[echo]
accept = {port}
exec = /bin/cat
ciphers = PSK
PSKsecrets = {folder}/secrets
").file("secrets", "client:0123456789abcdef0123456789abcdef\n").answers(
        b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x2f\x01\0",
        b"\x15\x03",
    );
    hitch => Server::of_shell("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=a -keyout k -out c -batch 2>/dev/null; \
cat k c > pem; openssl dhparam -dsaparam 1024 >> pem 2>/dev/null; exec hitch -f [*]:{port} -b [127.0.0.1]:1 -n 1 -u nobody pem")
        .needs("hitch").needs("openssl").in_its_own_folder()
        .answers(b"\x16\x03\x01\0\x2d\x01\0\0\x29\x03\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x2f\x01\0", b"\x15\x03");
}

/// A FastCGI request for /ping.
const FASTCGI_PING: &[u8] = b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\
\x01\x04\0\x01\0\x3b\0\0\x0b\x05SCRIPT_NAME/ping\x0f\x05SCRIPT_FILENAME/ping\x0e\x03REQUEST_METHODGET\x01\x04\0\x01\0\0\0\0\
\x01\x05\0\x01\0\0\0\0";
