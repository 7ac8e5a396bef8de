//! Servers on the libraries of C and C++.

use super::javascript::UPGRADE;
use super::{Server, servers};

servers! {
    c => Server::compiled("server.c", &["gcc"]).says("");
    /// It registers its socket with epoll before it binds it.
    asio => Server::compiled("servers/asio.cpp", &["g++", "-pthread"]).needs_file("/usr/include/asio.hpp").in_ci().accepting_in_ci().intercepted_in_ci();
    boost_asio => Server::compiled("servers/asio.cpp", &["g++", "-pthread", "-DBOOST"])
        .needs_file("/usr/include/boost/asio.hpp");
    websocketpp => Server::compiled("servers/websocketpp.cpp", &["g++", "-pthread"])
        .needs_file("/usr/include/websocketpp/server.hpp").needs_file("/usr/include/asio.hpp")
        .answers(UPGRADE, b"101 Switching Protocols");
    libevent => Server::compiled("servers/libevent.c", &["gcc", "-levent"]).needs_file("/usr/include/event2/http.h");
    libuv => Server::compiled("servers/libuv.c", &["gcc", "-luv"]).needs_file("/usr/include/uv.h");
    libmicrohttpd => Server::compiled("servers/libmicrohttpd.c", &["gcc", "-lmicrohttpd"])
        .needs_file("/usr/include/microhttpd.h").in_ci();
    civetweb => Server::compiled("servers/civetweb.c", &["gcc", "-lcivetweb", "-lpthread"])
        .needs_file("/usr/include/civetweb.h");
}
