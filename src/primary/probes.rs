//! What is asked of workers over private connections, as the configuration wants it.
//!
//! How a worker is asked is in [`private`](crate::private).

use hyper::Uri;
use hyper::header::HeaderMap;

use crate::front;
use crate::ids::{WorkerId, WorkerPort};
use crate::metrics::Metrics;
use crate::private::health::{self, Health};
use crate::private::question::Question;
use crate::private::scrape::Scraper;
use crate::private::{WorkerDialer, probe};
use crate::settings::Config;
use crate::settings::parse::ProbeHeader;
use crate::supervisor;
use crate::tasks;

/// Where workers are asked: on the port that was named first.
#[derive(Clone, Debug)]
pub(super) struct WorkerProbes {
    dialer: WorkerDialer,
    port: Option<WorkerPort>,
}

/// What a worker has to answer before it is ready.
#[derive(Clone, Debug)]
pub(super) struct ReadinessProbe {
    probes: WorkerProbes,
    question: Question,
}

impl WorkerProbes {
    /// Questions to the listeners on `port`; none are asked without one.
    pub(super) fn new(front: front::handle::Handle, port: Option<WorkerPort>) -> Self {
        Self { dialer: WorkerDialer::new(front), port }
    }

    /// `--ready-http`.
    pub(super) fn ready_http(&self, config: &Config) -> Option<ReadinessProbe> {
        Some(ReadinessProbe { probes: self.clone(), question: question(config, &config.ready_http)? })
    }

    /// `--scrape`.
    pub(super) fn scraper(
        &self,
        config: &Config,
        supervisor: &supervisor::Handle,
        metrics: &Metrics,
    ) -> Option<Scraper> {
        let (question, errors) = (question(config, &config.scrape)?, metrics.scrape_errors.clone());
        Some(Scraper::new(self.dialer.clone(), supervisor.status(), self.port?, question, errors))
    }

    /// `--health-http`: looks after the workers for as long as the program runs.
    pub(super) fn start_health(&self, config: &Config, supervisor: &supervisor::Handle, metrics: &Metrics) {
        let (Some(question), Some(port)) = (question(config, &config.health_http), self.port) else { return };
        let (interval, failures) = (config.health_interval, config.health_failures);
        let health = Health {
            rules: health::HealthRules { port, question, interval, failures },
            dialer: self.dialer.clone(),
            supervisor: supervisor.clone(),
            failures: metrics.health_failures.clone(),
        };
        tasks::spawn(health.watch());
    }
}

/// GET of this path, if there is one, with the headers of `--probe-header`.
fn question(config: &Config, path: &Option<Uri>) -> Option<Question> {
    let mut headers = HeaderMap::new();
    for ProbeHeader { name, value } in config.probe_header.clone() {
        headers.append(name, value);
    }
    Some(Question { path: path.clone()?, headers })
}

impl ReadinessProbe {
    /// Done when the worker has answered well. Not bounded in time.
    pub(super) async fn answered(self, worker: WorkerId) {
        let WorkerProbes { dialer, port } = self.probes;
        if let Some(port) = port {
            probe::until_ready(&dialer, worker, port, &self.question).await;
        }
    }
}
