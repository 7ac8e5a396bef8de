//! clusterd's own messages: `tracing` events, written as text or JSON lines to stderr, or to a file of their own.
//!
//! It decides how a message looks, not what it says. Writing one never waits.

use std::fmt;
use std::io;
use std::time::SystemTime;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::console::Label;
use super::look::Look;
use super::queue::Queue;
use super::write::Output;
use crate::controls;
use crate::settings::LogFormat;

/// The target of the message that tells how many messages were dropped: it alone is never dropped itself.
pub(super) const REPORT_OF_DROPPED: &str = concat!(env!("CARGO_PKG_NAME"), "::logs::dropped");

/// This process has a subscriber already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot set up clusterd's messages: this process has a tracing subscriber already, and can have only one"
)]
pub struct AlreadyInstalled;

/// Sends every event of this process from now on to where `output` has them: clusterd's from `level` upwards, those
/// of the libraries it uses only if they are warnings.
///
/// # Errors
/// [`AlreadyInstalled`] if there is another subscriber.
pub fn install(output: &Output, format: LogFormat, level: LevelFilter) -> Result<(), AlreadyInstalled> {
    let look = output.own().look;
    let subscriber = subscriber(output.clone(), format, look, level);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| AlreadyInstalled)
}

fn subscriber(
    output: Output,
    format: LogFormat,
    look: Look,
    level: LevelFilter,
) -> impl Subscriber + Send + Sync {
    let wanted =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_PKG_NAME"), level);
    Registry::default().with(lines(output, format, look).with_filter(wanted))
}

fn lines(output: Output, format: LogFormat, look: Look) -> Box<dyn Layer<Registry> + Send + Sync> {
    let label = output.label().cloned();
    let layer = tracing_subscriber::fmt::layer().with_writer(Stderr(output));
    match format {
        LogFormat::Text => {
            let prefix = label.map(|label| label.prefix(look, None)).unwrap_or_default();
            layer.event_format(Text { look, prefix }).boxed()
        }
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(Utc)
            .map_event_format(|inner| Json { start: label.map(start_of_object).unwrap_or_default(), inner })
            .boxed(),
    }
}

/// With what every object begins, beside its bracket.
fn start_of_object(label: Label) -> String {
    let name = label.app.map(|app| serde_json::Value::from(app).to_string());
    name.map(|name| format!("\"app_name\":{name},")).unwrap_or_default()
}

/// An object on one line, as `inner` writes it, which begins with this.
struct Json<F> {
    inner: F,
    start: String,
}

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = String::new();
        self.inner.format_event(context, Writer::new(&mut object), event)?;
        NUMBERS.into_iter().for_each(|field| as_number(&mut object, field));
        write!(line, "{{{}{}", self.start, object.strip_prefix('{').unwrap_or(&object))
    }
}

/// Fields that are told as they are displayed, and are numbers.
const NUMBERS: [&str; 3] = ["worker", "worker_port", "port"];

/// Takes the quotes from this field's value if it is a number. Within a text every quote is escaped: what is found is the field.
fn as_number(object: &mut String, field: &str) {
    let head = format!("\"{field}\":\"");
    let Some(start) = object.find(&head).map(|at| at + head.len()) else { return };
    let digits = object[start..].bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && object[start + digits..].starts_with('"') {
        object.remove(start + digits);
        object.remove(start - 1);
    }
}

/// Time, level, message and fields on one line; without the time for someone who watches.
struct Text {
    look: Look,
    prefix: String,
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut line: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        line.write_str(&self.prefix)?;
        match self.look {
            Look::Plain => {
                Utc.format_time(&mut line)?;
                write!(line, " {level:>5} ")?;
            }
            Look::Terminal { colour: false } => write!(line, "{level:>5} ")?,
            Look::Terminal { colour: true } => write!(line, "\x1b[{}m{level:>5}\x1b[0m ", colour(level))?,
        }
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        // An error's hint has a line of its own, a message has one line.
        let text = text.replace("\nhint: ", "; hint: ");
        // A field may hold what a worker or a client chose: it must not forge a line or steer a terminal.
        for character in text.chars() {
            if controls::is_control(character) {
                write!(line, "{}", character.escape_default())?;
            } else {
                line.write_char(character)?;
            }
        }
        writeln!(line)
    }
}

/// The colour of a level, as a parameter of the escape sequence: red for an error, yellow for a warning.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        write!(w, "{}", humantime::format_rfc3339_millis(SystemTime::now()))
    }
}

/// The queue to where they are written.
struct Stderr(Output);

