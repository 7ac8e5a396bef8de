//! Servers into which nothing can be preloaded: in Go, and static ones.

use super::intercepted;
use crate::servers::server::{C, Server};

/// A call of gRPC's health service, in frames of HTTP/2 (RFC 9113): settings, the headers of a request, and an empty message.
const HEALTH_CHECK: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\0\x04\0\0\0\0\0\
    \0\0\x43\x01\x04\0\0\0\x01\
    \x83\x86\x04\x1c/grpc.health.v1.Health/Check\x01\x01a\x0f\x10\x10application/grpc\0\x02te\x08trailers\
    \0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0";

/// The message that says SERVING.
const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

const PAGE: &str = "worker of a file\n";

fn of_grpc() -> Server {
    Server::of_go("servers/grpc.go", C::None)
        .needs_file("/usr/share/gocode/src/google.golang.org/grpc/health")
        .answers(HEALTH_CHECK, SERVING)
        .nothing_is_preloaded()
}

fn of_fasthttp() -> Server {
    Server::of_go("servers/fasthttp.go", C::None)
        .needs_file("/usr/share/gocode/src/github.com/valyala/fasthttp")
        .nothing_is_preloaded()
}

fn pages(c: C) -> Server {
    Server::of_go("pages.go", c).says("").nothing_is_preloaded()
}

intercepted! {
    net_http => pages(C::None);
    net_http_with_c => pages(C::Linked).intercepted_in_ci();
    grpc_go => of_grpc().intercepted_in_ci();
    fasthttp => of_fasthttp().intercepted_in_ci();
    caddy => Server::of("caddy file-server --listen :{port} --root .").file("index.html", PAGE)
        .env("HOME", "/nonexistent").nothing_is_preloaded().intercepted_in_ci();
    static_glibc => Server::compiled("server.c", &["gcc", "-static"]).says("").nothing_is_preloaded();
    static_musl => Server::compiled("server.c", &["musl-gcc", "-static"]).says("").nothing_is_preloaded();
}
