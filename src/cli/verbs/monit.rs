//! `clusterd monit`: every app on one screen. Here is where the screen's news come from, and who does what it asks for.
//!
//! What is shown, and how, is [`crate::monit`]'s.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Local};
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

use super::choose::{Word, labels};
use super::{VerbError, rest, sentence};
use crate::control::api::App;
use crate::control::client::{self, Clusterd, Found};
use crate::control::home::Home;
use crate::home::app_log::AppLog;
use crate::home::at_rest;
use crate::home::ids::Ids;
use crate::logs::source_file::Line;
use crate::monit::{self, Effect, Ended, Happened, Look, News, Order, Running, Written};
use crate::sys::blocking;
use crate::sys::signals;
use crate::tasks;

/// How often all apps are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What stands where lines of a log are missing.
const GAP: &str = "(more came than can be shown: lines are missing here)";

/// How much news waits for the screen.
const NEWS: usize = 256;

/// This program, also when another one has taken its place in the file system.
const THIS: &str = "/proc/self/exe";

/// Watch every app on one screen, live, and reload, restart, scale and stop by a key
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys are listed by `?`. Every order is asked for once more before it is given.")]
pub(super) struct Monit {}

impl Monit {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        check_terminal()?;
        let (news, heard) = mpsc::channel(NEWS);
        let (chosen, follows) = watch::channel(None);
        tasks::spawn(look_again_and_again(news.clone()));
        tasks::spawn(follow_logs(follows, news.clone()));
        let act = |effect| match effect {
            Effect::Follow(label) => drop(chosen.send_replace(Some(label))),
            Effect::Order(order) => carry_out(order, news.clone()),
            Effect::Quit | Effect::Suspend => {}
        };
        match monit::run(heard, act).await? {
            Ended::ByKey => Ok(ExitCode::SUCCESS),
            Ended::BySignal(signal) => Ok(ExitCode::from(128 + signal)),
        }
    }
}

fn check_terminal() -> Result<(), VerbError> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let why = match (io::stdin().is_terminal() && io::stdout().is_terminal(), is_dumb) {
        (false, _) => "monit needs a terminal, and standard input and output are not both one",
        (true, true) => "monit needs a terminal that can be drawn on, and TERM says that this one cannot",
        (true, false) => return Ok(()),
    };
    Err(VerbError::Usage(format!(
        "{why}\nhint: clusterd list, clusterd logs and clusterd events print what is there"
    )))
}

/// Until nobody hears it any more.
async fn look_again_and_again(news: mpsc::Sender<News>) {
    let mut followed: HashMap<u32, JoinHandle<()>> = HashMap::new();
    let mut ticks = time::interval(LOOK);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let found = client::find_with_traffic(&Home::of_this_process()).await;
        followed.retain(|_, following| !following.is_finished());
        for (clusterd, app) in &found.apps {
            let follow = || tasks::spawn(follow_events(clusterd.clone(), app.name.clone(), news.clone()));
            followed.entry(app.pid).or_insert_with(follow);
        }
        if news.send(News::Looked(look(found))).await.is_err() {
            return;
        }
    }
}

fn look(found: Found) -> Look {
    let ids = rest::ids();
    let resting = at_rest::all_but(&found);
    let labels = labels(&found.apps);
    let errors = found.errors.iter().map(ToString::to_string).collect();
    let running =
        found.apps.into_iter().zip(labels).map(|((_, app), label)| running(app, label, &ids)).collect();
    Look { at: Instant::now(), running, resting, errors }
}

fn running(app: App, label: String, ids: &Ids) -> Running {
    // Not every name is a word that means it.
    let is_word = label == app.name && matches!(Word::read(&label), Ok(Word::Name(_)));
    let word = if is_word { label.clone() } else { app.pid.to_string() };
    Running { label, word, ids: ids.of_app(&app.name).to_vec(), app }
}

/// Until its clusterd exits.
async fn follow_events(clusterd: Clusterd, app: String, news: mpsc::Sender<News>) {
    let Ok(mut lines) = clusterd.events_with_past(&app).await else { return };
    while let Some(Ok(line)) = lines.next().await {
        let told = sentence::told(&line);
        let time = DateTime::parse_from_rfc3339(&told.time)
            .map(|time| time.with_timezone(&Local).format("%H:%M:%S").to_string())
            .unwrap_or(told.time);
        if news.send(News::Happened(Happened { time, app: told.app, text: told.text })).await.is_err() {
            return;
        }
    }
}

/// The log of the app that is chosen, from its last lines on.
async fn follow_logs(mut chosen: watch::Receiver<Option<String>>, news: mpsc::Sender<News>) {
    loop {
        let label = chosen.borrow_and_update().clone();
        let follow = async {
            let Some(label) = label else { return };
            let log = AppLog::open(&label);
            if news.send(News::Follows(label)).await.is_err() {
                return;
            }
            // Apps outside the home folder have none.
            let Some(mut log) = log else { return };
            loop {
                let batch = log.next().await;
                let gap = batch.missed.then(|| Written { is_error: false, text: GAP.to_owned() });
                let lines = gap.into_iter().chain(batch.lines.into_iter().map(written));
                if news.send(News::Wrote(lines.collect())).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            changed = chosen.changed() => if changed.is_err() { return },
            () = async { follow.await; std::future::pending().await } => {}
        }
    }
}

fn written(line: Line) -> Written {
    Written { is_error: line.is_error(), text: line.text }
}

/// Has the verb do it, as if somebody had typed it. It goes on if the screen is left meanwhile.
fn carry_out(order: Order, news: mpsc::Sender<News>) {
    let done = blocking::run(move || {
        let mut command = Command::new(THIS);
        signals::block_none_in(&mut command);
        match command.args(order.arguments()).stdin(Stdio::null()).output() {
            Ok(output) => last_line(if output.status.success() { &output.stdout } else { &output.stderr }),
            Err(error) => format!("cannot run clusterd: {error}"),
        }
    });
    // Nobody hears it if the screen was left.
    tasks::spawn(async move { news.send(News::Did(done.await)).await });
}

/// A hint is no answer.
fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("hint: "));
    lines.next_back().unwrap_or("done").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monit::testing::app;

    #[test]
    fn a_word_means_the_app_to_every_verb() {
        for (name, label, word) in [
            ("web", "web", "web"),
            ("web", "web (4711)", "4711"),
            ("all", "all", "4711"),
            ("/a/", "/a/", "4711"),
        ] {
            assert_eq!(running(app(name, 1), label.to_owned(), &Ids::default()).word, word, "{label}");
        }
    }

    #[test]
    fn the_answer_of_a_verb_is_its_last_line() {
        assert_eq!(last_line(b"web: worker 1 online\nweb: reload done\n"), "web: reload done");
        assert_eq!(
            last_line(b"clusterd: no app x is running\nhint: running apps: web\n"),
            "clusterd: no app x is running"
        );
        assert_eq!(last_line(b""), "done");
    }
}