/// A message on its way into a queue. The formatter writes each event at once, with its newline.
enum Message<'a> {
    Ordinary(&'a Queue),
    /// How many of the others were dropped.
    Report(&'a Queue),
}

impl io::Write for Message<'_> {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Ordinary(queue) => queue.push_message(message),
            Self::Report(queue) => queue.push_report(message),
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Message::Ordinary(&self.0.own().queue)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let queue = &self.0.own().queue;
        if metadata.target() == REPORT_OF_DROPPED { Message::Report(queue) } else { Message::Ordinary(queue) }
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::Slot;
    use std::io::{Read, pipe};

    use super::*;

    /// What comes out on stderr when `say` runs with such a subscriber.
    fn written(format: LogFormat, level: LevelFilter, say: impl FnOnce()) -> String {
        written_as(Look::Plain, format, level, say)
    }

    fn written_as(look: Look, format: LogFormat, level: LevelFilter, say: impl FnOnce()) -> String {
        written_beside(None, (format, look), level, say)
    }

    fn written_beside(
        label: Option<Label>,
        (format, look): (LogFormat, Look),
        level: LevelFilter,
        say: impl FnOnce(),
    ) -> String {
        let ((_stdout, out), (mut stderr, err)) = (pipe().unwrap(), pipe().unwrap());
        let output = Output::on_pipes((out.into(), err.into()), label);
        tracing::subscriber::with_default(subscriber(output, format, look, level), say);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn text_is_a_line_with_time_level_message_and_fields() {
        let text = written(LogFormat::Text, LevelFilter::INFO, || {
            tracing::info!(address = %"[::]:3000", workers = 4, "listening");
        });
        let (time, rest) = text.split_once(' ').unwrap();
        humantime::parse_rfc3339(time).unwrap();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000Z".len());
        assert_eq!(rest, " INFO listening address=[::]:3000 workers=4\n");
    }

    #[test]
    fn json_is_an_object_a_line() {
        let text = written(LogFormat::Json, LevelFilter::INFO, || {
            tracing::warn!(worker = 2, reason = "a \"quoted\"\nword", "worker exited");
        });
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "worker exited");
        assert_eq!(object["worker"], 2);
        assert_eq!(object["reason"], "a \"quoted\"\nword");
        let text = written(LogFormat::Json, LevelFilter::INFO, || {
            tracing::info!(worker = %Slot(2), program = "1", "says \"worker\":\"3\"");
        });
        let object: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((&object["worker"], &object["program"]), (&2.into(), &"1".into()));
        assert_eq!(object["message"], "says \"worker\":\"3\"");
        humantime::parse_rfc3339(object["timestamp"].as_str().unwrap()).unwrap();
    }

    #[test]
    fn where_others_write_too_each_message_says_which_app_it_is_of() {
        let say = || tracing::warn!("slow");
        let written = |app: Option<&str>, format| {
            let label = Label { app: app.map(str::to_owned), width: 5, number: 0 };
            written_beside(Some(label), (format, Look::Plain), LevelFilter::INFO, say)
        };
        let text = written(Some("web"), LogFormat::Text);
        assert!(text.starts_with("web   | 2") && text.ends_with("Z  WARN slow\n"), "{text:?}");
        let object = |app| serde_json::from_str::<serde_json::Value>(&written(app, LogFormat::Json)).unwrap();
        assert_eq!(object(Some("a\"b"))["app_name"], "a\"b");
        assert_eq!((&object(Some("web"))["message"], object(None).get("app_name")), (&"slow".into(), None));
    }

    #[test]
    fn the_level_decides_what_is_written() {
        let say = || {
            tracing::error!("an error");
            tracing::warn!("a warning");
            tracing::info!("an information");
            tracing::info!(target: "hyper", "of a library");
            tracing::warn!(target: "hyper", "a library's warning");
        };
        let lines = |level| written(LogFormat::Text, level, say).lines().count();
        assert_eq!(lines(LevelFilter::OFF), 0);
        assert_eq!(lines(LevelFilter::ERROR), 1);
        assert_eq!(lines(LevelFilter::WARN), 3);
        assert_eq!(lines(LevelFilter::TRACE), 4);
    }

    #[test]
    fn a_message_cannot_forge_another_line_or_colour_the_terminal() {
        let text = written(LogFormat::Text, LevelFilter::INFO, || {
            tracing::info!(program = %"x\nERROR forged \x1b[31m\u{202e}", "started");
        });
        let expected = " INFO started program=x\\nERROR forged \\u{1b}[31m\\u{202e}\n";
        assert!(text.ends_with(expected), "{text:?}");
    }

    #[test]
    fn a_terminal_gets_no_time_and_colours_if_it_likes() {
        let table = [(false, " WARN slow worker=2\n"), (true, "\x1b[33m WARN\x1b[0m slow worker=2\n")];
        for (colour, expected) in table {
            let say = || tracing::warn!(worker = 2, "slow");
            let look = Look::Terminal { colour };
            assert_eq!(written_as(look, LogFormat::Text, LevelFilter::INFO, say), expected);
        }
    }
}
