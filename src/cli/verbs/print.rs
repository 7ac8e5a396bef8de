//! How verbs print: tables and lines for people, JSON for programs.
//!
//! It is the one place where they write to standard output. What others have written is rid of control characters
//! first: a terminal would obey them.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::control::api::{Accept, App, Problem, Worker};
use crate::controls;
use crate::home::ids::Ids;
use crate::logs::look::Look;

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The flag that chooses.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Shape {
    /// Print text for people, or JSON for programs
    #[arg(short, long, value_name = "text|json", default_value = "text", hide_possible_values = true)]
    pub(super) output: Output,
}

/// Whether somebody watches.
pub(super) fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// For whom a table is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Somebody watches.
    pub is_watched: bool,
    /// How many columns there are, if that is known.
    pub width: Option<usize>,
    /// Colours are welcome.
    pub has_colours: bool,
}

impl View {
    /// Of standard output.
    pub(super) fn of_stdout() -> Self {
        let is_watched = is_watched();
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok().filter(|_| is_watched);
        let width = size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0);
        let has_colours = Look::of(io::stdout()) == Look::Terminal { colour: true };
        Self { is_watched, width, has_colours }
    }
}

/// Prints a line, or several.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints what was done for an app.
pub(super) fn done(app: &str, what: &str, shape: Shape) -> io::Result<()> {
    match shape.output {
        Output::Text => line(&controls::blanked(&format!("{app}: {what}"))),
        Output::Json => json_line(&serde_json::json!({ "app": app, "done": what })),
    }
}

/// Prints bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Prints an object as JSON, readable.
pub(super) fn json(object: &impl Serialize) -> io::Result<()> {
    json_text(&serde_json::to_string_pretty(object)?)
}

/// Prints an object as JSON on a line of its own.
pub(super) fn json_line(object: &impl Serialize) -> io::Result<()> {
    json_text(&serde_json::to_string(object)?)
}

/// Prints JSON that is written already.
pub(super) fn json_text(json: &str) -> io::Result<()> {
    line(&controls::escaped_json(json))
}

/// What is wrong, what would help, and what the worker said last.
pub(super) fn problem(problem: &Problem) -> String {
    let mut text = controls::blanked_lines(&problem.message);
    if let Some(help) = &problem.help {
        text += &format!("\nhint: {}", controls::blanked(help));
    }
    if !problem.last_lines.is_empty() {
        text += "\nthe worker's last lines:";
        text += &quoted(&problem.last_lines);
    }
    text
}

