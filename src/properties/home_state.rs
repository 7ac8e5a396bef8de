//! What a clusterd of any version tells: what is passed on is one object on one line, and what is kept has a bound.
//!
//! What the page makes of it, the tests beside the page have.

use serde_json::value::RawValue;

use crate::control::address::SocketAddress;
use crate::control::client::Clusterd;
use crate::home::at_rest::Resting;
use crate::web::home_state::{EVENTS, HomeState, Told};

/// How many clusterds tell something.
const CLUSTERDS: u8 = 3;

/// Reads each line of `data` as what one of them tells: a digit says which.
pub fn check(data: &[u8]) {
    let mut home = HomeState::default();
    let mut longest = 0;
    for line in data.split(|&byte| byte == b'\n') {
        let Some((&first, line)) = line.split_first() else { continue };
        let line = String::from_utf8_lossy(line).into_owned();
        longest = longest.max(line.len());
        if let Some(news) = home.hear(told(clusterd(first.wrapping_sub(b'0') % CLUSTERDS), line.clone())) {
            is_one_object(&news);
        }
    }
    let all = home.all();
    all.iter().for_each(|object| is_one_object(object));
    let most = 3 * usize::from(CLUSTERDS) + 1;
    assert!(all.len() <= most);
    let kept: usize = all.iter().map(String::len).sum();
    // Six bytes for one, where a control character is escaped.
    assert!(kept <= most * (EVENTS + 2) * (6 * longest + 100), "{kept} bytes of lines of {longest}");
    assert!(all.iter().filter_map(|object| events(object)).all(|events| events <= EVENTS));
    learns_the_same(&home);
}

/// Whoever is told all that is known of one clusterd, line by line, knows the same.
fn learns_the_same(home: &HomeState) {
    if home.clusterds().len() != 1 {
        return;
    }
    let of_apps = |home: &HomeState| -> Vec<String> {
        let is_of_home =
            |object: &String| ["{\"resting\"", "{\"silent\""].iter().any(|of| object.starts_with(of));
        home.all().into_iter().filter(|object| !is_of_home(object)).collect()
    };
    let mut late = HomeState::default();
    for line in of_apps(home) {
        assert_eq!(late.hear(Told::Line(clusterd(0), line.clone())), Some(line));
    }
    assert_eq!(of_apps(&late).last(), of_apps(home).last());
    assert_eq!(late.names(), home.names());
}

fn clusterd(number: u8) -> Clusterd {
    Clusterd::at(SocketAddress::Abstract(format!("app{number}-{number}")))
}

fn told(clusterd: Clusterd, line: String) -> Told {
    match line.split_once(' ') {
        Some(("silent", why)) => Told::Silent(clusterd, why.to_owned()),
        Some(("rest", names)) => {
            let resting = |name: &str| Resting { name: name.to_owned(), state: "stopped" };
            Told::AtRest(names.split(' ').take(8).map(resting).collect())
        }
        _ if line == "gone" => Told::Gone(clusterd),
        _ => Told::Line(clusterd, line),
    }
}

/// As server-sent events need it (HTML, 9.2): a carriage return ends a line there, too.
fn is_one_object(object: &str) {
    let trimmed = object.trim_matches([' ', '\t']);
    assert!(trimmed.starts_with('{') && trimmed.ends_with('}'), "{object:?}");
    assert!(!object.contains(['\n', '\r']), "{object:?}");
    assert!(serde_json::from_str::<&RawValue>(object).is_ok(), "{object:?}");
}

/// How many events it holds, if it is a history.
fn events(object: &str) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Line {
        history: History,
    }
    #[derive(serde::Deserialize)]
    struct History {
        events: Vec<serde::de::IgnoredAny>,
    }
    let line: Line = serde_json::from_str(object).ok()?;
    Some(line.history.events.len())
}
