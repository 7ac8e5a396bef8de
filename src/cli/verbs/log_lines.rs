//! Lines of logs, as they are shown: with the app that they are of, or as objects.
//!
//! It reads no files and prints nothing.

use chrono::{DateTime, Local, SecondsFormat, Utc};
use serde::Serialize;

use crate::controls;
use crate::ids::Slot;
use crate::logs::look::{Look, coloured};
use crate::logs::plan::SourceKind;
use crate::settings::date_format::DateFormat;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogLine {
    /// Where it is from.
    pub origin: Origin,
    /// Without its end.
    pub text: String,
    /// When it was written, if that is known.
    pub time: Option<DateTime<Local>>,
}

/// Where lines are from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    /// The app.
    pub app: String,
    /// The app's place among those that are shown.
    pub number: usize,
    /// What is in the file.
    pub kind: SourceKind,
    /// The worker, where each has files of its own, and its number among all apps.
    pub worker: Option<(Slot, u32)>,
}

/// How lines are shown.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// For people.
    Text {
        /// Where they are shown.
        look: Look,
        /// The time before each.
        stamp: Option<DateFormat>,
        /// What stands out.
        highlight: Option<String>,
    },
    /// As they are in the file.
    Raw,
    /// As objects, a line each.
    Json,
    /// As `key=value`.
    Pairs,
}

/// With PM2's keys, and the worker.
#[derive(Serialize)]
struct Object<'a> {
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<u32>,
    app_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
}

impl Form {
    /// A line as it is shown, with its end; labels are so wide.
    pub(super) fn shown(&self, line: &LogLine, width: usize) -> String {
        match self {
            Self::Raw => format!("{}\n", line.text),
            Self::Json => format!("{}\n", controls::escaped_json(&json(line))),
            Self::Pairs => pairs(line),
            Self::Text { look, stamp, highlight } => {
                let label = format!("{:width$} |", line.origin.label());
                let is_coloured = *look == Look::Terminal { colour: true };
                let label = if is_coloured { coloured(&label, line.origin.number) } else { label };
                let stamp =
                    stamp.as_ref().zip(line.time).map(|(stamp, time)| format!("{}: ", stamp.write(&time)));
                let text = if *look == Look::Plain { line.text.clone() } else { harmless(&line.text) };
                let text = match highlight {
                    Some(word) => text.replace(word.as_str(), &format!("\x1b[7m{word}\x1b[27m")),
                    None => text,
                };
                format!("{label} {}{text}\n", stamp.unwrap_or_default())
            }
        }
    }
}

impl LogLine {
    /// When it was written, if that is known.
    pub(super) fn time(&self) -> Option<DateTime<Local>> {
        self.time
    }
}

impl Origin {
    /// Before each line.
    pub(super) fn label(&self) -> String {
        let worker = self.worker.map(|(slot, _)| format!(" {slot}")).unwrap_or_default();
        format!("{}{worker} {}", self.app, self.kind.name())
    }
}

/// What is an object already stays as it is.
fn json(line: &LogLine) -> String {
    let is_object = line.text.starts_with('{')
        && serde_json::from_str::<serde_json::Value>(&line.text)
            .is_ok_and(|object| object.get("app_name").is_some());
    if is_object {
        return line.text.clone();
    }
    let object = Object {
        message: &line.text,
        timestamp: line.time.map(rfc3339),
        r#type: line.origin.kind.name(),
        process_id: line.origin.worker.map(|(_, id)| id),
        app_name: &line.origin.app,
        worker: line.origin.worker.map(|(slot, _)| slot.0),
    };
    serde_json::to_string(&object).expect("texts and numbers can be written")
}

fn pairs(line: &LogLine) -> String {
    let time = line.time.map(|time| format!("timestamp={} ", rfc3339(time))).unwrap_or_default();
    let worker = line.origin.worker.map(|(slot, _)| format!("worker={slot} ")).unwrap_or_default();
    let (app, kind) = (&line.origin.app, line.origin.kind.name());
    format!("{time}app={app} {worker}type={kind} message={}\n", line.text)
}

fn rfc3339(time: DateTime<Local>) -> String {
    time.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What a terminal may be given: colours and tabs stay, what else steers it does not.
fn harmless(text: &str) -> String {
    let (mut shown, mut rest, mut has_colour) = (String::with_capacity(text.len()), text, false);
    while let Some(character) = rest.chars().next() {
        if let Some(length) = colour_at(rest) {
            shown += &rest[..length];
            rest = &rest[length..];
            has_colour = true;
            continue;
        }
        let is_hidden = controls::is_control(character) && character != '\t';
        shown.push(if is_hidden { ' ' } else { character });
        rest = &rest[character.len_utf8()..];
    }
    if has_colour {
        shown += "\x1b[0m";
    }
    shown
}

/// The length of the escape sequence for a colour (SGR, ECMA-48) that begins here.
fn colour_at(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|character: char| !matches!(character, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn at(second: u32) -> DateTime<Local> {
        Local.with_ymd_and_hms(2026, 11, 28, 12, 0, second).unwrap()
    }

    fn line(text: &str, time: Option<u32>) -> LogLine {
        let origin =
            Origin { app: "web".to_owned(), number: 0, kind: SourceKind::Out, worker: Some((Slot(2), 7)) };
        LogLine { origin, text: text.to_owned(), time: time.map(at) }
    }

    #[test]
    fn a_line_is_shown_as_it_was_asked_for() {
        let text = |look, highlight: Option<&str>| Form::Text {
            look,
            stamp: DateFormat::of("ss").ok(),
            highlight: highlight.map(str::to_owned),
        };
        let hello = line("hello\x1b[2J", Some(7));
        let table = [
            (Form::Raw, "hello\x1b[2J\n"),
            (text(Look::Plain, None), "web 2 out   | 07: hello\x1b[2J\n"),
            (
                text(Look::Terminal { colour: false }, Some("ell")),
                "web 2 out   | 07: h\x1b[7mell\x1b[27mo [2J\n",
            ),
            (text(Look::Terminal { colour: true }, None), "\x1b[36mweb 2 out   |\x1b[0m 07: hello [2J\n"),
        ];
        for (form, expected) in table {
            assert_eq!(form.shown(&hello, 11), expected, "{form:?}");
        }
        let object: serde_json::Value = serde_json::from_str(&Form::Json.shown(&hello, 0)).unwrap();
        assert_eq!(object["message"], "hello\x1b[2J");
        assert_eq!((&object["process_id"], &object["worker"]), (&7.into(), &2.into()));
        let own = r#"{"message":"x","app_name":"web"}"#;
        assert_eq!(Form::Json.shown(&line(own, None), 0), format!("{own}\n"));
        assert_eq!(Form::Pairs.shown(&line("a b", None), 0), "app=web worker=2 type=out message=a b\n");
    }

    #[test]
    fn a_terminal_gets_colours_and_nothing_else_that_it_obeys() {
        let table = [
            ("plain\ttext", "plain\ttext"),
            ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m\x1b[0m"),
            ("\x1b[2J\x1b]0;title\x07\r", " [2J ]0;title  "),
            ("\x1b[", " ["),
            ("\x1b[38:5:1m\u{202e}", "\x1b[38:5:1m \x1b[0m"),
        ];
        for (text, expected) in table {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }
}
