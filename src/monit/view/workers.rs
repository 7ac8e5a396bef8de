//! The workers of the chosen app, a row each.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::{Column, Content, Rows};
use super::palette::Palette;
use super::part;
use crate::control::api::Worker;
use crate::controls;
use crate::monit::figures::Figures;
use crate::monit::format::{UNKNOWN, age, bytes, grouped, or_unknown, percent, rate};
use crate::monit::model::{Entry, Model, Pane};

const COLUMNS: [Column; 11] = [
    Column { head: "id", width: 4, is_number: true, dispensable: 4 },
    Column { head: "worker", width: 6, is_number: true, dispensable: 0 },
    Column { head: "state", width: 15, is_number: false, dispensable: 0 },
    Column { head: "pid", width: 7, is_number: true, dispensable: 5 },
    Column { head: "uptime", width: 6, is_number: true, dispensable: 3 },
    Column { head: "restarts", width: 8, is_number: true, dispensable: 6 },
    Column { head: "cpu", width: 5, is_number: true, dispensable: 0 },
    Column { head: "memory", width: 7, is_number: true, dispensable: 1 },
    Column { head: "conn/s", width: 7, is_number: true, dispensable: 2 },
    Column { head: "open", width: 6, is_number: true, dispensable: 7 },
    Column { head: "last end", width: 24, is_number: false, dispensable: 8 },
];

/// How many rows an app has.
pub(super) fn count(entry: &Entry) -> usize {
    match entry {
        Entry::Running { running, .. } => running.app.workers.len(),
        Entry::Resting(_) => 0,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let entry = model.chosen_entry();
    let title = match entry {
        Some(entry) => format!("workers of {}: {}", controls::blanked(entry.label()), count(entry)),
        None => "workers".to_owned(),
    };
    let rows = match entry {
        Some(Entry::Running { running, figures }) => {
            running.app.workers.iter().map(|worker| row(worker, &running.ids, figures, palette)).collect()
        }
        _ => Vec::new(),
    };
    let rows = Rows {
        columns: &COLUMNS,
        widest: COLUMNS.len() - 1,
        rows,
        chosen: model.chosen_worker().map(|(row, _)| row).filter(|_| model.pane == Pane::Workers),
        has_focus: true,
        block: part(title, Pane::Workers, model, palette),
    };
    rows.draw(frame, area, palette);
}

fn row(worker: &Worker, ids: &[u32], figures: &Figures, palette: Palette) -> Vec<Content> {
    let plain = |text: String| (text, Style::new());
    let id = worker.worker.checked_sub(1).and_then(|at| ids.get(at as usize));
    vec![
        plain(or_unknown(id, ToString::to_string)),
        plain(worker.worker.to_string()),
        (controls::blanked(&worker.state).replace('_', " "), palette.state(&worker.state)),
        plain(or_unknown(worker.pid, |pid| pid.to_string())),
        plain(or_unknown(worker.uptime_ms, age)),
        plain(worker.restarts.to_string()),
        plain(or_unknown(worker.cpu_percent, percent)),
        plain(or_unknown(worker.memory_bytes, bytes)),
        plain(or_unknown(figures.taken(worker.worker), rate)),
        plain(or_unknown(worker.connections_open, grouped)),
        plain(controls::blanked(worker.last_end.as_deref().unwrap_or(UNKNOWN))),
    ]
}
