//! `clusterd connections`: the clients' open connections, and which worker has which.
//!
//! It sorts and prints; what is known of a connection is clusterd's to say.

use std::cmp::Ordering;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use futures_util::TryStreamExt;
use serde::Serialize;

use super::app::NameFlag;
use super::choose::{Many, choose, labels};
use super::print::{self, Output, Shape};
use super::{VerbError, rest, whole};
use crate::cli::complain;
use crate::control::api::{App, Connection};
use crate::control::client::{self, Clusterd};
use crate::control::home::Home;
use crate::controls;
use crate::ids::Slot;

/// Show the open connections of every app, or of one, with their workers and traffic
#[derive(Debug, clap::Args)]
pub(super) struct Connections {
    /// Name of the app, or the pid of its clusterd; without it, show those of every app
    #[arg(value_name = "APP")]
    app: Option<String>,

    #[command(flatten)]
    flag: NameFlag,

    /// Only those of this worker
    #[arg(long, short, value_name = "N", value_parser = whole::worker, allow_negative_numbers = true)]
    worker: Option<u32>,

    /// Sort by this column: amounts and times from the largest, all else from the first; default: by app and worker, and
    /// then by age
    #[arg(long, short, value_name = "COLUMN")]
    sort: Option<Column>,

    /// Sort the other way round
    #[arg(long, short)]
    reverse: bool,

    #[command(flatten)]
    shape: Shape,
}

/// The columns of the table, from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Column {
    Name,
    Worker,
    Client,
    Port,
    State,
    Age,
    Idle,
    In,
    Out,
    Rtt,
    Retrans,
    Queued,
}

/// A connection, and the app that it is to.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// The app's name, or what tells it from another one of that name.
    app: String,
    #[serde(flatten)]
    connection: Connection,
}

impl Connections {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let found = client::find(&Home::of_this_process()).await;
        let wanted = self.app.as_deref().or(self.flag.name.as_deref());
        let meant = choose(&found, &rest::ids(), wanted.or(Some("all")), Many::All)?;
        let mut rows = Vec::new();
        let mut code = ExitCode::SUCCESS;
        for error in found.errors.iter().filter(|_| wanted.is_none()) {
            complain(&error.to_string());
            code = ExitCode::FAILURE;
        }
        for ((clusterd, app), label) in found.apps.iter().zip(labels(&found.apps)) {
            if !meant.iter().any(|(_, other)| std::ptr::eq(other, app)) {
                continue;
            }
            match self.fetch(clusterd, app).await {
                Ok(connections) => {
                    rows.extend(
                        connections.into_iter().map(|connection| Row { app: label.clone(), connection }),
                    );
                }
                // Of several apps, those that answer are shown.
                Err(error) if meant.len() > 1 => {
                    complain(&format!("{}: {}", label, told(&error)));
                    code = ExitCode::FAILURE;
                }
                Err(error) => return Err(error.into()),
            }
        }
        sort(&mut rows, self.sort, self.reverse);
        match self.shape.output {
            Output::Json => print::json(&rows)?,
            Output::Text => print::line(&table(&rows))?,
        }
        Ok(code)
    }

    async fn fetch(&self, clusterd: &Clusterd, app: &App) -> Result<Vec<Connection>, client::Error> {
        let connections = clusterd.connections(&app.name, self.worker.map(Slot)).await?;
        connections.try_collect().await
    }
}

fn told(error: &client::Error) -> String {
    match error {
        client::Error::Refused(problem) => print::problem(problem),
        error => error.to_string(),
    }
}

/// Rows that are equal in this column stay in the default order; what is not known comes last, whichever way it goes.
fn sort(rows: &mut [Row], column: Option<Column>, reverse: bool) {
    use Column::{Age, Name, Worker};
    let by_default = |one: &Row, other: &Row| {
        let by = |column| compare(column, one, other, false);
        by(Name).then_with(|| by(Worker)).then_with(|| by(Age))
    };
    let first = column.unwrap_or(Name);
    rows.sort_by(|one, other| match column {
        Some(column) => compare(column, one, other, reverse).then_with(|| by_default(one, other)),
        None if reverse => by_default(other, one),
        None => compare(first, one, other, false).then_with(|| by_default(one, other)),
    });
}

