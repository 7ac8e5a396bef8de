//! The last minutes of the chosen app.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::widgets::{Block, Borders, RenderDirection, Sparkline};

use super::palette::Palette;
use crate::monit::figures::{Figures, Moment};
use crate::monit::format::{bytes, grouped, or_unknown, percent, rate, seconds};
use crate::monit::model::{Entry, Model};

/// How many rows they have, the titles among them.
pub(super) const HEIGHT: u16 = 4;

/// How wide each is at least.
const WIDTH: u16 = 19;

/// What is drawn, the most important first.
struct Chart {
    name: &'static str,
    figure: fn(&Moment) -> Option<f64>,
    shown: fn(f64) -> String,
}

const CHARTS: [Chart; 5] = [
    Chart { name: "conn/s", figure: |moment| moment.connections, shown: rate },
    Chart { name: "wait p99", figure: |moment| moment.wait, shown: seconds },
    Chart { name: "cpu", figure: |moment| Some(moment.cpu), shown: percent },
    Chart { name: "memory", figure: |moment| Some(moment.memory as f64), shown: |size| bytes(size as u64) },
    Chart { name: "open", figure: |moment| Some(moment.open? as f64), shown: |open| grouped(open as u64) },
];

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, palette: Palette) {
    let Some(Entry::Running { figures, .. }) = model.chosen_entry() else { return };
    let count = usize::from((area.width / (WIDTH + 1)).max(1)).min(CHARTS.len());
    let places = Layout::horizontal(vec![Constraint::Fill(1); count]).spacing(1).split(area);
    for (chart, &place) in CHARTS.iter().zip(places.iter()) {
        chart.draw(frame, place, figures, palette);
    }
}

impl Chart {
    fn draw(&self, frame: &mut Frame<'_>, area: Rect, figures: &Figures, palette: Palette) {
        let Self { name, figure, shown } = self;
        let now = or_unknown(figure(&figures.now()), shown);
        let block =
            Block::new().borders(Borders::TOP).border_style(palette.faint()).title(format!(" {name} {now} "));
        let columns = usize::from(area.width);
        let latest: Vec<_> = figures.latest(figure).take(columns).map(|value| value.map(bar)).collect();
        let line = Sparkline::default().data(latest).direction(RenderDirection::RightToLeft);
        frame.render_widget(line.style(palette.chart()).absent_value_symbol(" ").block(block), area);
    }
}

/// Bars are whole numbers: in millionths, small waiting times have a height, too.
fn bar(value: f64) -> u64 {
    (value * 1e6) as u64
}
