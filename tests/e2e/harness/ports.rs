//! Ports for what does not leave the choice to the kernel.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports lie below those that the kernel chooses, lest a client's connection has one.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many ports in a row that nobody has; others for each caller.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = process::id().wrapping_mul(97) as u16;
    // By the same measure for every count, or else two rows would have ports in common.
    let rows =
        (0..COUNT).map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(count, Ordering::Relaxed)) % COUNT);
    let is_free =
        |port| TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).is_ok();
    let mut free = rows.filter(|&first| (first..first + count).all(is_free));
    free.next().expect("a free port")
}
