//! What keys mean, over the rest of the screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};

use super::palette::Palette;
use crate::monit::keys::HELP;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, palette: Palette) {
    let keys = HELP.iter().map(|(keys, _)| keys.len()).max().unwrap_or_default();
    let lines: Vec<_> = HELP
        .iter()
        .map(|(key, what)| {
            Line::from(vec![Span::styled(format!(" {key:keys$}  "), palette.head()), Span::raw(*what)])
        })
        .collect();
    let wide = lines.iter().map(Line::width).max().unwrap_or_default() + 3;
    let high = lines.len() + 2;
    let length = |cells: usize| [Constraint::Length(u16::try_from(cells).unwrap_or(u16::MAX))];
    let [area] = Layout::horizontal(length(wide)).flex(Flex::Center).areas(area);
    let [area] = Layout::vertical(length(high)).flex(Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), area);
}
