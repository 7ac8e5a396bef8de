//! clusterd's own messages: `tracing` events, written as text or JSON lines to stderr.
//!
//! It decides how a message looks, not what it says. Writing one never waits.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::SystemTime;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry};

use super::look::Look;
use super::write::{Output, Stream};
use crate::config::LogFormat;

/// This process has a subscriber already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot set up clusterd's messages: this process has a tracing subscriber already, and can have only one"
)]
pub struct AlreadyInstalled;

/// Sends every event of this process from now on to the stderr of `output`: clusterd's from `level` upwards, those
/// of the libraries it uses only if they are warnings.
///
/// # Errors
/// [`AlreadyInstalled`] if there is another subscriber.
pub fn install(output: &Output, format: LogFormat, level: LevelFilter) -> Result<(), AlreadyInstalled> {
    let subscriber = subscriber(output.clone(), format, level);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyInstalled)
}

fn subscriber(output: Output, format: LogFormat, level: LevelFilter) -> impl Subscriber + Send + Sync {
    let wanted = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_PKG_NAME"), level);
    Registry::default().with(lines(output, format).with_filter(wanted))
}

fn lines(output: Output, format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let look = output.destination(Stream::Stderr).look;
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(Stderr(output))
        .with_timer(Utc);
    match (format, look) {
        (LogFormat::Json, _) => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        (LogFormat::Text, Look::Plain) => layer.with_ansi(false).boxed(),
        (LogFormat::Text, Look::Terminal { colour }) => layer.with_ansi(colour).without_time().boxed(),
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

/// The queue to stderr. The formatter writes each event at once, with its newline.
struct Stderr(Output);

/// A message is one line: a newline inside it, which may come from a worker or a client, would forge another.
fn one_line(message: &[u8]) -> Cow<'_, [u8]> {
    let body = message.strip_suffix(b"\n").unwrap_or(message);
    if !body.contains(&b'\n') {
        return Cow::Borrowed(message);
    }
    let mut line: Vec<u8> = body
        .iter()
        .map(|&byte| if byte == b'\n' { b' ' } else { byte })
        .collect();
    line.push(b'\n');
    Cow::Owned(line)
}

impl io::Write for &Stderr {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0
            .destination(Stream::Stderr)
            .queue
            .push_message(&one_line(message));
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = &'a Stderr;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}
