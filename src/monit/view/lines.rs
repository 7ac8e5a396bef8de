//! The log of the chosen app, and the events of all.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::palette::Palette;
use super::part;
use crate::controls;
use crate::monit::model::{Entry, Model, Pane};

pub(super) fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let title = match model.chosen_entry() {
        Some(entry) => format!("log of {}", controls::blanked(entry.label())),
        None => "log".to_owned(),
    };
    let block = part(titled(title, model.log.is_scrolled()), Pane::Lines, model, palette);
    let rows = usize::from(area.height.saturating_sub(1));
    let lines: Vec<_> = model
        .log
        .in_sight(rows)
        .map(|written| {
            let style = if written.is_error { palette.bad() } else { Style::new() };
            Line::styled(controls::blanked(&written.text), style)
        })
        .collect();
    let lines =
        if lines.is_empty() { vec![Line::styled(without_lines(model), palette.faint())] } else { lines };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Why there is nothing.
fn without_lines(model: &Model) -> &'static str {
    match model.chosen_entry() {
        Some(Entry::Running { running, .. }) if running.ids.is_empty() => {
            "its output goes to where it was started from"
        }
        Some(_) => "nothing was written yet",
        None => "",
    }
}

pub(super) fn draw_events(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let block = part(titled("events".to_owned(), model.events.is_scrolled()), Pane::Lines, model, palette);
    let rows = usize::from(area.height.saturating_sub(1));
    let lines: Vec<_> = model
        .events
        .in_sight(rows)
        .map(|event| {
            let (time, rest) = (&event.time, controls::blanked(&format!("{}: {}", event.app, event.text)));
            Line::from(vec![Span::styled(format!("{time} "), palette.faint()), Span::raw(rest)])
        })
        .collect();
    let lines = if lines.is_empty() {
        vec![Line::styled("nothing has happened yet", palette.faint())]
    } else {
        lines
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn titled(title: String, is_scrolled: bool) -> String {
    if is_scrolled { format!("{title}, scrolled back") } else { title }
}
