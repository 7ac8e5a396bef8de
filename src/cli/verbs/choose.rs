//! Which app is meant: by its name, its namespace or a pattern, by the number of a worker, by the pid of its clusterd, or
//! because there is no other.
//!
//! It asks nobody, it only chooses among what was found.

use regex_lite::Regex;

use crate::control::api::App;
use crate::control::client::{Clusterd, Found};
use crate::home::ids::Ids;
use crate::ids::Slot;

/// How many apps a verb may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Many {
    /// One.
    One,
    /// One, or `all`.
    All,
}

/// It is not clear which app is meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChosen {
    /// There is none.
    #[error("{}{}{}", nothing(.wanted.as_deref()), .silent.as_deref().map(|why| format!(": {why}")).unwrap_or_default(), hint_at_rest(.at_rest))]
    Nothing {
        /// What was asked for.
        wanted: Option<String>,
        /// The apps that do not run.
        at_rest: Vec<String>,
        /// Why one that may run says nothing.
        silent: Option<String>,
    },
    /// There is one, but it cannot be asked.
    #[error("cannot ask the running clusterd: {why}")]
    Unasked {
        /// Why.
        why: String,
    },
    /// There is no such one.
    #[error("no app {wanted} is running\nhint: running apps: {known}{}", hint_at_rest(.at_rest))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
        /// The apps that do not run.
        at_rest: Vec<String>,
    },
    /// The pattern is none.
    #[error(
        "{wanted} is not a pattern: {why}\nhint: a pattern is a regular expression between slashes, such as /^web/"
    )]
    Pattern {
        /// What was asked for.
        wanted: String,
        /// What is wrong with it, on one line.
        why: String,
    },
    /// There are several.
    #[error("{what}: {known}\nhint: name one{hint}")]
    Ambiguous {
        /// Why.
        what: String,
        /// Those.
        known: String,
        /// How.
        hint: &'static str,
    },
}

fn nothing(wanted: Option<&str>) -> String {
    let nothing = "no running clusterd found for this user";
    match wanted.filter(|wanted| *wanted != "all") {
        Some(wanted) => format!("there is no app {wanted}: {nothing}"),
        None => nothing.to_owned(),
    }
}

fn hint_at_rest(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    format!("\nhint: apps that do not run: {}", names.join(", "))
}

impl NotChosen {
    /// The same, where there are these apps that do not run.
    pub(super) fn beside(mut self, names: impl Iterator<Item = String>) -> Self {
        if let Self::Nothing { wanted: Some(_), at_rest, .. } | Self::Unknown { at_rest, .. } = &mut self {
            at_rest.extend(names);
        }
        self
    }
}

/// What a word may mean.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// An app of this name.
    Name(String),
    /// Every app in this namespace.
    Namespace(String),
    /// Every app.
    All,
    /// Every app whose name matches.
    Pattern(Regex),
    /// The app that has the worker of this number, or whose clusterd has this process id.
    Number(u32),
}

impl Word {
    /// Reads it. Names are never digits alone, and never have a slash.
    ///
    /// # Errors
    /// It is written as a pattern, and is none.
    pub(super) fn read(text: &str) -> Result<Self, NotChosen> {
        let between = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        if let Some(pattern) = between.filter(|pattern| !pattern.is_empty()) {
            return Regex::new(pattern)
                .map(Word::Pattern)
                .map_err(|error| NotChosen::Pattern { wanted: text.to_owned(), why: error.to_string() });
        }
        Ok(match text.parse() {
            Ok(number) => Word::Number(number),
            Err(_) if text == "all" => Word::All,
            Err(_) => Word::Name(text.to_owned()),
        })
    }

