//! Tasks that run beside each other, but for those of a set that somebody waits for (`JoinSet`). They are boxed: what tokio needs for a
//! task is there once, and not once for each future of this program, which was some 100 KiB.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// Runs this on the current runtime, as `tokio::spawn` does.
///
/// # Panics
/// Outside of a runtime.
pub(crate) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let boxed: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    tokio::spawn(boxed)
}
