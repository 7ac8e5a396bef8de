//! A command line in PM2's words: its verb, options and words.
//!
//! It only reads: what is meant by them is [`verbs`](crate::cli::verbs)' affair.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The first word; `None` if there is none.
    pub verb: Option<String>,
    /// The others.
    pub words: Vec<String>,
    /// What stands behind `--`.
    pub behind: Vec<String>,
    /// By their long names without the dashes; `true` without a value.
    pub options: BTreeMap<String, Said>,
    /// What stands behind the verb, as it is.
    pub raw: Vec<String>,
}

/// What was said for an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// That it is on, or off.
    Truth(bool),
    /// Its values.
    Texts(Vec<String>),
}

/// A word that PM2 does not know, or that lacks its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRead {
    /// No such option.
    #[error("unknown option {0}\nhint: arguments of the app stand behind --: pm2 start app.js -- {0}")]
    Unknown(String),
    /// No value.
    #[error("{0} needs a value")]
    NoValue(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// One if the next word is none of an option, and a script was named before.
    MaybeValue,
}

use Takes::{MaybeValue, Nothing, Value as One};

/// Every option of PM2 7, for all of its verbs: long name, short name.
const OPTIONS: [(&str, Option<char>, Takes); 79] = [
    ("name", Some('n'), One),
    ("instances", Some('i'), One),
    ("output", Some('o'), One),
    ("error", Some('e'), One),
    ("log", Some('l'), MaybeValue),
    ("force", Some('f'), Nothing),
    ("update-env", Some('a'), Nothing),
    ("execute-command", Some('x'), Nothing),
    ("kill-timeout", Some('k'), One),
    ("pid", Some('p'), One),
    ("cron", Some('c'), One),
    ("cron-restart", None, One),
    ("write", Some('w'), Nothing),
    ("user", Some('u'), One),
    ("mini-list", Some('m'), Nothing),
    ("silent", Some('s'), Nothing),
    ("version", Some('v'), Nothing),
    ("help", Some('h'), Nothing),
    ("ext", None, One),
    ("interpreter", None, One),
    ("interpreter-args", None, One),
    ("node-args", None, One),
    ("filter-env", None, MaybeValue),
    ("log-type", None, One),
    ("log-date-format", None, One),
    ("time", None, Nothing),
    ("disable-logs", None, Nothing),
    ("env", None, One),
    ("parallel", None, One),
    ("shutdown-with-message", None, Nothing),
    ("listen-timeout", None, One),
    ("max-memory-restart", None, One),
    ("restart-delay", None, One),
    ("exp-backoff-restart-delay", None, One),
    ("max-restarts", None, MaybeValue),
    ("min-uptime", None, One),
    ("uid", None, One),
    ("gid", None, One),
    ("namespace", None, One),
    ("cwd", None, One),
    ("hp", None, One),
    ("wait-ip", None, Nothing),
    ("service-name", None, One),
    ("no-daemon", None, Nothing),
    ("source-map-support", None, Nothing),
    ("disable-source-map-support", None, Nothing),
    ("only", None, One),
    ("wait-ready", None, Nothing),
    ("merge-logs", None, Nothing),
    ("watch", None, MaybeValue),
    ("ignore-watch", None, One),
    ("watch-delay", None, One),
    ("no-color", None, Nothing),
    ("no-vizion", None, Nothing),
    ("no-autostart", None, Nothing),
    ("no-autorestart", None, Nothing),
    ("stop-exit-codes", None, One),
    ("no-treekill", None, Nothing),
    ("no-pmx", None, Nothing),
    ("no-automation", None, Nothing),
    ("trace", None, Nothing),
    ("disable-trace", None, Nothing),
    ("sort", None, One),
    ("attach", None, Nothing),
    ("v8", None, Nothing),
    ("event-loop-inspector", None, Nothing),
    ("deep-monitoring", None, Nothing),
    ("port", None, One),
    ("spa", None, Nothing),
    ("basic-auth-username", None, One),
    ("basic-auth-password", None, One),
    ("lines", None, One),
    ("raw", None, Nothing),
    ("json", None, Nothing),
    ("format", None, Nothing),
    ("err", None, Nothing),
    ("out", None, Nothing),
    ("nostream", None, Nothing),
    ("timestamp", None, MaybeValue),
];

