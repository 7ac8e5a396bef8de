//! Many apps of one file, which know nothing of each other.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::harness::home::Home;
use crate::harness::{Signal, until};

const APPS: usize = 50;

fn pids(home: &Home) -> BTreeSet<i64> {
    let listed = home.say("list -o json").json();
    listed.as_array().into_iter().flatten().filter_map(|app| app["pid"].as_i64()).collect()
}

#[test]
fn fifty_apps_are_started_killed_and_resurrected() {
    let home = Home::new();
    let mut file = String::new();
    for app in 0..APPS {
        write!(file, "[app.app{app}]\ncommand = ['sleep', '1000']\nworkers = 1\n").expect("it fits");
    }
    home.write("clusterd.toml", &file);
    let said = home.say("start clusterd.toml");
    assert_eq!(said.done().lines().count(), APPS);
    let first = pids(&home);
    assert_eq!(first.len(), APPS);
    // Numbered as they stand in the file, whichever was the first to come up.
    let listed = home.say("list -o json").json();
    let ids: BTreeSet<_> = listed
        .as_array()
        .into_iter()
        .flatten()
        .map(|app| (app["name"].to_string(), app["workers"][0]["id"].as_u64()))
        .collect();
    assert!((0..APPS).all(|app| ids.contains(&(format!("\"app{app}\""), Some(app as u64)))), "{ids:?}");
    // One that dies is nothing to the others.
    home.primary("app7").signal(Signal::KILL);
    let after = until("it is back", || {
        let now = pids(&home);
        (now.len() == APPS && now != first).then_some(now)
    });
    assert_eq!(first.intersection(&after).count(), APPS - 1);
    home.say("stop app3").done();
    home.say("save").done();
    // As when the machine loses its power: no guardian lives on either.
    home.kill_everything();
    assert!(pids(&home).is_empty());
    assert_eq!(home.say("resurrect").done().lines().count(), APPS - 1);
    assert_eq!(pids(&home).len(), APPS - 1);
    assert!(home.say("kill").code == 0);
}

#[test]
fn an_app_is_not_started_if_one_that_it_needs_does_not_come_up() {
    let home = Home::new();
    home.write("db.sh", "#!/bin/sh\nexit 3\n");
    home.write(
        "clusterd.toml",
        "[app.web]\ncommand = ['sleep', '1000']\ndepends-on = ['db']\n\
         [app.db]\ncommand = ['sh', 'db.sh']\n\
         [app.other]\ncommand = ['sleep', '1000']\nworkers = 1\n",
    );
    let said = home.say("start clusterd.toml");
    assert_eq!((said.code, said.stdout.lines().count()), (1, 1), "{said:?}");
    assert!(said.stdout.starts_with("other: started with 1 worker "), "{said:?}");
    assert!(said.stderr.contains("web: not started: db, which it needs, has not come up"), "{said:?}");
}