fn compare(column: Column, one: &Row, other: &Row, reverse: bool) -> Ordering {
    let (a, b) = (&one.connection, &other.connection);
    let directed = |order: Ordering| if reverse { order.reverse() } else { order };
    match column {
        Column::Name => directed(one.app.cmp(&other.app)),
        Column::Worker => known_first(a.worker, b.worker, |a, b| directed(a.cmp(b))),
        Column::Client => directed(a.client.cmp(&b.client)),
        Column::Port => directed(a.local.port().cmp(&b.local.port())),
        Column::State => directed(a.state.cmp(&b.state)),
        Column::Age => largest_first(a.age_seconds, b.age_seconds, reverse),
        Column::Idle => largest_first(a.idle_seconds, b.idle_seconds, reverse),
        Column::In => known_first(a.received_bytes, b.received_bytes, |a, b| directed(b.cmp(a))),
        Column::Out => known_first(a.sent_bytes, b.sent_bytes, |a, b| directed(b.cmp(a))),
        Column::Rtt => largest_first(a.rtt_seconds, b.rtt_seconds, reverse),
        Column::Retrans => {
            known_first(a.retransmitted_segments, b.retransmitted_segments, |a, b| directed(b.cmp(a)))
        }
        Column::Queued => largest_first(a.queued_seconds, b.queued_seconds, reverse),
    }
}

fn largest_first(one: Option<f64>, other: Option<f64>, reverse: bool) -> Ordering {
    known_first(one, other, |a, b| if reverse { a.total_cmp(b) } else { b.total_cmp(a) })
}

