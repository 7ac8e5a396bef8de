//! The shim at work: this test program runs itself behind the shim, with std's own `TcpListener` as the server
//! that knows nothing, and plays the primary.
