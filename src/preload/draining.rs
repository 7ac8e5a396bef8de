//! Whether this launch of the worker drains, and which ports are served: the page that the primary writes.
//!
//! It is mapped once, before `main`, and stays mapped through fork; a program that is executed maps it anew. Where it cannot be
//! mapped (another root folder, a sandbox), nothing drains.

use core::ffi::CStr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use crate::drain_page::{ENV_DRAINING, LEN, parse, place, port};
use crate::settings;
use crate::syscalls as sys;

/// The longest path that is taken, with the zero byte behind it.
const PATH_LEN: usize = 256;

/// The place of a launch that never drains.
static NEVER: AtomicU64 = AtomicU64::new(0);

/// Never the number of a launch.
const NONE: u64 = u64::MAX;

static PLACE: AtomicPtr<AtomicU64> = AtomicPtr::new((&raw const NEVER).cast_mut());
static LAUNCH: AtomicU64 = AtomicU64::new(NONE);
static PAGE: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());

/// Looks for the page, which workers have with `--drain-http auto`.
pub(crate) fn find() {
    settings::variable(ENV_DRAINING, map);
}

fn map(value: &[u8]) -> bool {
    let Some((launch, path)) = parse(value) else {
        return false;
    };
    let mut terminated = [0; PATH_LEN];
    for (to, from) in terminated.iter_mut().take(PATH_LEN - 1).zip(path) {
        *to = *from;
    }
    let Ok(path) = CStr::from_bytes_until_nul(&terminated) else {
        return false;
    };
    let Ok(page) = sys::open(None, path, 0).and_then(|file| sys::map_shared(&file, LEN)) else {
        return false;
    };
    // SAFETY: what was mapped is as long as the page and stays for as long as the process lives; the place lies in it.
    PLACE.store(unsafe { page.add(place(launch)) }.cast(), Ordering::Relaxed);
    PAGE.store(page.cast(), Ordering::Relaxed);
    LAUNCH.store(launch, Ordering::Release);
    true
}

/// Whether this launch drains. It is asked at everything that is written.
#[inline]
pub(crate) fn is_under_way() -> bool {
    // SAFETY: it points to a static or into the page, which stays mapped. The primary writes a place whole.
    let draining = unsafe { &*PLACE.load(Ordering::Relaxed) };
    draining.load(Ordering::Relaxed) == LAUNCH.load(Ordering::Relaxed)
}

/// Whether clients connect to this port.
pub(crate) fn serves(number: u16) -> bool {
    let page = PAGE.load(Ordering::Relaxed);
    if page.is_null() {
        return false;
    }
    let (byte, bit) = port(number);
    // SAFETY: the byte lies in the page, which stays mapped.
    unsafe { &*page.add(byte) }.load(Ordering::Relaxed) & bit != 0
}
