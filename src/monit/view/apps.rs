//! The apps, a row each.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::columns::{Column, Content, Rows};
use super::palette::Palette;
use super::part;
use crate::control::api::App;
use crate::controls;
use crate::monit::figures::Figures;
use crate::monit::format::{bytes, grouped, or_unknown, percent, rate, seconds};
use crate::monit::model::{Entry, Model, Pane, Running, Sort};

const COLUMNS: [Column; 11] = [
    Column { head: "name", width: 12, is_number: false, dispensable: 0 },
    Column { head: "state", width: 9, is_number: false, dispensable: 0 },
    Column { head: "workers", width: 7, is_number: true, dispensable: 1 },
    Column { head: "conn/s", width: 7, is_number: true, dispensable: 0 },
    Column { head: "wait p99", width: 8, is_number: true, dispensable: 2 },
    Column { head: "queued", width: 6, is_number: true, dispensable: 6 },
    Column { head: "open", width: 6, is_number: true, dispensable: 5 },
    Column { head: "cpu", width: 5, is_number: true, dispensable: 3 },
    Column { head: "memory", width: 7, is_number: true, dispensable: 4 },
    Column { head: "restarts", width: 8, is_number: true, dispensable: 7 },
    Column { head: "namespace", width: 12, is_number: false, dispensable: 9 },
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let shown = model.shown();
    let rows = Rows {
        columns: &COLUMNS,
        widest: 0,
        rows: shown.iter().map(|entry| row(entry, palette)).collect(),
        chosen: model.chosen(),
        has_focus: model.pane == Pane::Apps,
        block: part(title(model, shown.len()), Pane::Apps, model, palette),
    };
    rows.draw(frame, area, palette);
}

fn title(model: &Model, shown: usize) -> String {
    let all = model.entries().len();
    let count = if shown == all { format!("apps: {all}") } else { format!("apps: {shown} of {all}") };
    let order = match (model.sort, model.is_reversed) {
        (Sort::Name, false) => String::new(),
        (sort, is_reversed) => {
            format!(", by {}{}", word(sort), if is_reversed { ", the other way round" } else { "" })
        }
    };
    count + &order
}

fn word(sort: Sort) -> &'static str {
    match sort {
        Sort::Name => "name",
        Sort::Connections => "conn/s",
        Sort::Wait => "wait p99",
        Sort::Open => "open",
        Sort::Cpu => "cpu",
        Sort::Memory => "memory",
    }
}

fn row(entry: &Entry, palette: Palette) -> Vec<Content> {
    match entry {
        Entry::Running { running, figures } => of_running(running, figures, palette),
        Entry::Resting(resting) => {
            vec![
                plain(controls::blanked(&resting.name)),
                (resting.state.to_owned(), palette.state(resting.state)),
            ]
        }
    }
}

fn of_running(running: &Running, figures: &Figures, palette: Palette) -> Vec<Content> {
    let (app, now) = (&running.app, figures.now());
    let online = app.workers.iter().filter(|worker| worker.state == "online").count();
    let state = state(app);
    vec![
        plain(controls::blanked(&running.label)),
        (state.to_owned(), palette.state(state)),
        plain(format!("{online}/{}", app.wanted)),
        plain(or_unknown(now.connections, rate)),
        plain(or_unknown(now.wait, seconds)),
        plain(or_unknown(now.queued, grouped)),
        plain(or_unknown(now.open, grouped)),
        plain(percent(now.cpu)),
        plain(bytes(now.memory)),
        plain(grouped(app.workers.iter().map(|worker| worker.restarts).sum())),
        plain(controls::blanked(&app.namespace)),
    ]
}

/// The state of the whole, in the words of its workers.
fn state(app: &App) -> &'static str {
    let all = |state: &str| !app.workers.is_empty() && app.workers.iter().all(|worker| worker.state == state);
    match app {
        app if app.stopped => "stopped",
        app if app.reload.is_some() => "reloading",
        _ if all("errored") => "errored",
        app if app.is_up() => "online",
        _ => "launching",
    }
}

fn plain(text: String) -> Content {
    (text, Style::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monit::model::tests::app;

    #[test]
    fn the_state_of_an_app_is_that_of_its_workers() {
        let with = |change: fn(&mut App)| {
            let mut app = app("web", 2);
            change(&mut app);
            state(&app)
        };
        assert_eq!(with(|_| {}), "online");
        assert_eq!(with(|app| app.stopped = true), "stopped");
        assert_eq!(with(|app| app.reload = Some("SIGHUP".to_owned())), "reloading");
        assert_eq!(
            with(|app| app.workers.iter_mut().for_each(|worker| worker.state = "errored".to_owned())),
            "errored"
        );
        assert_eq!(with(|app| app.workers[0].state = "launching".to_owned()), "launching");
        assert_eq!(with(|app| app.ready = false), "launching");
    }
}
