//! clusterd beside what else spreads connections over processes: one command, in turn, the same applications and clients.
//!
//! Each contender is started, measured and ended in every round; then comes the next one. [`contender`] lists who is compared,
//! [`measure`] what is measured, [`plan`] says when and for how long, and [`load`] has the clients. It decides nothing: numbers
//! depend on the machine, so it prints them, as Markdown or JSON, and what could not be measured and why. `--help` names the
//! options. With `--test` or `--smoke`, and under `cargo test`, it only shows that everything runs.
//!
//! CPU time is that of all living threads, to the nanosecond (`schedstat`); that of `stat` comes in ticks of 10 ms. What the kernel
//! does for nobody in particular, as in its soft interrupts, counts for whom it interrupts: loopback traffic mostly for the sender.

mod answer;
mod application;
mod contender;
mod histogram;
mod load;
mod measure;
mod numbers;
mod options;
mod place;
mod plan;
#[path = "../handoff/process.rs"]
#[allow(dead_code, reason = "the other benchmarks also measure whole trees of processes, and bursts")]
mod process;
mod report;
mod running;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;

use contender::Contender;
use measure::{Measure, Stage};
use options::Options;
use place::Place;
use plan::Plan;
use report::Report;
use running::Running;

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some(measure::NEIGHBOUR) {
        return measure::run_neighbour();
    }
    let options = Options::parse(std::env::args().skip(1))?;
    if options.helps {
        println!("{}", options::HELP);
        return Ok(());
    }
    let contenders = chosen(contender::ALL, options.only.as_deref(), |contender| contender.name, |_| true)?;
    let is_wanted = |measure: &Measure| measure.is_default || options.is_full;
    let measures = chosen(measure::ALL, options.measures.as_deref(), |measure| measure.name, is_wanted)?;
    if options.lists {
        list(&contenders, &measures);
        return Ok(());
    }
    compare(&options, &contenders, &measures)
}

/// Those that are named, in the order of the list; without names, those that are wanted by default.
fn chosen<'a, T>(
    all: &'a [T],
    names: Option<&[String]>,
    name: impl Fn(&T) -> &str,
    is_wanted: impl Fn(&T) -> bool,
) -> anyhow::Result<Vec<&'a T>> {
    let Some(names) = names else { return Ok(all.iter().filter(|one| is_wanted(one)).collect()) };
    for wanted in names {
        let known = || all.iter().map(&name).collect::<Vec<_>>().join(", ");
        anyhow::ensure!(all.iter().any(|one| name(one) == wanted), "no {wanted:?}: choose from {}", known());
    }
    Ok(all.iter().filter(|one| names.iter().any(|wanted| wanted == name(one))).collect())
}

fn list(contenders: &[&Contender], measures: &[&Measure]) {
    for contender in contenders {
        println!("{:<18} {:<20} {}", contender.name, contender.application, contender.says);
    }
    for measure in measures {
        println!("{:<18} {}", measure.name, measure.says);
    }
}

fn compare(options: &Options, contenders: &[&Contender], measures: &[&Measure]) -> anyhow::Result<()> {
    let begin = Instant::now();
    raise_descriptors()?;
    let place = place(options, contenders)?;
    let missing = |contender: &Contender| contender.needs().into_iter().find(|program| !place.has(program));
    let (present, absent): (Vec<&Contender>, Vec<_>) =
        contenders.iter().partition(|contender| missing(contender).is_none());
    let slices = measure::WARM_UP + measures.iter().map(|measure| measure.slices).sum::<f64>();
    let plan = Plan::new(options, present.len(), slices);
    let mut report = Report::new(plan, present.iter().copied().copied().collect());
    for contender in absent {
        let program = missing(contender).unwrap_or_default();
        report.note(contender.name, format_args!("{program} is not installed"));
    }
    let expected = plan.expected(slices).as_secs_f64();
    let Plan { rounds, slice, .. } = plan;
    println!("{} contenders, {rounds} rounds, parts of {slice:?}: about {expected:.0} s", present.len());
    run(&mut report, &place, plan, &present, measures, begin);
    report.took(begin.elapsed());
    publish(options, &report, measures)
}

fn place(options: &Options, contenders: &[&Contender]) -> anyhow::Result<Place> {
    let mut applications: Vec<_> = contenders.iter().map(|contender| contender.application).collect();
    applications.sort_unstable();
    applications.dedup();
    Place::new(
        &applications,
        options.program.as_deref(),
        Duration::from_secs(if options.is_short { 4 } else { 120 }),
    )
}

/// All rounds, as far as there is time.
fn run(
    report: &mut Report,
    place: &Place,
    plan: Plan,
    present: &[&Contender],
    measures: &[&Measure],
    begin: Instant,
) {
    let mut left_out: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (round, index) in plan.turns() {
        let (contender, began) = (present[index], begin.elapsed());
        if !plan.may_begin(began) {
            left_out.entry(round).or_default().push(contender.name);
            continue;
        }
        turn(report, place, plan, round, contender, measures);
        let took = (begin.elapsed() - began).as_secs_f64();
        println!("round {}: {}, {took:.1} s", round + 1, contender.name);
    }
    for (round, names) in left_out {
        let names = names.join(", ");
        report.note(&format!("round {}", round + 1), format_args!("no time is left for {names}"));
    }
}

/// One contender in one round: what goes wrong with it is a line of the report, and the others go on.
fn turn(
    report: &mut Report,
    place: &Place,
    plan: Plan,
    round: usize,
    contender: &Contender,
    measures: &[&Measure],
) {
    let running = match Running::start(contender, place, plan.workers, plan.patience) {
        Ok(running) => running,
        Err(error) => return report.note(contender.name, format_args!("{error:#}")),
    };
    let workers = contender.workers(plan.workers);
    if running.answering.len() < workers {
        let answering = running.answering.len();
        let note = format_args!("only {answering} of {workers} workers answered at the start");
        report.note(contender.name, note);
    }
    let mut stage = Stage { running: &running, plan, round, saturated: None };
    if let Err(error) = stage.warm_up() {
        return report.note(contender.name, format_args!("{error:#}"));
    }
    for measure in measures {
        match (measure.run)(&mut stage) {
            Ok(values) => report.add(round, contender, measure, values),
            Err(error) => {
                report.note(&format!("{}, {}", contender.name, measure.name), format_args!("{error:#}"))
            }
        }
    }
}

fn publish(options: &Options, report: &Report, measures: &[&Measure]) -> anyhow::Result<()> {
    let tables = report.markdown(measures);
    println!("\n{tables}");
    if let Some(path) = &options.markdown {
        report::write_markdown(path, &tables)?;
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Each client needs a descriptor, and so does each server for it.
fn raise_descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(65_536).min(65_536);
    let current = limit.current.map_or(wanted, |current| current.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).context("cannot open more files")
}
