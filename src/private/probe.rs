//! Whether a worker answers, asked over HTTP.
//!
//! What follows from the answer is for others to decide.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::header::HOST;
use hyper::{StatusCode, Uri};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::info;

use super::question::Question;
use super::{Unreachable, WorkerDialer, conversation};
use crate::ids::{WorkerId, WorkerPort};

/// How much of an answer is read, in bytes, so that the server sees its answer taken.
const LONGEST_BODY: usize = 64 * 1024;

/// How long a worker that is not ready yet may take to answer one probe.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before a worker that is not ready yet is asked again: at first, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Why a probe has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// There is no connection.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Another status than 2xx and 3xx came.
    #[error("{path} answered {status}{}", advice(*.status, *.names_host))]
    Status {
        /// What was asked for.
        path: Uri,
        /// What came.
        status: StatusCode,
        /// Whether the user has said for which host.
        names_host: bool,
    },
    /// No answer came.
    #[error("no answer to {path}: {source}")]
    NoAnswer {
        /// What was asked for.
        path: Uri,
        /// What came instead.
        source: hyper::Error,
    },
    /// No answer came in time.
    #[error("no answer to {path} within {}", humantime::format_duration(*.time))]
    TimedOut {
        /// What was asked for.
        path: Uri,
        /// How long it was waited for.
        time: Duration,
    },
}

/// What a server answers that does not want to be asked for this host: 400 Django, 403 Rails, 421 by RFC 9110.
fn advice(status: StatusCode, names_host: bool) -> &'static str {
    let is_about_host =
        matches!(status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST);
    match is_about_host && !names_host {
        true => " to \"Host: localhost\"; if it wants another host, set --probe-header \"Host: NAME\"",
        false => "",
    }
}

impl ProbeError {
    /// Whether that is because the worker is about to end, or has ended: nothing is wrong with it then.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self, ProbeError::Unreachable(reason) if reason.is_leaving())
    }
}

/// Asks a worker once, within `time` in all.
///
/// # Errors
/// What came instead of 2xx or 3xx.
pub(crate) async fn probe(
    dialer: &WorkerDialer,
    worker: WorkerId,
    port: WorkerPort,
    question: &Question,
    time: Duration,
) -> Result<(), ProbeError> {
    let until = Instant::now() + time;
    let stream = dialer.connect(worker, port, time).await?;
    match timeout_at(until, http(stream, question, until)).await {
        Ok(answer) => answer,
        Err(_) => Err(ProbeError::TimedOut { path: question.path.clone(), time }),
    }
}

async fn http(stream: TcpStream, question: &Question, until: Instant) -> Result<(), ProbeError> {
    let path = &question.path;
    let no_answer = |source| ProbeError::NoAnswer { path: path.clone(), source };
    let (response, _driver) = conversation::ask(stream, question.request()).await.map_err(no_answer)?;
    let status = response.status();
    // The status has told all. What comes after it is read for the server's sake, and not longer than is left.
    let _ = timeout_at(until, Limited::new(response.into_body(), LONGEST_BODY).collect()).await;
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        let names_host = question.headers.contains_key(HOST);
        Err(ProbeError::Status { path: path.clone(), status, names_host })
    }
}

/// Asks a worker that was just started again and again, until it answers. Whoever waits bounds the time.
pub(crate) async fn until_ready(
    dialer: &WorkerDialer,
    worker: WorkerId,
    port: WorkerPort,
    question: &Question,
) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    while let Err(error) = probe(dialer, worker, port, question, TIMEOUT).await {
        let reason = error.to_string();
        if said != reason && !error.is_leaving() {
            info!(%worker, "worker is not ready yet: {reason}");
            said = reason;
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::private::pair;

    const PATIENT: Duration = Duration::from_secs(20);

    /// What a server that answers with these bytes, and then closes, is told and judged.
    async fn judge(answer: &'static [u8]) -> (String, Result<(), ProbeError>) {
        ask(answer, HeaderMap::new()).await
    }

    async fn ask(answer: &'static [u8], headers: HeaderMap) -> (String, Result<(), ProbeError>) {
        let (client, server, _) = pair::connected(crate::front::arrival::Arrival::V4).await.unwrap();
        let server = tokio::spawn(async move {
            let mut server = TcpStream::from_std(server.into()).unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(server.read_u8().await.unwrap());
            }
            server.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let question = Question { path: Uri::from_static("/healthz?deep=1"), headers };
        let result = http(client, &question, Instant::now() + PATIENT).await;
        (server.await.unwrap(), result)
    }

    #[tokio::test]
    async fn two_and_three_hundreds_are_healthy() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.0 302 Found\r\nLocation: /login\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ncut",
        ] {
            let (asked, result) = judge(answer).await;
            assert!(result.is_ok(), "{result:?}");
            assert!(asked.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{asked}");
            for header in ["host: localhost", "connection: close", "user-agent: clusterd/"] {
                assert!(asked.contains(header), "{asked}");
            }
        }
    }

    #[tokio::test]
    async fn headers_that_the_user_sets_replace_clusterds() {
        let mut headers = HeaderMap::new();
        for (name, value) in [(HOST, "example.com"), (USER_AGENT, "kube-probe"), (ACCEPT, "a"), (ACCEPT, "b")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        let (asked, _) = ask(b"HTTP/1.1 200 OK\r\n\r\n", headers).await;
        for header in ["host: example.com", "user-agent: kube-probe", "accept: a", "accept: b"] {
            assert_eq!(asked.matches(header).count(), 1, "{asked}");
        }
        assert!(!asked.contains("localhost") && !asked.contains("clusterd"), "{asked}");
    }

    #[tokio::test]
    async fn everything_else_is_not_and_the_reason_is_told() {
        let table: [(&[u8], &str); 5] = [
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
                "/healthz?deep=1 answered 400 Bad Request to \"Host: localhost\"; if it wants another host, set \
                 --probe-header \"Host: NAME\"",
            ),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "/healthz?deep=1 answered 503 Service Unavailable"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "/healthz?deep=1 answered 404 Not Found"),
            (b"", "no answer to /healthz?deep=1: connection closed before message completed"),
            (b"-ERR unknown command\r\n", "no answer to /healthz?deep=1: invalid HTTP version parsed"),
        ];
        for (answer, reason) in table {
            let (_, result) = judge(answer).await;
            assert_eq!(result.unwrap_err().to_string(), reason);
        }
    }
}
