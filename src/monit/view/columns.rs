//! Tables whose columns make way: a narrow screen has only the most important ones.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Flex, Rect};
use ratatui::style::Style;
use ratatui::text::Text;
use ratatui::widgets::{Block, Cell, Row, Table, TableState};

use super::palette::Palette;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What stands above it.
    pub head: &'static str,
    /// How wide it is.
    pub width: u16,
    /// Numbers are aligned to the right.
    pub is_number: bool,
    /// The greater, the earlier it makes way; 0 never does.
    pub dispensable: u8,
}

/// A cell: what is in it, and how it looks.
pub(super) type Content = (String, Style);

/// The columns that have room in this width, in their order. One of them takes what is left.
fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let needed = |kept: &[usize]| kept.iter().map(|&at| columns[at].width + 1).sum::<u16>().saturating_sub(1);
    while needed(&kept) > width {
        let Some(&first) = kept.iter().max_by_key(|&&at| columns[at].dispensable) else { break };
        if columns[first].dispensable == 0 {
            break;
        }
        kept.retain(|&at| at != first);
    }
    kept
}

/// A table to draw.
pub(super) struct Rows<'a> {
    pub columns: &'a [Column],
    /// The column that is as wide as what is in it, as far as there is room.
    pub widest: usize,
    pub rows: Vec<Vec<Content>>,
    pub chosen: Option<usize>,
    pub has_focus: bool,
    pub block: Block<'a>,
}

impl Rows<'_> {
    /// Draws as many as have room, the chosen one among them.
    pub(super) fn draw(self, frame: &mut Frame<'_>, area: Rect, palette: Palette) {
        let kept = fitting(self.columns, area.width);
        let others: u16 =
            kept.iter().filter(|&&at| at != self.widest).map(|&at| self.columns[at].width + 1).sum();
        let widest =
            self.rows.iter().filter_map(|row| row.get(self.widest)).map(|(text, _)| text.chars().count());
        let widest = widest.max().and_then(|widest| u16::try_from(widest).ok()).unwrap_or_default();
        let constraint = |&at: &usize| match (at == self.widest, self.columns[at].width) {
            (true, width) => Constraint::Length(widest.min(area.width.saturating_sub(others)).max(width)),
            (false, width) => Constraint::Length(width),
        };
        let aligned = |at: usize| match self.columns[at].is_number {
            true => Alignment::Right,
            false => Alignment::Left,
        };
        let head =
            kept.iter().map(|&at| Cell::from(Text::from(self.columns[at].head).alignment(aligned(at))));
        let rows = self.rows.iter().map(|row| {
            let cell = |&at: &usize| {
                row.get(at).map_or_else(Cell::default, |(text, style)| {
                    Cell::from(Text::from(text.as_str()).alignment(aligned(at))).style(*style)
                })
            };
            Row::new(kept.iter().map(cell))
        });
        let table = Table::new(rows, kept.iter().map(constraint))
            .header(Row::new(head).style(palette.head()))
            .flex(Flex::Start)
            .row_highlight_style(palette.chosen(self.has_focus))
            .block(self.block);
        let mut state = TableState::new().with_selected(self.chosen);
        frame.render_stateful_widget(table, area, &mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_columns_make_way() {
        let column = |width, dispensable| Column { head: "", width, is_number: false, dispensable };
        let columns = [column(10, 0), column(5, 2), column(5, 1), column(5, 3)];
        for (width, kept) in
            [(28, vec![0, 1, 2, 3]), (27, vec![0, 1, 2]), (21, vec![0, 2]), (15, vec![0]), (3, vec![0])]
        {
            assert_eq!(fitting(&columns, width), kept, "{width}");
        }
    }
}
