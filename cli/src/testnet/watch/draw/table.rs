//! The table of nodes: more columns, the wider the screen.

use std::time::Duration;

use ratatui::{
    layout::Rect,
    style::{Modifier, Style},
};

use super::{Page, node_colour, rate, time, window};
use crate::testnet::{
    status::Tone,
    watch::scene::{Node, Scene, Told},
};

/// A column.
struct Column {
    title: &'static str,
    width: u16,
    /// More on a screen that has all columns.
    wider: u16,
    /// Numbers stand on the right.
    right: bool,
    /// Shown from this width of the screen on.
    from: u16,
    cell: fn(&Node) -> (String, Option<Tone>),
}

/// All columns, in their order. NET takes what is left.
const COLUMNS: [Column; 13] = [
    Column { title: "STATE", width: 12, wider: 8, right: false, from: 0, cell: state },
    Column { title: "ADDRESS", width: 15, wider: 0, right: false, from: WIDE, cell: address },
    Column { title: "ZONE", width: 5, wider: 0, right: false, from: 90, cell: zone },
    Column { title: "RING %", width: 6, wider: 0, right: true, from: 0, cell: share },
    Column { title: "KEYS", width: 7, wider: 0, right: true, from: 0, cell: keys },
    Column { title: "HINTS", width: 6, wider: 0, right: true, from: 0, cell: hints },
    Column { title: "LAG", width: 7, wider: 0, right: true, from: 0, cell: lag },
    Column { title: "REQ/S", width: 6, wider: 0, right: true, from: 0, cell: requests },
    Column { title: "P99", width: 7, wider: 0, right: true, from: 0, cell: p99 },
    Column { title: "EPOCH", width: 5, wider: 0, right: true, from: 110, cell: epoch },
    Column { title: "UPTIME", width: 8, wider: 0, right: true, from: 110, cell: uptime },
    Column { title: "RSS", width: 8, wider: 0, right: true, from: 120, cell: rss },
    Column { title: " NET", width: u16::MAX, wider: 0, right: false, from: 0, cell: net },
];

impl Page<'_> {
    /// The nodes, as many as there are lines for.
    pub(super) fn nodes(&mut self, area: Rect, scene: &Scene) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.line(area, None, |column| (column.title.to_owned(), bold));
        let rows = window(scene.nodes.len(), usize::from(area.height - 1), scene.selected);
        for (number, index) in (1..).zip(rows) {
            let node = &scene.nodes[index];
            let is_selected = index == scene.selected;
            let line = Rect { y: area.y + number, height: 1, ..area };
            let styles =
                [None, Some(Tone::Good), Some(Tone::Fair), Some(Tone::Bad), Some(Tone::Quiet)];
            let styles =
                styles.map(|tone| (tone, tone.map_or(Style::new(), |tone| self.toned(tone))));
            self.line(line, Some((node, is_selected)), |column| {
                let (text, tone) = (column.cell)(node);
                let style = styles.iter().find(|(known, _)| *known == tone);
                let style = style.map_or(Style::new(), |(_, style)| *style);
                (text, if is_selected { style.add_modifier(Modifier::BOLD) } else { style })
            });
        }
    }

    /// A line of the table; the headings, if it is about no node.
    fn line(
        &mut self,
        area: Rect,
        node: Option<(&Node, bool)>,
        cell: impl Fn(&Column) -> (String, Style),
    ) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        match node {
            None => {
                self.text(area, 2, "NODE", bold);
            }
            Some((node, is_selected)) => {
                let mark = if is_selected { "▸" } else { " " };
                let style = self.inked(node_colour(node.id));
                let name = node.id.to_string();
                self.texts(area, [(mark, bold), ("▌", style), (name.as_str(), bold)]);
            }
        }
        let mut at = NAME;
        for column in COLUMNS.iter().filter(|column| column.from <= area.width) {
            let (text, style) = cell(column);
            let wider = if area.width >= WIDE { column.wider } else { 0 };
            let width = column.width.saturating_add(wider).min(area.width.saturating_sub(at));
            let text: String = match text.chars().count() > usize::from(width) {
                true => {
                    let kept = usize::from(width).saturating_sub(1);
                    text.chars().take(kept).chain(['…']).collect()
                }
                false => text,
            };
            let text = match column.right {
                true => format!("{text:>width$}", width = usize::from(width)),
                false => text,
            };
            self.text(area, at, &text, style);
            at = at.saturating_add(width).saturating_add(1);
        }
    }
}

/// From this width on there is room for all.
const WIDE: u16 = 130;

/// Columns of the mark and the name.
const NAME: u16 = 7;

fn state(node: &Node) -> (String, Option<Tone>) {
    let (words, tone) = &node.state;
    (words.clone(), Some(*tone))
}

fn address(node: &Node) -> (String, Option<Tone>) {
    (node.address.clone(), None)
}

fn zone(node: &Node) -> (String, Option<Tone>) {
    (node.zone.clone(), None)
}

fn share(node: &Node) -> (String, Option<Tone>) {
    known(node.share, |share| format!("{:.1}", share * 100.0))
}

fn keys(node: &Node) -> (String, Option<Tone>) {
    told(node, |told| told.keys.to_string())
}

fn hints(node: &Node) -> (String, Option<Tone>) {
    match node.told.as_ref().filter(|told| told.hints > 0) {
        Some(told) => (told.hints.to_string(), Some(Tone::Fair)),
        None => told(node, |_| "0".into()),
    }
}

fn lag(node: &Node) -> (String, Option<Tone>) {
    told(node, |told| told.lag.clone())
}

fn requests(node: &Node) -> (String, Option<Tone>) {
    known(node.pace.as_ref(), |pace| rate(pace.rate()))
}

fn p99(node: &Node) -> (String, Option<Tone>) {
    known(node.pace.as_ref().and_then(|pace| pace.p99()), time)
}

fn epoch(node: &Node) -> (String, Option<Tone>) {
    told(node, |told| told.epoch.to_string())
}

fn uptime(node: &Node) -> (String, Option<Tone>) {
    told(node, |told| match told.uptime {
        short if short < Duration::from_secs(3600) => humantime::format_duration(short).to_string(),
        long => format!("{}h {}m", long.as_secs() / 3600, long.as_secs() / 60 % 60),
    })
}

fn rss(node: &Node) -> (String, Option<Tone>) {
    told(node, |told| format!("{} MiB", told.resident_bytes.div_ceil(1 << 20)))
}

fn net(node: &Node) -> (String, Option<Tone>) {
    match &node.net {
        Some((words, tone)) => (format!(" {words}"), Some(*tone)),
        None => (" -".into(), Some(Tone::Quiet)),
    }
}

fn told(node: &Node, of: impl Fn(&Told) -> String) -> (String, Option<Tone>) {
    known(node.told.as_ref(), of)
}

fn known<T>(known: Option<T>, of: impl Fn(T) -> String) -> (String, Option<Tone>) {
    known.map_or(("-".into(), Some(Tone::Quiet)), |known| (of(known), None))
}
