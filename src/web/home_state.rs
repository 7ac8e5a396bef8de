//! What a page has to know of a home when it is opened: all that its apps have said, without what is outdated.
//!
//! Pure: it hears what was told, and says what is new for pages. What apps tell of themselves is passed on as it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use crate::control::client::Clusterd;
use crate::home::at_rest::Resting;

/// How many events of each app are kept: as many as its clusterd keeps.
pub(crate) const EVENTS: usize = 256;

/// What was told.
#[derive(Debug)]
pub(crate) enum Told {
    /// A line of [`Live`](crate::control::api::Live), from the clusterd of an app.
    Line(Clusterd, String),
    /// A clusterd does not answer, for this reason.
    Silent(Clusterd, String),
    /// A clusterd has exited.
    Gone(Clusterd),
    /// The home folder was looked at: the apps in it that do not run.
    AtRest(Vec<Resting>),
}

/// A line, of which only is read what has to be known.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    #[serde(borrow)]
    History(Past<'a>),
    #[serde(borrow)]
    App(&'a RawValue),
    Tick(IgnoredAny),
    #[serde(borrow)]
    Event(Happened<'a>),
}

#[derive(Deserialize)]
struct Past<'a> {
    pid: u32,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Happened<'a> {
    pid: u32,
    #[serde(borrow)]
    event: &'a RawValue,
}

#[derive(Deserialize)]
struct Identity {
    name: String,
    pid: u32,
}

/// An app that was heard of.
#[derive(Debug, Default)]
struct App {
    /// Its name, once it was told.
    name: Option<String>,
    /// The process id of its clusterd, once it was told.
    pid: Option<u32>,
    /// The last line that tells all of it.
    state: Option<String>,
    events: VecDeque<Box<str>>,
    /// Why it does not answer, if so.
    silent: Option<String>,
}

impl App {
    /// What pages are told of an app that they know, and that does not answer.
    fn silence(&self) -> Option<String> {
        let (pid, why) = (self.pid.filter(|_| self.state.is_some())?, self.silent.as_ref()?);
        Some(json!({ "silent": { "pid": pid, "why": why } }).to_string())
    }
}

/// The home.
#[derive(Debug, Default)]
pub(crate) struct HomeState {
    apps: BTreeMap<Clusterd, App>,
    at_rest: Vec<Resting>,
    /// What was last told of those that do not run or do not answer.
    told: String,
}

impl HomeState {
    /// Hears what was told; what is new for the pages, which is one object or nothing.
    pub(crate) fn hear(&mut self, told: Told) -> Option<String> {
        match told {
            Told::Line(clusterd, line) => self.line(clusterd, line),
            Told::Silent(clusterd, why) => {
                let app = self.apps.entry(clusterd).or_default();
                let is_news = app.silent.as_ref() != Some(&why);
                app.silent = Some(why);
                match app.silence() {
                    Some(silence) => is_news.then_some(silence),
                    None => self.resting(),
                }
            }
            Told::Gone(clusterd) => {
                let pid = self.apps.remove(&clusterd)?.pid?;
                Some(json!({ "gone": { "pid": pid } }).to_string())
            }
            Told::AtRest(apps) => {
                self.at_rest = apps;
                self.resting()
            }
        }
    }

    fn line(&mut self, clusterd: Clusterd, line: String) -> Option<String> {
        // It ends a line of server-sent events, and JSON has it only between its words.
        if line.contains(['\n', '\r']) {
            return None;
        }
        // What a newer clusterd tells besides is for newer pages.
        let read: Line<'_> = serde_json::from_str(&line).ok()?;
        let app = self.apps.entry(clusterd).or_default();
        app.silent = None;
        match read {
            Line::History(past) => {
                app.pid = Some(past.pid);
                let older = past.events.len().saturating_sub(EVENTS);
                app.events = past.events.iter().skip(older).map(|event| event.get().into()).collect();
            }
            Line::Event(happened) => {
                app.pid = Some(happened.pid);
                if app.events.len() >= EVENTS {
                    app.events.pop_front();
                }
                app.events.push_back(happened.event.get().into());
            }
            Line::App(state) => {
                let Identity { name, pid } = serde_json::from_str(state.get()).ok()?;
                (app.name, app.pid) = (Some(name), Some(pid));
                app.state = Some(line.clone());
            }
            Line::Tick(_) => {}
        }
        Some(line)
    }

    /// Those that were heard of, or did not answer.
    pub(crate) fn clusterds(&self) -> Vec<Clusterd> {
        self.apps.keys().cloned().collect()
    }

    /// The names of the apps that were heard of.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.apps.values().filter_map(|app| app.name.clone()).collect()
    }

    /// Those that do not run or do not answer, if that is new.
    fn resting(&mut self) -> Option<String> {
        let now = self.resting_now();
        (now != self.told).then(|| {
            self.told.clone_from(&now);
            now
        })
    }

    fn resting_now(&self) -> String {
        let of_unknown = |(at, app)| -> Option<(&Clusterd, &App, &String)> {
            let app: &App = app;
            Some((at, app, app.silent.as_ref().filter(|_| app.state.is_none())?))
        };
        let silent: Vec<_> = self.apps.iter().filter_map(of_unknown).collect();
        let name = |at: &Clusterd, app: &App| app.name.clone().or_else(|| at.app_name());
        let unanswered = silent.iter().filter_map(|(at, app, _)| Some(Resting::unanswered(&name(at, app)?)));
        let apps: Vec<_> = self.at_rest.iter().cloned().chain(unanswered).collect();
        let errors: Vec<_> = silent.iter().map(|(.., why)| why).collect();
        json!({ "resting": { "apps": apps, "errors": errors } }).to_string()
    }

    /// All that a page has to know, an object each.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut all = vec![self.resting_now()];
        for app in self.apps.values() {
            if let Some(pid) = app.pid {
                all.push(history(pid, &app.events));
            }
            all.extend(app.state.clone());
            all.extend(app.silence());
        }
        all
    }
}