    /// What it means where there are these apps, by name and namespace: a name that none of them has may be a namespace.
    pub(super) fn among<'a>(self, apps: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let Word::Name(wanted) = self else { return self };
        let mut is_namespace = false;
        for (name, namespace) in apps {
            if name == wanted {
                return Word::Name(wanted);
            }
            is_namespace |= namespace == wanted;
        }
        if is_namespace { Word::Namespace(wanted) } else { Word::Name(wanted) }
    }

    /// Whether an app of this name and namespace, with these numbers of workers, is meant.
    pub(super) fn means(&self, name: &str, namespace: &str, ids: &[u32]) -> bool {
        match self {
            Word::Name(wanted) => wanted == name,
            Word::Namespace(wanted) => wanted == namespace,
            Word::All => true,
            Word::Pattern(pattern) => pattern.is_match(name),
            Word::Number(number) => ids.contains(number),
        }
    }

    /// The worker of an app that is meant alone.
    pub(super) fn worker_of(&self, ids: &[u32]) -> Option<Slot> {
        let Word::Number(number) = self else { return None };
        let place = ids.iter().position(|id| id == number)?;
        u32::try_from(place).ok().map(|place| Slot(place + 1))
    }
}

/// The apps that are meant by this word, or by none. `ids` are the numbers of workers.
pub(super) fn choose<'a>(
    found: &'a Found,
    ids: &Ids,
    wanted: Option<&str>,
    many: Many,
) -> Result<Vec<&'a (Clusterd, App)>, NotChosen> {
    let apps = &found.apps;
    is_there_any(found, wanted)?;
    let Some(wanted) = wanted else {
        let hint = if many == Many::All { ", or use all" } else { "" };
        return one(apps.iter().collect(), "several apps are running", hint);
    };
    let word = match Word::read(wanted)?.among(names(found)) {
        Word::All if many == Many::One => Word::Name(wanted.to_owned()),
        word => word,
    };
    choose_word(found, ids, (wanted, &word), many)
}

fn is_there_any(found: &Found, wanted: Option<&str>) -> Result<(), NotChosen> {
    if !found.apps.is_empty() {
        return Ok(());
    }
    if !found.is_certain() {
        return Err(unasked(found));
    }
    Err(NotChosen::Nothing {
        wanted: wanted.map(ToOwned::to_owned),
        at_rest: Vec::new(),
        silent: found.errors.first().map(ToString::to_string),
    })
}

fn unasked(found: &Found) -> NotChosen {
    let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    NotChosen::Unasked { why: errors.join("; ") }
}

/// What the apps that run are called, and the namespaces that they are in.
pub(super) fn names(found: &Found) -> impl Iterator<Item = (&str, &str)> {
    found.apps.iter().map(|(_, app)| (app.name.as_str(), app.namespace.as_str()))
}

/// The apps that are meant by this word, which was read among all that there are.
pub(super) fn choose_word<'a>(
    found: &'a Found,
    ids: &Ids,
    (wanted, word): (&str, &Word),
    many: Many,
) -> Result<Vec<&'a (Clusterd, App)>, NotChosen> {
    is_there_any(found, Some(wanted))?;
    let apps = &found.apps;
    let means = |app: &App| word.means(&app.name, &app.namespace, ids.of_app(&app.name));
    let by_pid = |app: &App| matches!(word, Word::Number(pid) if app.pid == *pid);
    let mut meant: Vec<_> = apps.iter().filter(|(_, app)| means(app)).collect();
    if meant.is_empty() {
        meant = apps.iter().filter(|(_, app)| by_pid(app)).collect();
    }
    if meant.is_empty() && found.unanswered.iter().any(|name| name == wanted) {
        return Err(unasked(found));
    }
    if meant.is_empty() {
        let (wanted, known) = (wanted.to_owned(), list(apps.iter()));
        return Err(NotChosen::Unknown { wanted, known, at_rest: Vec::new() });
    }
    if many == Many::All && matches!(word, Word::All | Word::Pattern(_) | Word::Namespace(_)) {
        return Ok(meant);
    }
    one(meant, &format!("{wanted} means several apps"), " by its pid")
}

