//! The control socket's clients: who they are is looked at, and how many and how slow they may be is bounded.
//!
//! What they are answered is decided in `answer`.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::address::SocketAddress;
use super::answer::{Answers, refuse};
use super::api::{Code, Problem};
use super::app::Controlled;
use super::peer;
use crate::http::{self, ACCEPT_PAUSE};
use crate::supervisor::events::Asker;

/// What clients may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How many are answered at once. Those who follow events stay.
    clients: usize,
    /// How long one may take to send the head of its request.
    head: Duration,
}

const LIMITS: Limits = Limits { clients: 64, head: Duration::from_secs(5) };

/// How many may be told at once that they are not answered; further ones are closed without a word.
const REFUSALS: usize = 16;

/// How long that may take.
const REFUSAL: Duration = Duration::from_secs(5);

/// A server that listens.
pub struct Server<A> {
    listener: UnixListener,
    address: SocketAddress,
    answers: Answers<A>,
    limits: Limits,
    clients: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl<A: Controlled> Server<A> {
    /// A server of these apps at this socket, which is non-blocking.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub fn new(listener: StdListener, address: SocketAddress, apps: Vec<Arc<A>>) -> io::Result<Self> {
        Self::with(LIMITS, listener, address, apps)
    }

    fn with(
        limits: Limits,
        listener: StdListener,
        address: SocketAddress,
        apps: Vec<Arc<A>>,
    ) -> io::Result<Self> {
        Ok(Self {
            limits,
            listener: UnixListener::from_std(listener)?,
            address,
            answers: Answers::new(apps),
            clients: Arc::new(Semaphore::new(limits.clients)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
        })
    }

    /// Answers for ever.
    pub async fn serve(self) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a client at the control socket");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        let client = match peer::check_client(&stream, &self.address) {
            Ok(Ok(client)) => client,
            Ok(Err(stranger)) => {
                return self.refuse(stream, Problem::new(Code::Forbidden, stranger.to_string()));
            }
            Err(error) => return tracing::debug!(%error, "cannot tell who a client of the control socket is"),
        };
        match Arc::clone(&self.clients).try_acquire_owned() {
            Ok(turn) => {
                let by = Asker::Command { pid: client.pid, uid: client.uid };
                tokio::spawn(converse(stream, self.answers.clone(), by, self.limits.head, turn));
            }
            Err(_) => {
                let clients = self.limits.clients;
                let problem =
                    Problem::new(Code::Overloaded, format!("{clients} clients are connected already"));
                self.refuse(stream, problem.help("end those that follow events"));
            }
        }
    }

    fn refuse(&self, stream: UnixStream, problem: Problem) {
        let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let head = self.limits.head;
        tokio::spawn(async move {
            let service = service_fn(|_| {
                let problem = problem.clone();
                async { Ok::<_, std::convert::Infallible>(refuse(problem)) }
            });
            let _ = time::timeout(REFUSAL, http::converse(stream, service, head)).await;
            drop(turn);
        });
    }
}

async fn converse<A: Controlled>(
    stream: UnixStream,
    answers: Answers<A>,
    by: Asker,
    head: Duration,
    turn: OwnedSemaphorePermit,
) {
    let service = service_fn(|request| answers.clone().answer(request, by.clone()));
    http::converse(stream, service, head).await;
    drop(turn);
}

#[cfg(test)]
mod tests;
