//! Carries out what [`group`](super::group) decides: primaries, signals, messages, the service manager.
//!
//! It decides nothing itself. One task has it all; whoever calls is on the main thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tracing::level_filters::LevelFilter;
use tracing::{debug, error, info, warn};

use super::app::{App, settings_file, spawn, write_settings};
use super::group::{Action, Event, Group, News};
use super::home::{self, Place};
use super::reader::Reader;
use super::readiness::{Seen, Watched};
use super::signals::{self, Deed};
use crate::home::lock::LockError;
use crate::logs::console::{Console, Label, TurnFile};
use crate::logs::plan::LogPlan;
use crate::logs::{self, Output};
use crate::metrics;
use crate::settings::LogFormat;
use crate::supervisor::Scope;
use crate::supervisor::ends::Ended;
use crate::supervisor::processes::reaper::Reaper;
use crate::sys;
use crate::sys::blocking;
use crate::sys::signal_queue::{SignalQueue, Taken};
use crate::sys::terminal::Terminal;
use crate::systemd::ManagerOfAll;

/// How long nothing may be due.
const IDLE: Duration = Duration::from_secs(3600);

/// How long the last output may take to be written.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// Somebody else runs an app.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// Its own output could not be set up.
    #[error(transparent)]
    Output(#[from] logs::OutputError),
    /// So could its messages not.
    #[error(transparent)]
    Messages(#[from] logs::messages::AlreadyInstalled),
    /// Settings and turns are files without names, which can be opened there alone.
    #[error("clusterd up needs /proc, which is not mounted\nhint: mount -t proc proc /proc")]
    NoProc,
    /// The system has no room for it.
    #[error("cannot start the apps: {0}")]
    System(#[from] io::Error),
}

/// What the file says now.
#[derive(Debug)]
pub(crate) struct Read {
    /// The apps.
    pub apps: Vec<App>,
    /// What is to be looked at.
    pub warnings: Vec<String>,
}

/// Reads the file again; it may block. Why it cannot be read is said in words.
pub(crate) type Reread = Arc<dyn Fn() -> Result<Read, String> + Send + Sync>;

/// Runs these apps until all have ended; with `ends_on_failure`, until the first has failed. Returns the code to exit with.
///
/// # Errors
/// Nothing was started.
pub(crate) async fn run(apps: Vec<App>, ends_on_failure: bool, reread: Reread) -> Result<u8, UpError> {
    if !sys::process::has_proc() {
        return Err(UpError::NoProc);
    }
    let places = home::take(apps.iter().map(|app| app.name.as_str()))?;
    let inherited = sys::signals::reset_ignored();
    let terminal = Terminal::at_start(inherited.ignores_hup);
    let signals = signals::listen()?;
    sys::process::close_on_exec_above(3)?;
    let turns = [TurnFile::new()?, TurnFile::new()?];
    let output = output(&apps, &turns)?;
    let settings = apps.iter().map(|app| settings_file(&app.settings)).collect::<io::Result<_>>()?;
    for (app, _) in apps.iter().zip(&places).filter(|(_, place)| place.is_defined()) {
        info!("{} was started in the background before, and stays defined as it was then", app.name);
    }
    let up = Up {
        group: Group::new(apps.iter().map(|app| app.needs.clone()), ends_on_failure),
        primaries: vec![None; apps.len()],
        apps,
        places,
        settings,
        turns,
        watched: Watched::default(),
        manager: ManagerOfAll::from_environment(),
        is_ready: false,
        reread,
    };
    let reader = Reader::of_stdout(inherited.ignores_hup);
    let code = up.run(Reaper::new(Scope::Everyone)?, signals, (&terminal, &reader)).await;
    if output.finish(tokio::time::Instant::now() + LAST_OUTPUT).await.is_err() {
        debug!("nobody reads the output; the rest of it is dropped");
    }
    Ok(code)
}

/// The labels of all apps are as wide as the widest.
fn width(apps: &[App]) -> usize {
    let widths = apps.iter().map(|app| Label::width_of(&app.name, app.workers));
    widths.chain([env!("CARGO_PKG_NAME").len()]).max().unwrap_or(0)
}

/// For its own messages: objects if those of all apps are, and as many as the most talkative of them has.
fn output(apps: &[App], turns: &[TurnFile; 2]) -> Result<Output, UpError> {
    let label = Label { app: None, width: width(apps), number: 0 };
    let console = Console { label, turns: [Some(turns[0].turn()?), Some(turns[1].turn()?)] };
    let output = Output::of(LogPlan::default(), Some(console), metrics::lines_dropped())?;
    let is_json = apps.iter().all(|app| app.log_format == LogFormat::Json);
    let format = if is_json { LogFormat::Json } else { LogFormat::Text };
    let level = apps.iter().map(|app| LevelFilter::from(app.log_level)).max().unwrap_or(LevelFilter::INFO);
    logs::messages::install(&output, format, level)?;
    Ok(output)
}

struct Up {
    apps: Vec<App>,
    places: Vec<Place>,
    settings: Vec<OwnedFd>,
    /// The processes of those that run.
    primaries: Vec<Option<Pid>>,
    group: Group,
    turns: [TurnFile; 2],
    watched: Watched,
    manager: Option<ManagerOfAll>,
    is_ready: bool,
    reread: Reread,
}

impl Up {
    async fn run(
        mut self,
        mut reaper: Reaper,
        mut signals: SignalQueue<Deed>,
        (terminal, reader): (&Terminal, &Reader),
    ) -> u8 {
        let mut event = Some(Event::Time);
        loop {
            if let Some(event) = event {
                let code = self.carry_out(event);
                self.tell_manager().await;
                if let Some(code) = code {
                    return code;
                }
            }
            let due = self.group.wakes_at().unwrap_or_else(|| Instant::now() + IDLE);
            event = tokio::select! {
                (pid, how) = reaper.next(&[]) => self.ended(pid, how),
                () = signals.come() => match signals.take().await {
                    Taken::Asked(deed, name) => self.told(deed, name, terminal).await,
                    Taken::Echo(name) => {
                        info!("{name}: the parent has passed on what has come here, too; it counts once");
                        None
                    }
                    Taken::Nothing => None,
                },
                seen = self.watched.next() => self.seen(seen),
                () = reader.is_gone(), if !self.group.is_stopping() => {
                    warn!("nobody reads the output any more; stopping all apps");
                    Some(Event::Stop(Signal::TERM))
                }
                () = tokio::time::sleep_until(due.into()) => Some(Event::Time),
            };
        }
    }

    /// Lets the group decide and does what it says. The code to exit with, if it is over.
    fn carry_out(&mut self, event: Event) -> Option<u8> {
        let mut events = VecDeque::from([event]);
        let mut code = None;
        while let Some(event) = events.pop_front() {
            for action in self.group.step(event, Instant::now()) {
                match action {
                    Action::Start(app) => events.extend(self.start(app)),
                    Action::Signal(app, signal) => self.signal(app, signal),
                    Action::Say(app, news) => self.say(app, news),
                    Action::AllReady => {
                        self.is_ready = true;
                        sys::memory::give_back();
                    }
                    Action::End(with) => code = Some(with),
                }
            }
        }
        code
    }

    fn start(&mut self, place: usize) -> Option<Event> {
        let app = &self.apps[place];
        let label = Label { app: Some(app.name.clone()), width: width(&self.apps), number: place };
        let started = self.places[place].for_primary().map_err(|held| held.to_string()).and_then(|home| {
            spawn(&self.settings[place], label, home, &self.turns).map_err(|error| error.to_string())
        });
        match started {
            Ok(primary) => {
                self.watched.watch(place, primary, app.ready_timeout);
                self.primaries[place] = Some(primary);
                None
            }
            Err(error) => {
                error!("{}: the app cannot be started: {error}", app.name);
                Some(Event::NotStarted(place))
            }
        }
    }

    /// One of those that it has not started itself is an orphan.
    fn ended(&mut self, pid: Pid, how: Ended) -> Option<Event> {
        let Some(app) = self.primaries.iter().position(|primary| *primary == Some(pid)) else {
            debug!(%pid, "an orphan {how}");
            return None;
        };
        self.primaries[app] = None;
        Some(Event::Ended(app, how))
    }

    fn seen(&self, seen: Seen) -> Option<Event> {
        let is_current = self.primaries[seen.app] == Some(seen.primary);
        let event = if seen.is_ready { Event::Ready(seen.app) } else { Event::Late(seen.app) };
        is_current.then_some(event)
    }

    async fn told(&mut self, deed: Deed, name: &str, terminal: &Terminal) -> Option<Event> {
        let signal = match deed {
            Deed::Stop(signal) => {
                info!("{name}: stopping all apps");
                return Some(Event::Stop(signal));
            }
            // A terminal that is closed ends what was started in it, as Ctrl-C does.
            Deed::PassOn(Signal::HUP) if terminal.is_closed() => {
                info!("{name}: stopping all apps");
                return Some(Event::Stop(Signal::INT));
            }
            Deed::PassOn(signal) => signal,
        };
        if signal != Signal::HUP || self.read_again(name).await {
            debug!("{name}: passed on to all apps");
            (0..self.apps.len()).for_each(|app| self.signal(app, signal));
        }
        if let Some(manager) = self.manager.as_mut().filter(|_| signal == Signal::HUP) {
            manager.reloads().await;
        }
        None
    }

    /// Has the apps find what the file says of them now. Whether it could be read. No child is waited for meanwhile: the file may
    /// be a program, which others wait for.
    async fn read_again(&mut self, name: &str) -> bool {
        let reread = Arc::clone(&self.reread);
        let read = blocking::run(move || reread()).await;
        let written = read.and_then(|new| self.put_in_place(new, name).map_err(|error| error.to_string()));
        if let Err(why) = &written {
            warn!("{name}: the apps are not reloaded: {why}");
        }
        written.is_ok()
    }

    fn put_in_place(&mut self, Read { apps: new, warnings }: Read, name: &str) -> io::Result<()> {
        warnings.iter().for_each(|warning| warn!("{name}: {warning}"));
        let is_among = |all: &[App], name: &str| all.iter().any(|other| other.name == name);
        let come = new.iter().filter(|app| !is_among(&self.apps, &app.name));
        let gone = self.apps.iter().filter(|app| !is_among(&new, &app.name));
        let others: Vec<_> = come.chain(gone).map(|app| app.name.as_str()).collect();
        if !others.is_empty() {
            let others = others.join(", ");
            warn!("{name}: apps that the file has got or lost wait for a restart of clusterd up: {others}");
        }
        for (app, file) in self.apps.iter_mut().zip(&self.settings) {
            if let Some(now) = new.iter().find(|now| now.name == app.name && now.settings != app.settings) {
                write_settings(file, &now.settings)?;
                app.settings.clone_from(&now.settings);
            }
        }
        Ok(())
    }

    /// One that has ended, and was waited for, gets nothing: its number may be another's.
    fn signal(&self, app: usize, signal: Signal) {
        if let Some(primary) = self.primaries[app] {
            let _ = rustix::process::kill_process(primary, signal);
        }
    }

    async fn tell_manager(&mut self) {
        let Some(manager) = &mut self.manager else { return };
        let sentence = format!("{} of {} apps ready", self.group.ready_apps(), self.apps.len());
        manager.tell(self.is_ready, self.group.is_stopping(), sentence).await;
    }

    fn say(&self, app: usize, news: News) {
        let name = |app: usize| self.apps[app].name.as_str();
        let app = name(app);
        match news {
            News::Ended(how @ Ended::Code(0)) => info!("{app}: the app has ended ({how}); others go on"),
            News::Ended(how) => warn!("{app}: the app has failed ({how}); others go on"),
            News::Crashed(how) => warn!("{app}: its clusterd {how}; starting it again"),
            News::GivenUp(how) => error!("{app}: its clusterd {how} again and again; the app has failed"),
            News::Late => warn!("{app}: the app is not ready yet; clusterd goes on waiting"),
            News::ReadyAtLast => info!("{app}: the app is ready now"),
            News::PassedOver(need) => {
                error!("{app}: the app is not started, because {} is not ready", name(need));
            }
        }
    }
}