/// What the terminal would obey is written as a Rust program has it: `\n`, `\u{1b}`.
pub(super) fn escaped(text: &str) -> String {
    let escape = |character: char| match controls::is_control(character) {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Lines that a worker wrote, each on a line of its own, indented.
pub(super) fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  | {}", controls::blanked(line))).collect()
}

/// The workers of these apps, a row each; an app without any has a row, too, and so has one that does not run.
pub(super) fn workers<'a>(
    apps: impl Iterator<Item = (String, &'a App)>,
    at_rest: impl Iterator<Item = (String, &'static str)>,
    ids: &Ids,
    view: View,
) -> String {
    let rows = apps.flat_map(|(label, app)| {
        let id = |worker: &Worker| id(ids, &app.name, worker.worker);
        let of = |worker: &Worker| row(id(worker), &label, worker, app);
        match app.workers.is_empty() {
            true => vec![resting(&label, idle(app))],
            false => app.workers.iter().map(of).collect(),
        }
    });
    let at_rest = at_rest.map(|(name, state)| resting(&name, state));
    let mut rows: Vec<Vec<String>> = rows.chain(at_rest).collect();
    let columns = fit(&mut rows, view.width.unwrap_or(usize::MAX));
    let head: Vec<_> = columns.iter().map(|&column| HEAD[column]).collect();
    let place = |column| columns.iter().position(|&kept| kept == column);
    let numbers: Vec<_> = NUMBERS.into_iter().filter_map(place).collect();
    let drawn = drawn(&head, rows.into_iter(), &numbers, view.is_watched);
    match place(STATE) {
        Some(state) if view.has_colours => coloured(&drawn, state),
        _ => drawn,
    }
}

/// The columns of the workers.
const HEAD: [&str; 11] =
    ["id", "name", "worker", "state", "pid", "uptime", "restarts", "cpu", "memory", "taken", "clusterd"];

/// Those that are aligned to the right.
const NUMBERS: [usize; 7] = [0, 2, 4, 6, 7, 8, 9];

/// Which of them is the name, and which the state.
const NAME: usize = 1;
const STATE: usize = 3;

/// Those that a narrow terminal does without, the least important first.
const DISPENSABLE: [usize; 8] = [10, 9, 4, 2, 5, 7, 6, 8];

/// How many characters of a name there always are.
const SHORT: usize = 20;

/// Takes from the rows what is too wide: ends of names, and then columns. Those that are left.
fn fit(rows: &mut [Vec<String>], width: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..HEAD.len()).collect();
    let fits = |rows: &[Vec<String>], columns: &[usize]| {
        let width_of = |&column: &usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).chain([HEAD[column].len()]).max().unwrap_or_default()
        };
        // A space on both sides of each, and lines between and around them.
        columns.iter().map(|column| width_of(column) + 3).sum::<usize>() < width
    };
    if !fits(rows, &columns) {
        rows.iter_mut().for_each(|row| shorten(&mut row[NAME], SHORT));
    }
    for column in DISPENSABLE {
        if !fits(rows, &columns) {
            columns.retain(|&kept| kept != column);
        }
    }
    for row in rows {
        let kept = columns.iter().filter_map(|&column| row.get(column).cloned());
        *row = kept.collect();
    }
    columns
}

fn shorten(text: &mut String, most: usize) {
    if text.chars().count() > most {
        *text = text.chars().take(most - 1).chain(['…']).collect();
    }
}

/// The drawn table with the states of workers in colours: good ones green, bad ones red, those that pass yellow.
fn coloured(table: &str, state: usize) -> String {
    let line = |line: &str| {
        let mut cells: Vec<_> = line.split('┆').map(str::to_owned).collect();
        if let Some(cell) = cells.get_mut(state) {
            let word = cell.trim_matches([' ', '│']);
            let colour = match word {
                "online" => 32,
                "errored" | "stopped" => 31,
                "-" | "state" => return line.to_owned(),
                _ => 33,
            };
            *cell = cell.replacen(word, &format!("\x1b[{colour}m{word}\x1b[0m"), 1);
        }
        cells.join("┆")
    };
    // The head has lines of another kind.
    table.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn resting(label: &str, state: &str) -> Vec<String> {
    vec!["-".to_owned(), controls::blanked(label), "-".to_owned(), state.to_owned()]
}

/// The number that a worker has in its home folder.
pub(super) fn id(ids: &Ids, app: &str, worker: u32) -> Option<u32> {
    ids.of_app(app).get(worker.checked_sub(1)? as usize).copied()
}

fn idle(app: &App) -> &'static str {
    if app.stopped { "stopped" } else { "-" }
}

/// What workers accept by themselves nobody counts.
fn row(id: Option<u32>, label: &str, worker: &Worker, app: &App) -> Vec<String> {
    let taken = (app.accept == Accept::Primary).then_some(worker.connections_taken);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        or_none(id.map(|id| id.to_string())),
        controls::blanked(label),
        worker.worker.to_string(),
        controls::blanked(&worker.state).replace('_', " "),
        or_none(worker.pid.map(|pid| pid.to_string())),
        or_none(worker.uptime_ms.map(duration)),
        worker.restarts.to_string(),
        or_none(worker.cpu_percent.map(|percent| format!("{percent:.1}%"))),
        or_none(worker.memory_bytes.map(|bytes| ByteSize(bytes).display().iec_short().to_string())),
        or_none(taken.map(|taken| taken.to_string())),
        version(app),
    ]
}

/// Of the clusterd that runs it, and whether a start of it would run another one.
fn version(App { version, outdated, .. }: &App) -> String {
    let note = if *outdated { " (replaced)" } else { "" };
    format!("{}{note}", controls::blanked(version))
}