fn history(pid: u32, events: &VecDeque<Box<str>>) -> String {
    let mut text = format!(r#"{{"history":{{"pid":{pid},"events":["#);
    for (index, event) in events.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{event}");
    }
    text.push_str("]}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::address::SocketAddress;

    fn clusterd(name: &str) -> Clusterd {
        Clusterd::at(SocketAddress::Abstract(name.to_owned()))
    }

    fn line(of: &str, text: &str) -> Told {
        Told::Line(clusterd(of), text.to_owned())
    }

    #[test]
    fn who_comes_later_learns_what_holds_now() {
        let mut home = HomeState::default();
        let told = [
            r#"{"history":{"pid":7,"events":[{"event":"a"}]}}"#,
            r#"{"tick":{"pid":7,"accepted":1}}"#,
            r#"{"app":{"name":"web","pid":7,"wanted":1}}"#,
            r#"{"event":{"pid":7,"event":{"event":"b"}}}"#,
            r#"{"app":{"name":"web","pid":7,"wanted":2}}"#,
        ];
        for text in told {
            assert_eq!(home.hear(line("web-7", text)).as_deref(), Some(text), "it is passed on as it is");
        }
        assert_eq!(home.names(), ["web".to_owned()].into());
        assert_eq!(
            home.all(),
            [
                r#"{"resting":{"apps":[],"errors":[]}}"#,
                r#"{"history":{"pid":7,"events":[{"event":"a"},{"event":"b"}]}}"#,
                r#"{"app":{"name":"web","pid":7,"wanted":2}}"#,
            ]
        );
        let gone = home.hear(Told::Gone(clusterd("web-7")));
        assert_eq!(gone.as_deref(), Some(r#"{"gone":{"pid":7}}"#));
        assert_eq!(home.hear(Told::Gone(clusterd("web-7"))), None);
        assert_eq!(home.all().len(), 1);
    }

    #[test]
    fn what_makes_no_sense_is_not_passed_on() {
        let mut home = HomeState::default();
        for text in [
            "",
            "{",
            "{\"tick\":\r{}}",
            r#"{"moon":{}}"#,
            r#"{"app":{}}"#,
            r#"{"app":{"name":"a","pid":1}}{"app":1}"#,
        ] {
            assert_eq!(home.hear(line("web-7", text)), None, "{text}");
        }
    }

    #[test]
    fn what_is_at_rest_is_told_when_that_is_new() {
        let mut home = HomeState::default();
        let old = || vec![Resting { name: "old".to_owned(), state: "stopped" }];
        let first = home.hear(Told::AtRest(old()));
        assert_eq!(
            first.as_deref(),
            Some(r#"{"resting":{"apps":[{"name":"old","state":"stopped"}],"errors":[]}}"#)
        );
        assert_eq!(home.hear(Told::AtRest(old())), None);
        let silent = home.hear(Told::Silent(clusterd("web-7"), "it is stuck".to_owned()));
        assert!(silent.is_some_and(
            |told| told.contains(r#"{"name":"web","state":"no answer"}"#) && told.contains("it is stuck")
        ));
        home.hear(line("web-7", r#"{"app":{"name":"web","pid":7}}"#));
        assert_eq!(home.hear(Told::AtRest(old())), first, "it answers");
    }

    #[test]
    fn an_app_that_is_known_and_stops_answering_is_no_second_one() {
        let mut home = HomeState::default();
        home.hear(Told::AtRest(Vec::new()));
        let app = r#"{"app":{"name":"web","pid":7}}"#;
        home.hear(line("web-7", app));
        let silent = || Told::Silent(clusterd("web-7"), "it is stuck".to_owned());
        let told = r#"{"silent":{"pid":7,"why":"it is stuck"}}"#;
        assert_eq!(home.hear(silent()).as_deref(), Some(told));
        assert_eq!(home.hear(silent()), None, "that is known");
        let all = home.all();
        assert_eq!(
            (all[0].as_str(), all.last().map(String::as_str)),
            (r#"{"resting":{"apps":[],"errors":[]}}"#, Some(told))
        );
        home.hear(line("web-7", app));
        assert_eq!(home.all().last().map(String::as_str), Some(app), "it answers again");
    }

    #[test]
    fn only_so_many_events_are_kept() {
        let mut home = HomeState::default();
        for number in 0..1000 {
            home.hear(line("web-7", &format!(r#"{{"event":{{"pid":7,"event":{number}}}}}"#)));
        }
        let all = home.all();
        assert!(all[1].starts_with(r#"{"history":{"pid":7,"events":[744,745,"#), "{}", &all[1][..60]);
        assert!(all[1].ends_with(",999]}}"));
        let events = vec!["1"; EVENTS].join(",");
        home.hear(line("web-7", &format!(r#"{{"history":{{"pid":7,"events":[0,{events}]}}}}"#)));
        assert_eq!(home.all()[1], format!(r#"{{"history":{{"pid":7,"events":[{events}]}}}}"#));
    }
}
