//! What verbs mean by a word, and the verbs that look at workers or tell them something.

use serde_json::{Value, json};

use crate::harness::home::Home;

/// A worker that lives until it is told to end.
const JOB: &str = "#!/bin/sh\necho working\nexec sleep 1000\n";

/// A home with `job.sh`.
fn home() -> Home {
    let home = Home::new();
    home.write("job.sh", JOB);
    home
}

fn start(home: &Home, name: &str, more: &str) {
    home.say(&format!("start job.sh --name {name} {more}")).done();
}

/// The names of the apps of which a verb has said that something was done.
fn done(home: &Home, words: &str) -> Vec<String> {
    let said = home.say(words);
    said.done().lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

fn stopped(home: &Home) -> Vec<String> {
    let apps = home.say("list -o json").json();
    let is_stopped = |app: &&Value| app["stopped"] == true || app["state"] == "stopped";
    let stopped = apps.as_array().expect("a list").iter().filter(is_stopped);
    stopped.map(|app| app["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_namespace_means_every_app_in_it() {
    let home = home();
    start(&home, "web", "--namespace shop");
    start(&home, "api", "--namespace shop");
    start(&home, "shop2", "--namespace web");
    assert_eq!(home.app("api").expect("it runs")["namespace"], "shop");
    assert!(home.say("describe web").done().contains("\nnamespace shop\n"));
    assert_eq!(done(&home, "stop shop"), ["api", "web"]);
    assert_eq!(stopped(&home), ["api", "web"]);
    // A name goes before a namespace.
    assert_eq!(done(&home, "start web"), ["web"]);
    assert_eq!(stopped(&home), ["api"]);
    // Those that do not run are in it, too.
    assert_eq!(done(&home, "kill"), ["api", "shop2", "web"]);
    assert_eq!(home.say("describe api -o json").json()["namespace"], json!("shop"));
    assert_eq!(done(&home, "start shop"), ["api", "web"]);
    assert_eq!(done(&home, "flush shop"), ["api", "web"]);
    assert_eq!(done(&home, "delete shop"), ["api", "web"]);
    let said = home.say("stop shop");
    assert!(said.code == 1 && said.stderr.starts_with("clusterd: no running clusterd found"), "{said:?}");
}

#[test]
fn it_is_clear_what_all_words_mean_before_anything_is_done() {
    let home = home();
    start(&home, "web", "");
    home.say("stop web").done();
    let said = home.say("start web nobody");
    assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
    assert_eq!(stopped(&home), ["web"]);
    home.say("start web").done();
    for verb in ["delete", "reloadLogs", "restart", "flush"] {
        let said = home.say(&format!("{verb} web nobody"));
        assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{said:?}");
        assert!(said.stderr.contains("no app nobody"), "{said:?}");
    }
    assert!(home.app("web").is_some());
    // Twice named is once meant.
    assert_eq!(done(&home, "restart web all"), ["web"]);
    assert_eq!(done(&home, "delete web web"), ["web"]);
}
