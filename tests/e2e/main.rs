//! End-to-end tests: the real `clusterd` in front of real, unmodified servers, one theme a file.
//!
//! They know nothing of the crate's insides but the wire format: everything else is seen as a user sees it, by
//! connections, messages, metrics and processes. `cargo test --test e2e servers::` runs one theme.
//!
//! A test whose program is not installed says so and passes; with `CLUSTERD_TEST_REQUIRE_ALL=1` it fails.

mod booted;
mod harness;

mod accepting;
mod api;
mod apps;
mod as_natively;
mod attach;
mod campaign;
mod control;
mod daemons;
mod dashboard;
mod dialect;
mod doctor;
mod drain_http;
mod draining;
mod entrypoints;
mod environment;
mod exposition;
mod families;
mod handoff;
mod home_folder;
mod hooks;
mod import;
mod lanes;
mod late;
mod library;
mod limits;
mod lingering;
mod listen_fds;
mod listen_queue;
mod log_files;
mod logs;
mod many_apps;
mod metrics;
mod monit;
mod never_listens;
mod node;
mod notify;
mod on_demand;
mod packages;
mod policies;
mod primary_user;
mod private;
mod queue;
mod ready;
mod recycling;
mod releases;
mod reload_keepalive;
mod restart;
mod rings;
mod runtime_folder;
mod scratch;
mod seccomp;
mod sent_away;
mod serve;
mod servers;
mod shutdown;
mod signals;
mod start;
mod startup;
mod supervision;
mod systemd;
mod unfit;
mod up;
mod upgrade;
mod verbs_small;
mod web;