fn known_first<T>(one: Option<T>, other: Option<T>, compare: impl FnOnce(&T, &T) -> Ordering) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => compare(&one, &other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

fn table(rows: &[Row]) -> String {
    let heads: Vec<String> = Column::value_variants().iter().filter_map(head).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    print::table(&heads, rows.iter().map(cells), &[1, 3, 5, 6, 7, 8, 9, 10, 11])
}

fn head(column: &Column) -> Option<String> {
    column.to_possible_value().map(|value| value.get_name().to_owned())
}

fn cells(row: &Row) -> Vec<String> {
    let Row { app, connection } = row;
    let bytes = |bytes| ByteSize(bytes).display().iec_short().to_string();
    vec![
        controls::blanked(app),
        or_unknown(connection.worker, |worker| worker.to_string()),
        connection.client.to_string(),
        connection.local.port().to_string(),
        controls::blanked(&connection.state),
        or_unknown(connection.age_seconds, short),
        or_unknown(connection.idle_seconds, short),
        or_unknown(connection.received_bytes, bytes),
        or_unknown(connection.sent_bytes, bytes),
        or_unknown(connection.rtt_seconds, short),
        or_unknown(connection.retransmitted_segments, |segments| segments.to_string()),
        or_unknown(connection.queued_seconds, short),
    ]
}

fn or_unknown<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// A time from a microsecond to years, in two or three digits: `85us`, `1.2ms`, `120ms`, `4s`, `3m 2s`.
fn short(seconds: f64) -> String {
    let Ok(time) = Duration::try_from_secs_f64(seconds) else { return "-".to_owned() };
    let micros = time.as_micros();
    match micros {
        0 => "0s".to_owned(),
        1..1_000 => format!("{micros}us"),
        1_000..10_000 => format!("{}.{}ms", micros / 1_000, micros / 100 % 10),
        10_000..1_000_000 => format!("{}ms", micros / 1_000),
        _ => print::duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(app: &str, worker: Option<u32>, client: &str) -> Row {
        let connection = Connection {
            client: client.parse().expect("an address"),
            local: "127.0.0.1:80".parse().expect("an address"),
            worker,
            state: "established".to_owned(),
            age_seconds: None,
            idle_seconds: None,
            received_bytes: None,
            sent_bytes: None,
            rtt_seconds: None,
            rtt_variation_seconds: None,
            retransmitted_segments: None,
            queued_seconds: None,
        };
        Row { app: app.to_owned(), connection }
    }

    #[test]
    fn connections_are_a_row_each_and_what_is_not_known_is_a_dash() {
        let known = Connection {
            state: "close-wait".to_owned(),
            age_seconds: Some(182.4),
            idle_seconds: Some(0.1204),
            received_bytes: Some(512),
            sent_bytes: Some(36_175_872),
            rtt_seconds: Some(0.02308),
            rtt_variation_seconds: Some(0.001),
            retransmitted_segments: Some(3),
            queued_seconds: Some(0.000_041),
            ..row("", Some(1), "[2001:db8::7]:51034").connection
        };
        let rows = [Row { app: "web".to_owned(), connection: known }, row("web", None, "203.0.113.7:80")];
        insta::assert_snapshot!(table(&rows), @"
        name  worker  client               port  state          age   idle    in    out   rtt  retrans  queued
        web        1  [2001:db8::7]:51034    80  close-wait   3m 2s  120ms  512B  34.5M  23ms        3    41us
        web        -  203.0.113.7:80         80  established      -      -     -      -     -        -       -
        ");
        let head = "name  worker  client  port  state  age  idle  in  out  rtt  retrans  queued";
        assert_eq!(table(&[]), head);
        let json = serde_json::to_value(&rows[1]).unwrap();
        let bare = serde_json::json!({
            "app": "web", "client": "203.0.113.7:80", "local": "127.0.0.1:80", "state": "established"
        });
        assert_eq!(json, bare);
        assert_eq!(serde_json::to_value(&rows[0]).unwrap()["received_bytes"], 512);
    }

    #[test]
    fn times_have_two_or_three_digits() {
        let table = [
            (0.0, "0s"),
            (0.000_000_4, "0s"),
            (0.000_085, "85us"),
            (0.001_29, "1.2ms"),
            (0.012_9, "12ms"),
            (0.999_999, "999ms"),
            (1.0, "1s"),
            (182.9, "3m 2s"),
            (90_000.0, "1day 1h"),
            (f64::NAN, "-"),
            (-1.0, "-"),
        ];
        for (seconds, expected) in table {
            assert_eq!(short(seconds), expected, "{seconds}");
        }
    }

    /// The clients' ports of these rows, sorted.
    fn sorted(rows: &[Row], column: Option<Column>, reverse: bool) -> Vec<u16> {
        let mut rows = rows.to_vec();
        sort(&mut rows, column, reverse);
        rows.iter().map(|row| row.connection.client.port()).collect()
    }

    #[test]
    fn amounts_are_sorted_from_the_largest_and_what_is_not_known_comes_last() {
        let mut rows = vec![
            row("web", Some(2), "10.0.0.9:1"),
            row("web", Some(1), "10.0.0.10:2"),
            row("web", None, "10.0.0.1:3"),
            row("api", Some(3), "[::1]:4"),
        ];
        let times = [Some(5.0), Some(70.0), None, Some(0.5)];
        for (row, time) in rows.iter_mut().zip(times) {
            row.connection.age_seconds = time;
            row.connection.sent_bytes = time.map(|time| (time * 10.0) as u64);
        }
        let table: [(Option<Column>, [u16; 4], [u16; 4]); 5] = [
            (None, [4, 2, 1, 3], [3, 1, 2, 4]),
            (Some(Column::Age), [2, 1, 4, 3], [4, 1, 2, 3]),
            (Some(Column::Out), [2, 1, 4, 3], [4, 1, 2, 3]),
            (Some(Column::Worker), [2, 1, 4, 3], [4, 1, 2, 3]),
            (Some(Column::Client), [3, 1, 2, 4], [4, 2, 1, 3]),
        ];
        for (column, expected, reversed) in table {
            assert_eq!(sorted(&rows, column, false), expected, "{column:?}");
            assert_eq!(sorted(&rows, column, true), reversed, "{column:?} reversed");
        }
    }

    #[test]
    fn every_column_sorts_by_itself() {
        for &column in Column::value_variants() {
            let first = row("api", Some(1), "10.0.0.1:1");
            let mut second = row("api", Some(1), "10.0.0.1:1");
            let connection = &mut second.connection;
            match column {
                Column::Name => second.app = "web".to_owned(),
                Column::Worker => connection.worker = Some(2),
                Column::Client => connection.client.set_port(2),
                Column::Port => connection.local.set_port(81),
                Column::State => connection.state = "fin-wait-2".to_owned(),
                Column::Age => connection.age_seconds = Some(1.0),
                Column::Idle => connection.idle_seconds = Some(1.0),
                Column::In => connection.received_bytes = Some(1),
                Column::Out => connection.sent_bytes = Some(1),
                Column::Rtt => connection.rtt_seconds = Some(1.0),
                Column::Retrans => connection.retransmitted_segments = Some(1),
                Column::Queued => connection.queued_seconds = Some(1.0),
            }
            assert_ne!(compare(column, &first, &second, false), Ordering::Equal, "{column:?}");
            let others = Column::value_variants().iter().filter(|other| **other != column);
            for &other in others {
                assert_eq!(compare(other, &first, &second, false), Ordering::Equal, "{column:?} {other:?}");
            }
        }
    }
}
