//! The first line of the screen and the last.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::palette::Palette;
use crate::controls;
use crate::monit::format::{grouped, rate};
use crate::monit::model::{Entry, Mode, Model};

pub(super) fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let mut spans = vec![Span::styled(" clusterd ", palette.head())];
    spans.push(Span::raw(sum(model)));
    if let Some(error) = model.errors.first() {
        let others = model.errors.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" (and {others} more)") };
        spans.push(Span::styled(controls::blanked(&format!("  {error}{others}")), palette.bad()));
    }
    frame.render_widget(Line::from(spans), area);
}

fn sum(model: &Model) -> String {
    if !model.has_looked {
        return "looking for apps".to_owned();
    }
    if model.entries().is_empty() {
        return "no running clusterd found for this user".to_owned();
    }
    let running = model.entries().iter().filter_map(|entry| match entry {
        Entry::Running { running, figures } => Some((running, figures)),
        Entry::Resting(_) => None,
    });
    let (mut workers, mut connections) = (0, 0.0);
    for (running, figures) in running {
        workers += running.app.workers.len() as u64;
        connections += figures.now().connections.unwrap_or_default();
    }
    let apps = model.entries().len() as u64;
    format!("apps {}, workers {}, conn/s {}", grouped(apps), grouped(workers), rate(connections))
}

pub(super) fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let line = match (&model.mode, &model.said) {
        (Mode::Asking(order), _) => {
            Line::styled(controls::blanked(&format!(" {} (y, n)", order.question())), palette.question())
        }
        (Mode::Filtering, _) => {
            Line::styled(format!(" name has: {}_", controls::blanked(&model.filter)), palette.question())
        }
        (_, Some(said)) => Line::raw(controls::blanked(&format!(" {said}"))),
        _ if !model.filter.is_empty() => {
            Line::raw(format!(" name has: {} (esc forgets it)", controls::blanked(&model.filter)))
        }
        _ => Line::styled(
            " ? help  q quit  tab next part  r reload  R restart  s stop  + - scale  / filter  o sort",
            palette.faint(),
        ),
    };
    frame.render_widget(line, area);
}
