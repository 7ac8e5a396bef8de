//! The `clusterd` command: what runs, and what it exits with.

use std::process::ExitCode;

use clusterd::config::Config;
use clusterd::supervisor::spawn::DEMO_VERB;
use clusterd::{cli, demo, primary};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|verb| verb == DEMO_VERB) {
        return demo::demo_main();
    }
    if std::env::args().nth(1).as_deref() == Some(clusterd::supervisor::guardian::VERB) {
        return clusterd::supervisor::guardian::guardian_main(std::env::args_os().skip(2));
    }
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let command = if args.is_empty() {
        WorkerCommand::Demo
    } else {
        WorkerCommand::Program {
            program: args[0].clone(),
            arguments: args[1..].to_vec(),
        }
    };
    let config = Config {
        command,
        workers: NonZeroU32::new(4).unwrap(),
        listen: vec![Listen {
            bind: Bind::Everywhere { port: 3000 },
            worker_port: WorkerPort(3000),
        }],
        backlog: NonZeroU32::new(4096).unwrap(),
        queue: NonZeroUsize::new(1024).unwrap(),
        queue_timeout: Duration::from_secs(60),
        handoff_timeout: Duration::from_secs(1),
        grace: Duration::from_secs(8),
        metrics: Some("127.0.0.1:9090".parse().unwrap()),
        log_format: LogFormat::Text,
        log_level: tracing::level_filters::LevelFilter::INFO,
        attach: Attach::Auto,
    };
    match clusterd::primary::run(config) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("clusterd: {e}");
            std::process::ExitCode::from(e.exit_code())
        }
    }
}
