//! The built-in hello server: an ordinary worker, like any other server in Rust that uses the library `clusterd-worker`.
//!
//! It shows that a cluster works and how a worker stops gracefully. It knows nothing that other workers do not.
//!
//! It uses the library rather than the shim, so that `clusterd` without a command also runs where no shim can be
//! preloaded into clusterd's own program: in a static build, and with `--attach node`.

use std::process::ExitCode;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};

use crate::http_worker::{self, Answer};

/// Runs the hello server until it is ended, and returns its exit code.
pub(crate) fn demo_main() -> ExitCode {
    // It was started by a link in /proc, whose name would be shown instead.
    let _ = rustix::thread::set_name(c"clusterd-demo");
    http_worker::run("demo", || {
        let worker = std::env::var("CLUSTERD_WORKER_ID").ok();
        Ok(Hello { greeting: greeting(worker.as_deref(), std::process::id()).into() })
    })
}

/// Says hello to everybody.
#[derive(Clone)]
struct Hello {
    greeting: Bytes,
}

impl Answer for Hello {
    type Body = Full<Bytes>;

    async fn answer(&self, _: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.greeting.clone()));
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        response
    }
}

fn greeting(worker: Option<&str>, pid: u32) -> String {
    match worker {
        Some(worker) => format!("hello from worker {worker} (pid {pid})\n"),
        None => format!("hello (pid {pid})\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_names_the_worker() {
        assert_eq!(greeting(Some("2"), 1234), "hello from worker 2 (pid 1234)\n");
        assert_eq!(greeting(None, 1234), "hello (pid 1234)\n");
    }
}