fn one<'a>(
    meant: Vec<&'a (Clusterd, App)>,
    what: &str,
    hint: &'static str,
) -> Result<Vec<&'a (Clusterd, App)>, NotChosen> {
    if meant.len() == 1 {
        return Ok(meant);
    }
    Err(NotChosen::Ambiguous { what: what.to_owned(), known: list(meant.into_iter()), hint })
}

fn list<'a>(apps: impl Iterator<Item = &'a (Clusterd, App)>) -> String {
    let apps: Vec<_> = apps.map(|(_, app)| format!("{} (pid {})", app.name, app.pid)).collect();
    apps.join(", ")
}

/// What each app is to be called so that no two are called the same.
pub(super) fn labels(apps: &[(Clusterd, App)]) -> Vec<String> {
    let label = |app: &App| match apps.iter().filter(|(_, other)| other.name == app.name).count() {
        1 => app.name.clone(),
        _ => format!("{} ({})", app.name, app.pid),
    };
    apps.iter().map(|(_, app)| label(app)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::address::SocketAddress;
    use crate::control::api::{Accept, Code, Problem};
    use crate::control::client::Error;
    use crate::supervisor::events::Time;

    fn found(apps: &[(&str, u32)]) -> Found {
        // `shop/web` is an app in a namespace.
        let parts = |name: &str| match name.split_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
            None => ("default".to_owned(), name.to_owned()),
        };
        let app = |(name, pid): &(&str, u32)| App {
            name: parts(name).1,
            namespace: parts(name).0,
            command: Vec::new(),
            pid: *pid,
            version: String::new(),
            outdated: false,
            upgrade: None,
            started: Time(std::time::SystemTime::UNIX_EPOCH),
            uptime_ms: 0,
            addresses: Vec::new(),
            wanted: 1,
            stopped: false,
            ready: true,
            accept: Accept::Primary,
            asks_to_leave: true,
            reload: None,
            traffic: None,
            workers: Vec::new(),
        };
        let at = |index: usize| Clusterd::at(SocketAddress::Abstract(index.to_string()));
        let apps = apps.iter().enumerate().map(|(index, known)| (at(index), app(known)));
        Found { apps: apps.collect(), ..Found::default() }
    }

    fn chosen(apps: &[(&str, u32)], wanted: Option<&str>, many: Many) -> Result<Vec<u32>, String> {
        let found = found(apps);
        let chosen = choose(&found, &Ids::default(), wanted, many).map_err(|error| error.to_string())?;
        Ok(chosen.iter().map(|(_, app)| app.pid).collect())
    }

    #[test]
    fn an_app_is_named_unless_there_is_but_one() {
        let two = [("api", 1), ("web", 2)];
        assert_eq!(chosen(&two[..1], None, Many::One), Ok(vec![1]));
        assert_eq!(chosen(&two, Some("web"), Many::One), Ok(vec![2]));
        assert_eq!(chosen(&two, Some("1"), Many::One), Ok(vec![1]));
        assert_eq!(chosen(&two, Some("all"), Many::All), Ok(vec![1, 2]));
        let same = [("web", 1), ("web", 2)];
        assert_eq!(chosen(&same, Some("2"), Many::One), Ok(vec![2]));
        assert_eq!(labels(&found(&same).apps), ["web (1)", "web (2)"]);
        assert_eq!(labels(&found(&two).apps), ["api", "web"]);
    }

    #[test]
    fn a_pattern_and_the_number_of_a_worker_mean_apps() {
        let home = tempfile::tempdir().unwrap();
        let numbers = ["api", "web", "www"].map(|app| Ids::give(home.path(), app, 2).unwrap());
        let ids = Ids::of(home.path());
        let found = found(&[("api", 100), ("web", 3), ("www", 102)]);
        let meant = |wanted: &str| {
            let chosen = choose(&found, &ids, Some(wanted), Many::All).map_err(|error| error.to_string())?;
            let names: Vec<_> = chosen.iter().map(|(_, app)| app.name.as_str()).collect();
            Ok(names.join(" "))
        };
        let cases = [
            ("/^w/", "web www"),
            ("/b$/", "web"),
            (r"/(?i)^W\w+\b/", "web www"),
            ("0", "api"),
            ("3", "web"),
            ("5", "www"),
            ("102", "www"),
        ];
        for (wanted, expected) in cases {
            assert_eq!(meant(wanted), Ok(expected.to_owned()), "{wanted}");
        }
        let refused: Result<_, String> = meant("/(/");
        assert!(
            refused
                .unwrap_err()
                .starts_with("/(/ is not a pattern: found open group without closing ')'\nhint: ")
        );
        assert!(meant("/x/").unwrap_err().starts_with("no app /x/ is running"));
        let worker = |word: &str, app: usize| Word::read(word).unwrap().worker_of(&numbers[app]);
        assert_eq!((worker("3", 1), worker("3", 0), worker("web", 1)), (Some(Slot(2)), None, None));
    }

    #[test]
    fn a_namespace_means_the_apps_in_it_unless_an_app_has_its_name() {
        let apps = [("shop/web", 1), ("shop/api", 2), ("web/cart", 3)];
        assert_eq!(chosen(&apps, Some("shop"), Many::All), Ok(vec![1, 2]));
        assert_eq!(chosen(&apps, Some("web"), Many::All), Ok(vec![1]));
        assert_eq!(chosen(&apps[1..], Some("web"), Many::One), Ok(vec![3]));
        assert_eq!(
            chosen(&apps, Some("default"), Many::All).unwrap_err().lines().next(),
            Some("no app default is running")
        );
        let of_two = chosen(&apps, Some("shop"), Many::One).unwrap_err();
        assert_eq!(of_two, "shop means several apps: web (pid 1), api (pid 2)\nhint: name one by its pid");
        // An app of that name may be at rest.
        let at_rest = [("shop", "default")].into_iter();
        assert!(matches!(Word::read("shop").unwrap().among(at_rest), Word::Name(_)));
    }

    #[test]
    fn what_is_not_clear_is_asked_for() {
        let two = [("api", 1), ("web", 2)];
        let said = |apps: &[_], wanted, many| chosen(apps, wanted, many).expect_err("unclear");
        let nothing = "no running clusterd found for this user";
        assert_eq!(said(&[], None, Many::All), nothing);
        assert_eq!(said(&[], Some("all"), Many::All), nothing);
        assert_eq!(said(&[], Some("web"), Many::All), format!("there is no app web: {nothing}"));
        let beside = |wanted: Option<&str>| {
            let found = Found::default();
            let error = choose(&found, &Ids::default(), wanted, Many::All).unwrap_err();
            error.beside(["api", "job"].into_iter().map(str::to_owned)).to_string()
        };
        assert_eq!(beside(None), nothing);
        assert_eq!(
            beside(Some("web")),
            format!("there is no app web: {nothing}\nhint: apps that do not run: api, job")
        );
        let refused = Problem::new(Code::Overloaded, "64 clients are connected already");
        let unasked = Found { errors: vec![Error::Refused(refused)], ..Found::default() };
        let told = choose(&unasked, &Ids::default(), None, Many::One).unwrap_err().to_string();
        assert_eq!(told, "cannot ask the running clusterd: 64 clients are connected already");
        assert_eq!(
            said(&two, None, Many::One),
            "several apps are running: api (pid 1), web (pid 2)\nhint: name one"
        );
        assert!(said(&two, None, Many::All).ends_with("\nhint: name one, or use all"));
        assert_eq!(
            said(&two, Some("all"), Many::One),
            "no app all is running\nhint: running apps: api (pid 1), web (pid 2)"
        );
        assert_eq!(
            said(&[("web", 1), ("web", 2)], Some("web"), Many::All),
            "web means several apps: web (pid 1), web (pid 2)\nhint: name one by its pid"
        );
    }
}
