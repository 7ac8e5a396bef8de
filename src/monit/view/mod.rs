//! Draws the model: the apps, the chosen one's last minutes, its workers, and what was said.
//!
//! ```text
//!  clusterd   apps, errors                     one line
//!  apps       a row each
//!  charts     of the chosen app
//!  workers    of the chosen app
//!  log        of the chosen app │ events       beside each other where there is room
//!  keys       or the question, the filter      one line
//! ```
//!
//! It changes nothing: the same model is drawn in the same way.

mod apps;
mod charts;
mod columns;
mod help;
mod lines;
mod palette;
mod status;
mod workers;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::{Block, Borders};

use self::palette::Palette;
pub(super) use self::palette::has_colours;
use super::model::{Lines, Mode, Model, Pane};

/// The smallest screen that is drawn.
const SMALLEST: (u16, u16) = (40, 10);

/// How many rows there have to be for charts.
const FOR_CHARTS: u16 = 20;

/// How many columns there have to be for the log beside the events.
const FOR_BOTH: u16 = 110;

/// Where everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Areas {
    head: Rect,
    apps: Rect,
    charts: Option<Rect>,
    workers: Rect,
    log: Option<Rect>,
    events: Option<Rect>,
    foot: Rect,
}

/// Draws it all.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, has_colours: bool) {
    let (area, palette) = (frame.area(), Palette::new(has_colours));
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("at least {} columns and {} rows are needed", SMALLEST.0, SMALLEST.1);
        frame.render_widget(text, area);
        return;
    }
    let workers = model.chosen_entry().map_or(0, workers::count);
    let areas = areas(area, model.shown().len(), workers, model.lines);
    status::draw_head(frame, areas.head, model, palette);
    apps::draw(frame, areas.apps, model, palette);
    if let Some(area) = areas.charts {
        charts::draw(frame, area, model, palette);
    }
    workers::draw(frame, areas.workers, model, palette);
    if let Some(area) = areas.log {
        lines::draw_log(frame, area, model, palette);
    }
    if let Some(area) = areas.events {
        lines::draw_events(frame, area, model, palette);
    }
    status::draw_foot(frame, areas.foot, model, palette);
    if model.mode == Mode::Help {
        help::draw(frame, area, palette);
    }
}

/// Divides the screen for so many apps, and workers of the chosen one.
fn areas(area: Rect, apps: usize, workers: usize, lines: Lines) -> Areas {
    let [head, middle, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    let charts = if area.height >= FOR_CHARTS { charts::HEIGHT } else { 0 };
    let free = middle.height - charts;
    // A title, a head, and the rows; each part leaves room for the others.
    let rows = |rows: usize, most: u16| u16::try_from(rows.max(1) + 2).unwrap_or(u16::MAX).min(most);
    let for_apps = rows(apps, (free / 3).max(3));
    let for_workers = rows(workers, ((free - for_apps) / 2).max(3));
    let [apps, charts, workers, rest] = Layout::vertical([
        Constraint::Length(for_apps),
        Constraint::Length(charts),
        Constraint::Length(for_workers),
        Constraint::Fill(1),
    ])
    .areas(middle);
    let (log, events) = match lines {
        _ if area.width >= FOR_BOTH => {
            let [log, events] =
                Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).spacing(1).areas(rest);
            (Some(log), Some(events))
        }
        Lines::Log => (Some(rest), None),
        Lines::Events => (None, Some(rest)),
    };
    Areas { head, apps, charts: Some(charts).filter(|area| area.height > 0), workers, log, events, foot }
}

/// A part of the screen, below its title. The keys are for the one whose title stands out.
fn part(title: String, pane: Pane, model: &Model, palette: Palette) -> Block<'static> {
    let style = if model.pane == pane { palette.focus() } else { palette.faint() };
    Block::new()
        .borders(Borders::TOP)
        .border_style(palette.faint())
        .title(format!(" {title} "))
        .title_style(style)
}

#[cfg(test)]
mod tests;
