//! Carries out what signals ask for beside the stop, and says in the log what came of it.
//!
//! What a signal means is in `signals`; the stop itself is in `shutdown`.

use std::fs::File;

use tracing::{debug, error, info, warn};

use super::signals::SignalAction;
use crate::carry::Step;
use crate::logs::Output;
use crate::supervisor::events::Asker;
use crate::supervisor::{Command, Handle, Refused};
use crate::sys::signal_queue::{SignalQueue, Taken};
use crate::sys::terminal::Terminal;
use crate::systemd::Systemd;
use crate::tasks;

/// Where wishes come from: the signals, and the terminal in which clusterd was started.
pub(super) type Origin = (SignalQueue<SignalAction>, Terminal);

/// The signals, and whom they concern.
#[derive(Debug)]
pub(super) struct SignalActions {
    /// Where wishes come from.
    signals: SignalQueue<SignalAction>,
    /// Its end is a wish as well.
    terminal: Terminal,
    /// Who fulfils most of them.
    supervisor: Handle,
    /// Whoever has sent a HUP for systemd waits until it hears of a reload.
    systemd: Systemd,
    /// Its files are opened again.
    output: Output,
    /// The stop was wished for: nothing else is obeyed any more, and no other image of clusterd takes over.
    stopping: Option<Step>,
}

impl SignalActions {
    /// Of these signals, in a process that was started there.
    pub(super) fn new(
        (signals, terminal): Origin,
        supervisor: Handle,
        systemd: Systemd,
        output: Output,
    ) -> Self {
        Self { signals, terminal, supervisor, systemd, output, stopping: None }
    }

    /// The next action to stop, and the name of the signal. Whatever else is wished meanwhile is obeyed.
    pub(super) async fn stop(&mut self) -> (SignalAction, &'static str) {
        loop {
            self.signals.come().await;
            let step = match self.stopping {
                None => Some(self.supervisor.order_step().await),
                Some(_) => None,
            };
            let Some((action, name)) = self.take().await else { continue };
            match (action, step) {
                (SignalAction::Graceful | SignalAction::Fast, step) => {
                    self.stopping = self.stopping.take().or(step);
                    return (action, name);
                }
                (_, None) => info!("{name}: {}", Refused::Stopping),
                (action, Some(step)) => self.obey(action, name, step).await,
            }
        }
    }

    /// The next action, if one has come. A terminal that is closed ends what was started in it, as Ctrl-C does.
    async fn take(&mut self) -> Option<(SignalAction, &'static str)> {
        match self.signals.take().await {
            Taken::Nothing => None,
            Taken::Echo(name) => {
                info!("{name}: the parent has passed on what has come here, too; it counts once");
                None
            }
            Taken::Asked(SignalAction::Reload, name) if self.terminal.is_closed() => {
                info!("{name}: the terminal was closed");
                Some((SignalAction::Fast, name))
            }
            Taken::Asked(action, name) => Some((action, name)),
        }
    }

    async fn obey(&self, action: SignalAction, name: &'static str, step: Step) {
        match action {
            SignalAction::Reload => self.reload(name, &step).await,
            SignalAction::Scale(scale) => self.give(Command::Scale(scale), name, &step).await,
            SignalAction::Drain if has_terminal() => debug!("{name}: the terminal has another size"),
            SignalAction::Drain => self.give(Command::Stop(None), name, &step).await,
            SignalAction::Reopen if self.output.has_files() => {
                self.output.reopen();
                info!("{name}: log files reopened");
            }
            SignalAction::Reopen => {
                info!("{name}: no log files to reopen; clusterd writes to its standard streams")
            }
            // What became of it is an event, which is said.
            SignalAction::Upgrade => {
                let begun =
                    self.supervisor.begin_in(&step, Command::Upgrade(None), Asker::Signal(name)).await;
                begun.err().iter().for_each(|refused| warn!("{name}: {refused}"));
            }
            SignalAction::Graceful | SignalAction::Fast => {}
        }
    }

    /// It is also the way back from WINCH: what is stopped has nothing to reload, and is started.
    async fn reload(&self, name: &'static str, step: &Step) {
        match self.supervisor.begin_in(step, Command::Reload, Asker::Signal(name)).await {
            Err(Refused::Stopped) => {
                self.give(Command::Start(None), name, step).await;
                self.systemd.no_reload();
            }
            // The supervisor has logged it.
            Err(Refused::Configuration(_)) => self.systemd.no_reload(),
            Err(refused) => {
                warn!("{name}: {refused}");
                self.systemd.no_reload();
            }
            // Its beginning and its end are events, which the supervisor says.
            Ok(_) => {}
        }
    }

    async fn give(&self, command: Command, name: &'static str, step: &Step) {
        match self.supervisor.begin_in(step, command, Asker::Signal(name)).await {
            Err(refused) => warn!("{name}: {refused}"),
            // What a worker that fails writes last is in the log already, as everything that workers write.
            Ok(underway) => drop(tasks::spawn(async move {
                match underway.done().await {
                    Ok(done) => info!("{name}: {done}"),
                    Err(failed) => error!("{name}: {failed}"),
                }
            })),
        }
    }
}

/// Whether a terminal controls this process, and so sends it SIGWINCH whenever its size changes (tty_ioctl(2)).
/// Without one, /dev/tty cannot be opened (tty(4)).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