/// The app for programs, with the numbers of its workers.
///
/// # Errors
/// None that can happen: it is plain.
pub(super) fn with_ids(app: &App, ids: &Ids) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(app)?;
    let workers = value["workers"].as_array_mut().into_iter().flatten();
    for (shown, worker) in workers.zip(&app.workers) {
        if let Some(id) = id(ids, &app.name, worker.worker) {
            shown["id"] = id.into();
        }
    }
    Ok(value)
}

/// A table: with lines on a terminal, plain elsewhere; `numbers` are the columns to be aligned to the right.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, numbers: &[usize]) -> String {
    drawn(head, rows, numbers, is_watched())
}

fn drawn(
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    numbers: &[usize],
    is_watched: bool,
) -> String {
    let mut table = Table::new();
    table.load_style(if is_watched { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Disabled).set_header(head).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if !is_watched {
            column.set_padding((0, 2));
        }
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A time in its two greatest units.
pub(super) fn duration(millis: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(millis / 1000)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Code;

    #[test]
    fn a_problem_is_told_with_what_would_help_and_what_was_said_last() {
        let last_lines = vec!["\u{1b}[31mboom".to_owned(), "a\tb\u{202e}c".to_owned()];
        let told = Problem { last_lines, ..Problem::new(Code::Failed, "it crashed").help("look at it") };
        insta::assert_snapshot!(problem(&told), @"
        it crashed
        hint: look at it
        the worker's last lines:
          |  [31mboom
          | a b c
        ");
    }

    #[test]
    fn times_are_short() {
        let table =
            [(999, "0s"), (59_000, "59s"), (61_000, "1m 1s"), (3_661_000, "1h 1m"), (90_000_000, "1day 1h")];
        for (millis, expected) in table {
            assert_eq!(duration(millis), expected);
        }
    }

    #[test]
    fn workers_are_a_row_each() {
        let worker = Worker {
            worker: 2,
            state: "waiting_restart".to_owned(),
            pid: None,
            started: None,
            uptime_ms: None,
            restarts: 3,
            cpu_percent: None,
            memory_bytes: None,
            connections_taken: 9,
            connections_open: None,
            moved: None,
            listening: Vec::new(),
            without_shim: Vec::new(),
            last_end: None,
            last_lines: Vec::new(),
            environment: None,
        };
        let online = Worker {
            worker: 1,
            state: "online".to_owned(),
            pid: Some(4711),
            uptime_ms: Some(61_000),
            cpu_percent: Some(12.25),
            memory_bytes: Some(45 << 20),
            ..worker.clone()
        };
        let app = |workers, stopped| App {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            command: Vec::new(),
            pid: 1,
            version: "0.1.0".to_owned(),
            outdated: stopped,
            upgrade: None,
            started: crate::supervisor::events::Time(std::time::SystemTime::UNIX_EPOCH),
            uptime_ms: 0,
            addresses: Vec::new(),
            wanted: 2,
            stopped,
            ready: true,
            accept: Accept::Primary,
            asks_to_leave: true,
            reload: None,
            traffic: None,
            workers,
        };
        let (web, idle) = (app(vec![online, worker], false), app(vec![], true));
        let running = [("web".to_owned(), &web), ("idle".to_owned(), &idle)].into_iter();
        let home = tempfile::tempdir().unwrap();
        Ids::give(home.path(), "other", 7).unwrap();
        Ids::give(home.path(), "web", 1).unwrap();
        let at_rest = [("api".to_owned(), "errored")].into_iter();
        let ids = Ids::of(home.path());
        let drawn = |view| workers(running.clone(), at_rest.clone(), &ids, view);
        let table = drawn(View::default());
        insta::assert_snapshot!(table, @"
        id  name  worker  state             pid  uptime  restarts    cpu  memory  taken  clusterd
         7  web        1  online           4711  1m 1s          3  12.2%   45.0M      9  0.1.0
         -  web        2  waiting restart     -  -              3      -       -      9  0.1.0
         -  idle       -  stopped
         -  api        -  errored
        ");
        let watched = |width| View { is_watched: true, width: Some(width), has_colours: false };
        insta::assert_snapshot!(drawn(watched(200)), @"
        ┌────┬──────┬────────┬─────────────────┬──────┬────────┬──────────┬───────┬────────┬───────┬──────────┐
        │ id ┆ name ┆ worker ┆ state           ┆  pid ┆ uptime ┆ restarts ┆   cpu ┆ memory ┆ taken ┆ clusterd │
        ╞════╪══════╪════════╪═════════════════╪══════╪════════╪══════════╪═══════╪════════╪═══════╪══════════╡
        │  7 ┆ web  ┆      1 ┆ online          ┆ 4711 ┆ 1m 1s  ┆        3 ┆ 12.2% ┆  45.0M ┆     9 ┆ 0.1.0    │
        │  - ┆ web  ┆      2 ┆ waiting restart ┆    - ┆ -      ┆        3 ┆     - ┆      - ┆     9 ┆ 0.1.0    │
        │  - ┆ idle ┆      - ┆ stopped         ┆      ┆        ┆          ┆       ┆        ┆       ┆          │
        │  - ┆ api  ┆      - ┆ errored         ┆      ┆        ┆          ┆       ┆        ┆       ┆          │
        └────┴──────┴────────┴─────────────────┴──────┴────────┴──────────┴───────┴────────┴───────┴──────────┘
");
        for width in [80, 60, 40] {
            let narrow = drawn(watched(width));
            assert!(narrow.lines().all(|line| line.chars().count() <= width), "{width}: {narrow}");
        }
        insta::assert_snapshot!(drawn(watched(80)), @"
        ┌────┬──────┬────────┬─────────────────┬────────┬──────────┬───────┬────────┐
        │ id ┆ name ┆ worker ┆ state           ┆ uptime ┆ restarts ┆   cpu ┆ memory │
        ╞════╪══════╪════════╪═════════════════╪════════╪══════════╪═══════╪════════╡
        │  7 ┆ web  ┆      1 ┆ online          ┆ 1m 1s  ┆        3 ┆ 12.2% ┆  45.0M │
        │  - ┆ web  ┆      2 ┆ waiting restart ┆ -      ┆        3 ┆     - ┆      - │
        │  - ┆ idle ┆      - ┆ stopped         ┆        ┆          ┆       ┆        │
        │  - ┆ api  ┆      - ┆ errored         ┆        ┆          ┆       ┆        │
        └────┴──────┴────────┴─────────────────┴────────┴──────────┴───────┴────────┘
        ");
        let coloured = drawn(View { has_colours: true, ..watched(80) });
        let plain = coloured
            .replace("\x1b[32m", "")
            .replace("\x1b[31m", "")
            .replace("\x1b[33m", "")
            .replace("\x1b[0m", "");
        assert_eq!(plain, drawn(watched(80)));
        insta::assert_snapshot!(coloured.replace('\x1b', "ESC"), @"
        ┌────┬──────┬────────┬─────────────────┬────────┬──────────┬───────┬────────┐
        │ id ┆ name ┆ worker ┆ state           ┆ uptime ┆ restarts ┆   cpu ┆ memory │
        ╞════╪══════╪════════╪═════════════════╪════════╪══════════╪═══════╪════════╡
        │  7 ┆ web  ┆      1 ┆ ESC[32monlineESC[0m          ┆ 1m 1s  ┆        3 ┆ 12.2% ┆  45.0M │
        │  - ┆ web  ┆      2 ┆ ESC[33mwaiting restartESC[0m ┆ -      ┆        3 ┆     - ┆      - │
        │  - ┆ idle ┆      - ┆ ESC[31mstoppedESC[0m         ┆        ┆          ┆       ┆        │
        │  - ┆ api  ┆      - ┆ ESC[31merroredESC[0m         ┆        ┆          ┆       ┆        │
        └────┴──────┴────────┴─────────────────┴────────┴──────────┴───────┴────────┘
        ");
    }
}
