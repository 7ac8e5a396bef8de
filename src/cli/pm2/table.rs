//! PM2's list: a table with lines around its cells, or a few lines for each worker.
//!
//! Scripts cut columns out of it, so it has PM2's, in its order.

use serde_json::Value;

use crate::controls;

const HEAD: [&str; 13] = [
    "id",
    "name",
    "namespace",
    "version",
    "mode",
    "pid",
    "uptime",
    "↺",
    "status",
    "cpu",
    "mem",
    "user",
    "watching",
];

/// The table, sorted by name. `now` is in milliseconds since 1970.
pub(crate) fn table(records: &[Value], now: u64) -> String {
    let mut rows: Vec<_> = records.iter().map(|record| row(record, now)).collect();
    rows.sort_by(|one, other| one[1].cmp(&other[1]));
    let cells = || rows.iter().map(|row| row.each_ref().map(String::as_str)).chain([HEAD]);
    let widths: Vec<usize> =
        (0..HEAD.len()).map(|at| cells().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let rule = |left: char, middle: &str, right: char| {
        let cells: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", cells.join(middle))
    };
    let line = |row: &[&str]| {
        let pad =
            |(cell, width): (&&str, &usize)| format!(" {cell}{} ", " ".repeat(width - cell.chars().count()));
        let cells: Vec<_> = row.iter().zip(&widths).map(pad).collect();
        format!("│{}│\n", cells.join("│"))
    };
    let mut text = rule('┌', "┬", '┐') + &line(&HEAD) + &rule('├', "┼", '┤');
    text.extend(rows.iter().map(|row| line(&row.each_ref().map(String::as_str))));
    text + rule('└', "┴", '┘').trim_end()
}

/// `-m`: a few lines for each.
pub(crate) fn mini(records: &[Value], now: u64) -> String {
    let blocks: Vec<_> = records
        .iter()
        .map(|record| {
            let row = row(record, now);
            let lines = HEAD
                .iter()
                .zip(&row)
                .filter(|(name, _)| matches!(**name, "namespace" | "version" | "pid" | "status" | "id"));
            let lines: String = lines.map(|(name, cell)| format!("{name} : {cell}\n")).collect();
            format!("+--- {}\n{lines}", row[1])
        })
        .collect();
    blocks.concat().trim_end().to_owned()
}

fn row(record: &Value, now: u64) -> [String; 13] {
    let env = &record["pm2_env"];
    let text = |value: &Value| controls::blanked(value.as_str().unwrap_or_default());
    let pid = record["pid"].as_i64().unwrap_or_default();
    let started = env["pm_uptime"].as_u64().unwrap_or_default();
    [
        record["pm_id"].as_u64().map_or_else(|| "-".to_owned(), |id| id.to_string()),
        text(&record["name"]),
        text(&env["namespace"]),
        text(&env["version"]),
        text(&env["exec_mode"]).replace("_mode", ""),
        pid.to_string(),
        if pid == 0 { "0".to_owned() } else { uptime(now.saturating_sub(started)) },
        env["restart_time"].to_string(),
        text(&env["status"]),
        format!("{}%", record["monit"]["cpu"].as_f64().unwrap_or_default()),
        memory(record["monit"]["memory"].as_u64().unwrap_or_default()),
        text(&env["username"]),
        if env["watch"] == true { "enabled" } else { "disabled" }.to_owned(),
    ]
}

/// In one unit.
fn uptime(milliseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400_000, "D"), (3_600_000, "h"), (60_000, "m")];
    let unit = UNITS.iter().find(|(unit, _)| milliseconds >= *unit);
    unit.map_or_else(
        || format!("{}s", milliseconds / 1000),
        |(unit, name)| format!("{}{name}", milliseconds / unit),
    )
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn memory(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes}b"),
        |(unit, name)| format!("{:.1}{name}", bytes as f64 / *unit as f64),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_the_columns_of_pm2() {
        let record = |id: u32, name: &str, pid: u32, status: &str| {
            json!({
                "pid": pid, "name": name, "pm_id": id, "monit": { "memory": 55_291_904, "cpu": 0.5 },
                "pm2_env": {
                    "namespace": "default", "version": "1.0.0", "exec_mode": "fork_mode", "pm_uptime": 1_000_000,
                    "restart_time": 3, "status": status, "username": "root", "watch": false,
                },
            })
        };
        let records = [record(0, "web", 4711, "online"), record(1, "api", 0, "stopped")];
        insta::assert_snapshot!(table(&records, 1_065_000), @"
        ┌────┬──────┬───────────┬─────────┬──────┬──────┬────────┬───┬─────────┬──────┬────────┬──────┬──────────┐
        │ id │ name │ namespace │ version │ mode │ pid  │ uptime │ ↺ │ status  │ cpu  │ mem    │ user │ watching │
        ├────┼──────┼───────────┼─────────┼──────┼──────┼────────┼───┼─────────┼──────┼────────┼──────┼──────────┤
        │ 1  │ api  │ default   │ 1.0.0   │ fork │ 0    │ 0      │ 3 │ stopped │ 0.5% │ 52.7mb │ root │ disabled │
        │ 0  │ web  │ default   │ 1.0.0   │ fork │ 4711 │ 1m     │ 3 │ online  │ 0.5% │ 52.7mb │ root │ disabled │
        └────┴──────┴───────────┴─────────┴──────┴──────┴────────┴───┴─────────┴──────┴────────┴──────┴──────────┘
        ");
        assert_eq!(mini(&records[..1], 1_065_000).lines().next(), Some("+--- web"));
        assert_eq!([uptime(59_999), uptime(7_200_000), uptime(200_000_000)], ["59s", "2h", "2D"]);
        assert_eq!([memory(0), memory(2048), memory(3 << 30)], ["0b", "2.0kb", "3.0gb"]);
    }
}
