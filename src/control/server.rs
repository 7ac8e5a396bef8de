//! The control socket's clients: who they are is looked at, and how many and how slow they may be is bounded.
//!
//! What they are answered is decided in [`answer`](super::answer).

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

use super::answer::{Answers, refuse};
use super::api::{Code, Problem};
use super::app::Controlled;
use super::peer;
use super::place::Place;
use crate::http::{self, ACCEPT_PAUSE};
use crate::supervisor::events::Asker;
use crate::sys::seqpacket::Peer;

/// How many clients may be answered at once. Those who follow events stay.
const CLIENTS: usize = 64;

/// How many may be told at once that they are not answered; further ones are closed without a word.
const REFUSALS: usize = 16;

/// How long a client may take to send the head of its request.
const HEAD: Duration = Duration::from_secs(5);

/// How long a client may take to be refused.
const REFUSAL: Duration = Duration::from_secs(5);

/// A server that listens.
pub struct Server<A> {
    listener: UnixListener,
    place: Place,
    answers: Answers<A>,
    clients: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl<A: Controlled> Server<A> {
    /// A server of these apps at this socket, which is non-blocking.
    ///
    /// # Errors
    /// The socket cannot be watched (epoll_ctl(2)).
    pub fn new(listener: StdListener, place: Place, apps: Vec<Arc<A>>) -> io::Result<Self> {
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            place,
            answers: Answers::new(apps),
            clients: Arc::new(Semaphore::new(CLIENTS)),
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
        let client = match peer::check_client(&stream, &self.place) {
            Ok(Ok(client)) => client,
            Ok(Err(stranger)) => {
                return self.refuse(stream, Problem::new(Code::Forbidden, stranger.to_string()));
            }
            Err(error) => return tracing::debug!(%error, "cannot tell who a client of the control socket is"),
        };
        match Arc::clone(&self.clients).try_acquire_owned() {
            Ok(turn) => drop(tokio::spawn(converse(stream, client, self.answers.clone(), turn))),
            Err(_) => {
                let problem =
                    Problem::new(Code::Overloaded, format!("{CLIENTS} clients are connected already"));
                self.refuse(stream, problem.help("end those that follow events"));
            }
        }
    }

    fn refuse(&self, stream: UnixStream, problem: Problem) {
        let Ok(turn) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let service = service_fn(|_| {
                let problem = problem.clone();
                async { Ok::<_, std::convert::Infallible>(refuse(problem)) }
            });
            let _ = time::timeout(REFUSAL, http::converse(stream, service, HEAD)).await;
            drop(turn);
        });
    }
}

async fn converse<A: Controlled>(
    stream: UnixStream,
    client: Peer,
    answers: Answers<A>,
    turn: OwnedSemaphorePermit,
) {
    let by = Asker::Command { pid: client.pid, uid: client.uid };
    let service = service_fn(|request| answers.clone().answer(request, by.clone()));
    http::converse(stream, service, HEAD).await;
    drop(turn);
}
