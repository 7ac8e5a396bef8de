//! What the supervisor knows about the workers, from the configuration: at the start, and again at each reload.
//!
//! It reads the file again, but starts and changes nothing.

use std::sync::Arc;

use rustix::process::Rlimit;
use tracing::warn;

use crate::ids::WorkerPort;
use crate::settings::carried::CarriedSettings;
use crate::settings::load::{CommandLine, load};
use crate::settings::{Config, CpuScheduling, DrainHttp, StopSignalAt, diff};
use crate::supervisor::exec_context::{self, ExecContext, ExecContextError};
use crate::supervisor::lifecycle::{Rules, StopAt, StopRules};
use crate::supervisor::{AttachEnv, CommandSpec, DesiredState, Environment, Parallel, Plan, Reread, restart};

/// What every worker is started with that no configuration changes.
#[derive(Clone, Debug)]
pub(super) struct Base {
    /// The ports that workers are served on.
    pub ports: Vec<WorkerPort>,
    /// How they get their connections.
    pub attach: AttachEnv,
    /// Whether their output comes out on a terminal with colours.
    pub colours: bool,
    /// The limit of open descriptors that clusterd was started with.
    pub limits: Rlimit,
}

impl Base {
    /// What this configuration wants, whose [`exec_context`](fn@exec_context) these are, for workers that inherit this.
    pub(super) fn wanted(
        &self,
        config: &Config,
        context: ExecContext,
        (inherited, settings): (Environment, Arc<CarriedSettings>),
    ) -> DesiredState {
        let told = config.drain_http == DrainHttp::Auto;
        let drain_page = self.attach.drain_page.clone().filter(|_| told);
        let spec = CommandSpec {
            command: config.command.clone(),
            ports: self.ports.clone(),
            attach: AttachEnv { drain_page, ..self.attach.clone() },
            notify: config.wait_ready,
            stdin: config.stdin,
            colours: self.colours,
            context,
            inherited,
            workplace: config.workplace(),
        };
        let plan = Plan { spec, rules: self.rules(config), drain_timeout: config.drain_timeout };
        let reload_parallel = config.reload_parallel.map_or(Parallel::Auto, Parallel::AtMost);
        DesiredState { plan: Arc::new(plan), workers: config.workers, reload_parallel, settings }
    }

    fn rules(&self, config: &Config) -> Rules {
        Rules {
            ports: self.ports.clone(),
            wait_ready: config.wait_ready,
            probes: config.ready_http.is_some(),
            ready_timeout: config.ready_timeout,
            stop: StopRules {
                signal: config.stop_signal.signal(),
                at: match config.stop_signal_at {
                    StopSignalAt::Drained => StopAt::Drained,
                    StopSignalAt::Drain => StopAt::Drain,
                },
                message: config.shutdown_with_message,
            },
            kill_timeout: config.kill_timeout,
            restart: restart::Policy {
                autorestart: config.autorestart,
                min_uptime: config.min_uptime,
                max_restarts: config.max_restarts,
                stop_exit_codes: config.stop_exit_codes.clone(),
                restart_delay: config.restart_delay,
                backoff: config.restart_backoff,
            },
        }
    }

    /// Reads the configuration again, as it was read at the start.
    pub(super) fn reread(self, first: Config, command_line: CommandLine) -> Reread {
        Arc::new(move |inherited| {
            let read = load(command_line.clone()).map_err(|invalid| invalid.to_string())?;
            let (new, settings) = (read.config, Arc::new(read.carried));
            let in_force = diff::in_force(&first, &new);
            let waiting = diff::waiting(&in_force, &new);
            if !waiting.is_empty() {
                warn!("changed settings that need a restart of clusterd: {}", waiting.join(", "));
            }
            let context = exec_context(&in_force, self.limits).map_err(|error| error.to_string())?;
            let wanted = self.wanted(&in_force, context, (inherited, settings));
            wanted.plan.spec.find_program().map_err(|error| error.to_string())?;
            Ok(wanted)
        })
    }
}

/// What workers run as and with, looked up and checked.
///
/// # Errors
/// It cannot be done on this system, or not by this user.
pub(super) fn exec_context(config: &Config, limits: Rlimit) -> Result<ExecContext, ExecContextError> {
    let asked = exec_context::ContextSettings {
        user: config.user.as_deref(),
        group: config.group.as_deref(),
        primary_user: config.primary_user.as_deref(),
        nofile: config.nofile,
        oom_score_adj: config.oom_score_adj,
        cpu_affinity: config.cpu_affinity,
        batch: config.cpu_scheduling == CpuScheduling::Batch,
    };
    ExecContext::check(asked, limits)
}
