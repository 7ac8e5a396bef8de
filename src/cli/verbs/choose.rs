//! Which app is meant: by its name, by the pid of its clusterd, or because there is no other.
//!
//! It asks nobody, it only chooses among what was found.

use crate::control::api::App;
use crate::control::client::{Clusterd, Found};

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
    #[error("no running clusterd found for this user{}", .silent.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    Nothing {
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
    #[error("no app {wanted} is running\nhint: running apps: {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
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

/// The apps that are meant by this word, or by none.
pub(super) fn choose<'a>(
    found: &'a Found,
    wanted: Option<&str>,
    many: Many,
) -> Result<Vec<&'a (Clusterd, App)>, NotChosen> {
    let apps = &found.apps;
    if apps.is_empty() && !found.is_certain() {
        let why = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(NotChosen::Unasked { why });
    }
    if apps.is_empty() {
        return Err(NotChosen::Nothing { silent: found.errors.first().map(ToString::to_string) });
    }
    let Some(wanted) = wanted else {
        let hint = if many == Many::All { ", or use all" } else { "" };
        return one(apps.iter().collect(), "several apps are running", hint);
    };
    if wanted == "all" && many == Many::All {
        return Ok(apps.iter().collect());
    }
    let is_meant = |app: &App| app.name == wanted || app.pid.to_string() == wanted;
    let meant: Vec<_> = apps.iter().filter(|(_, app)| is_meant(app)).collect();
    if meant.is_empty() {
        return Err(NotChosen::Unknown { wanted: wanted.to_owned(), known: list(apps.iter()) });
    }
    one(meant, &format!("several apps have the name {wanted}"), " by its pid")
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
        let app = |(name, pid): &(&str, u32)| App {
            name: (*name).to_owned(),
            command: Vec::new(),
            pid: *pid,
            version: String::new(),
            started: Time(std::time::SystemTime::UNIX_EPOCH),
            uptime_ms: 0,
            addresses: Vec::new(),
            wanted: 1,
            stopped: false,
            ready: true,
            accept: Accept::Primary,
            asks_to_leave: true,
            reload: None,
            workers: Vec::new(),
        };
        let at = |index: usize| Clusterd::at(SocketAddress::Abstract(index.to_string()));
        let apps = apps.iter().enumerate().map(|(index, known)| (at(index), app(known)));
        Found { apps: apps.collect(), errors: Vec::new() }
    }

    fn chosen(apps: &[(&str, u32)], wanted: Option<&str>, many: Many) -> Result<Vec<u32>, String> {
        let found = found(apps);
        let chosen = choose(&found, wanted, many).map_err(|error| error.to_string())?;
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
    fn what_is_not_clear_is_asked_for() {
        let two = [("api", 1), ("web", 2)];
        let said = |apps: &[_], wanted, many| chosen(apps, wanted, many).expect_err("unclear");
        assert_eq!(said(&[], None, Many::All), "no running clusterd found for this user");
        let refused = Problem::new(Code::Overloaded, "64 clients are connected already");
        let unasked = Found { apps: Vec::new(), errors: vec![Error::Refused(refused)] };
        let told = choose(&unasked, None, Many::One).unwrap_err().to_string();
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
            "several apps have the name web: web (pid 1), web (pid 2)\nhint: name one by its pid"
        );
    }
}
