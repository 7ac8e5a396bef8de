//! What a process of a worker asks or tells without wanting a channel. Each question has a connection of its own, and one
//! answer; what is told has none.

use std::os::fd::AsFd;
use std::time::Duration;

use super::admission::Refusal;
use super::handshake::AttachError;
use super::socket::AttachContext;
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire::{MAX_MESSAGE, ToWorker, Token};
use crate::supervisor::lifecycle::Signals;
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket;

/// How long it may take until the front has told of a server that it listens: another process of the launch may have
/// begun just now.
const NEWS: Duration = Duration::from_millis(20);

/// Hands out the server's own socket, of which this channel has taken the place.
pub(super) async fn fetch_socket(
    channel: &ForeignFd,
    token: Token,
    nonce: u64,
    context: &AttachContext,
) -> Result<(), AttachError> {
    let worker = whose(token, context).await?;
    let socket = context
        .served
        .bound
        .socket_of(worker, nonce)
        .ok_or(AttachError::Question(Refusal::UnknownChannel))??;
    let record = ToWorker::Socket;
    Ok(seqpacket::send(channel, record.encode(&mut [0; MAX_MESSAGE]), Some(socket.as_fd()))?)
}

/// Says whether any process of the launch has listened on this port, or by the channel that has this nonce, if that is
/// not 0.
pub(super) async fn ask_listened(
    channel: &ForeignFd,
    token: Token,
    (port, nonce): (WorkerPort, u64),
    context: &AttachContext,
) -> Result<(), AttachError> {
    let worker = whose(token, context).await?;
    // What is no port of clusterd's anybody may serve.
    let is_others = nonce == 0 && !context.served.serves(port).await;
    let has_listened = || match nonce {
        0 => is_others || context.served.bound.has_listened(worker, port),
        nonce => context.served.bound.channel_listens(worker, nonce),
    };
    let answer = ToWorker::HasListened(context.served.bound.becomes(NEWS, has_listened).await);
    Ok(seqpacket::send(channel, answer.encode(&mut [0; MAX_MESSAGE]), None)?)
}

/// Notes which signals the process on the launch's Node channel catches.
pub(super) async fn catches(token: Token, signals: u64, context: &AttachContext) -> Result<(), AttachError> {
    let told = context.supervisor.catches(token, Signals::from_bits(signals)).await;
    told.map(|_| ()).ok_or(AttachError::Question(Refusal::UnknownToken))
}

pub(super) async fn whose(token: Token, context: &AttachContext) -> Result<WorkerId, AttachError> {
    context.supervisor.admit(token).await.ok_or(AttachError::Question(Refusal::UnknownToken))
}
