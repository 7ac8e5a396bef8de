//! The `clusterd` command.
use clusterd::config::*;
use clusterd::ids::WorkerPort;
use std::num::*;
use std::time::Duration;
fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("demo-worker") {
        return clusterd::demo::demo_main();
    }
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let command = if args.is_empty() {
        WorkerCommand::Demo
    } else {
        WorkerCommand::Program { program: args[0].clone(), arguments: args[1..].to_vec() }
    };
    let config = Config {
        command,
        workers: NonZeroU32::new(4).unwrap(),
        listen: vec![Listen { bind: Bind::Everywhere { port: 3000 }, worker_port: WorkerPort(3000) }],
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