impl Line {
    /// Reads what stands behind the program's name.
    ///
    /// # Errors
    /// An option is none of PM2's, or lacks its value.
    pub(crate) fn read(arguments: &[String]) -> Result<Self, NotRead> {
        let mut line = Line::default();
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            if line.verb.is_some() {
                line.raw.push(word.clone());
            }
            if word == "--" {
                line.behind = rest.by_ref().cloned().collect();
                line.raw.extend(line.behind.iter().cloned());
            } else if let Some((name, takes, attached)) = option(word)? {
                let next = rest.as_slice().first().filter(|next| !next.starts_with('-'));
                let value = match (takes, attached) {
                    (_, Some(value)) => Some(value),
                    (Nothing, None) => None,
                    (MaybeValue, None) if next.is_none() || line.words.is_empty() => None,
                    // A number may be negative: `-i -1`.
                    (One | MaybeValue, None) => {
                        Some(rest.next().cloned().ok_or_else(|| NotRead::NoValue(word.clone()))?)
                    }
                };
                if line.verb.is_some()
                    && let Some(value) = value.as_ref().filter(|_| !word.contains('='))
                {
                    line.raw.push(value.clone());
                }
                line.note(name, value);
            } else if line.verb.is_none() {
                line.verb = Some(word.clone());
            } else {
                line.words.push(word.clone());
            }
        }
        Ok(line)
    }

    fn note(&mut self, name: &str, value: Option<String>) {
        match value {
            None => {
                let (name, truth) = name.strip_prefix("no-").map_or((name, true), |name| (name, false));
                self.options.insert(name.to_owned(), Said::Truth(truth));
            }
            Some(value) => match self.options.get_mut(name) {
                Some(Said::Texts(texts)) => texts.push(value),
                _ => drop(self.options.insert(name.to_owned(), Said::Texts(vec![value]))),
            },
        }
    }

    /// Whether this option is on.
    pub(crate) fn has(&self, name: &str) -> bool {
        !matches!(self.options.get(name), None | Some(Said::Truth(false)))
    }

    /// Takes what was said for this option.
    pub(crate) fn take(&mut self, name: &str) -> Option<Vec<String>> {
        match self.options.remove(name)? {
            Said::Texts(texts) => Some(texts),
            Said::Truth(_) => Some(Vec::new()),
        }
    }

    /// The options as an app of an ecosystem file has them.
    pub(crate) fn keys(&self) -> Map<String, Value> {
        let value = |name: &str, said: &Said| match said {
            Said::Truth(truth) => Value::from(*truth),
            // These are lists in a file.
            Said::Texts(texts)
                if matches!(name, "watch" | "ignore-watch" | "filter-env" | "stop-exit-codes") =>
            {
                texts.iter().flat_map(|text| text.split([',', ' '])).filter(|text| !text.is_empty()).collect()
            }
            Said::Texts(texts) => Value::from(texts.last().cloned().unwrap_or_default()),
        };
        let key = |name: &str| match name {
            "interpreter-args" => "node_args".to_owned(),
            name => name.replace('-', "_"),
        };
        self.options.iter().map(|(name, said)| (key(name), value(name, said))).collect()
    }
}

/// An option: its name, whether it takes a value, and the value that is attached to it.
type Given = (&'static str, Takes, Option<String>);

/// The option that a word is, with what is attached to it: `--name=web`, `-i4`.
fn option(word: &str) -> Result<Option<Given>, NotRead> {
    let unknown = || NotRead::Unknown(word.to_owned());
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let found = OPTIONS.iter().find(|(known, ..)| *known == name).ok_or_else(unknown)?;
        return Ok(Some((found.0, found.2, value.map(str::to_owned))));
    }
    let Some(short) = word.strip_prefix('-').filter(|rest| !rest.is_empty() && !super::is_number(rest))
    else {
        return Ok(None);
    };
    let mut characters = short.chars();
    let first = characters.next();
    let found = OPTIONS.iter().find(|(_, known, _)| *known == first).ok_or_else(unknown)?;
    let attached = Some(characters.as_str()).filter(|rest| !rest.is_empty());
    if attached.is_some() && found.2 == Nothing {
        return Err(unknown());
    }
    Ok(Some((found.0, found.2, attached.map(str::to_owned))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Result<Line, NotRead> {
        Line::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_stand_anywhere_and_arguments_behind_the_dashes() {
        let line =
            read("-s start app.js -i 4 --name=web -o out.log --watch --no-autorestart -- --arg -x").unwrap();
        assert_eq!(line.verb.as_deref(), Some("start"));
        assert_eq!(
            (line.words.as_slice(), line.behind.as_slice()),
            (&["app.js".into()][..], &["--arg".into(), "-x".into()][..])
        );
        assert!(line.has("silent") && !line.has("autorestart") && !line.has("force"));
        let keys = json!({
            "silent": true, "instances": "4", "name": "web", "output": "out.log", "watch": true, "autorestart": false,
        });
        assert_eq!(Value::Object(line.keys()), keys);
        let raw = [
            "app.js",
            "-i",
            "4",
            "--name=web",
            "-o",
            "out.log",
            "--watch",
            "--no-autorestart",
            "--",
            "--arg",
            "-x",
        ];
        assert_eq!(line.raw, raw);
    }

    #[test]
    fn some_options_may_have_a_value() {
        let watched = |line: &str| read(line).unwrap().keys()["watch"].clone();
        assert_eq!(watched("start --watch app.js"), json!(true));
        assert_eq!(watched("start app.js --watch src --watch lib,test"), json!(["src", "lib", "test"]));
        assert_eq!(read("start app.js -i -1").unwrap().keys()["instances"], "-1");
        assert_eq!(read("scale app -1").unwrap().words, ["app", "-1"]);
        assert_eq!(read("start a.js -i4").unwrap().keys()["instances"], "4");
    }

    #[test]
    fn what_is_no_option_is_named() {
        assert_eq!(read("start app.js --prot 3000"), Err(NotRead::Unknown("--prot".to_owned())));
        assert_eq!(read("start app.js -q"), Err(NotRead::Unknown("-q".to_owned())));
        assert_eq!(read("start app.js --name"), Err(NotRead::NoValue("--name".to_owned())));
        assert_eq!(read(""), Ok(Line::default()));
    }
}
