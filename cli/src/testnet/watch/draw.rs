//! The scene on a screen of any size.
//!
//! ```text
//!   testnet dev   healthy
//!      ▄▄▄▄        partitions: how many are whole …
//!    █      █      who hears whom: a row for each node
//!      ▀▀▀▀
//!   NODE STATE … one line for each node
//!   reads, writes, hints, staleness
//!   what came of the last key
//!   keys
//! ```
//! The table gets the lines it needs, the ring what is left. Where there are more nodes than lines, those around the selected
//! one are shown. Without colours ([`Ink::Letters`]) the same picture is drawn with digits and signs.

use std::time::Duration;

use atoll_client::NodeId;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
};

use super::{
    keys::HELP,
    pace::Kind,
    ring::{Health, Pixel, Ring},
    scene::{Link, Load, Scene},
};
use crate::testnet::status::Tone;

mod table;

/// What there is to draw with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Colours, and half blocks as pixels.
    Colours,
    /// `NO_COLOR`: letters, bold and dim.
    Letters,
}

/// Draws all of it.
pub fn draw(buffer: &mut Buffer, scene: &Scene, ink: Ink) {
    let all = buffer.area;
    let mut page = Page { buffer, ink };
    if all.width < WIDTH_MIN || all.height < HEIGHT_MIN {
        let words = format!("{WIDTH_MIN} columns and {HEIGHT_MIN} lines are needed; q quits");
        page.text(all, 0, &words, Style::new());
        return;
    }
    let lines = |from: u16, count: u16| Rect { y: all.y + from, height: count, ..all };
    let nodes = u16::try_from(scene.nodes.len()).unwrap_or(u16::MAX - 1);
    let spare = all.height - TITLE - LOAD - BOTTOM;
    let table = (nodes + 1).min(spare - TOP_MIN);
    let top = (spare - table).min((all.width - PANEL_MIN) / 2);
    page.title(lines(0, TITLE), scene);
    page.top(lines(TITLE, top), scene);
    page.nodes(lines(TITLE + top, table), scene);
    page.load(lines(TITLE + top + table, LOAD), &scene.load);
    page.bottom(lines(all.height - BOTTOM, BOTTOM), scene);
}

/// Less than this shows nothing that could be read.
const WIDTH_MIN: u16 = 72;
const HEIGHT_MIN: u16 = 20;

/// Lines of each part, and the least of the parts that share.
const TITLE: u16 = 1;
const LOAD: u16 = 4;
const BOTTOM: u16 = 2;
const TOP_MIN: u16 = 9;

/// Columns beside the ring.
const PANEL_MIN: u16 = 54;

/// Where it is drawn, and with what.
struct Page<'a> {
    buffer: &'a mut Buffer,
    ink: Ink,
}

impl Page<'_> {
    /// A text at this column of the first line of an area, cut at the area's end; the column behind it.
    fn text(&mut self, area: Rect, column: u16, text: &str, style: Style) -> u16 {
        let area = area.intersection(self.buffer.area);
        if area.is_empty() || column >= area.width {
            return column;
        }
        let room = usize::from(area.width - column);
        let (end, _) = self.buffer.set_stringn(area.x + column, area.y, text, room, style);
        end - area.x
    }

    /// Texts one after the other.
    fn texts<'t>(&mut self, area: Rect, texts: impl IntoIterator<Item = (&'t str, Style)>) {
        texts.into_iter().fold(0, |column, (text, style)| self.text(area, column, text, style));
    }

    fn toned(&self, tone: Tone) -> Style {
        let colour = match tone {
            Tone::Good => Color::Green,
            Tone::Fair => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Quiet => return Style::new().add_modifier(Modifier::DIM),
        };
        self.inked(colour)
    }

    fn inked(&self, colour: Color) -> Style {
        match self.ink {
            Ink::Colours => Style::new().fg(colour),
            Ink::Letters => Style::new(),
        }
    }

    fn title(&mut self, area: Rect, scene: &Scene) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let (mood, tone) = &scene.mood;
        let name = format!(" testnet {}   ", scene.name);
        let style = self.toned(*tone).add_modifier(Modifier::BOLD);
        self.texts(area, [(name.as_str(), bold), (mood.as_str(), style)]);
    }

    /// The ring on the left, beside it what can be said of it and of the links.
    fn top(&mut self, area: Rect, scene: &Scene) {
        let rows = area.height - 1; // a line is left free below
        let width = rows * 2;
        let ring = Rect { x: area.x + 1, width, height: rows, ..area };
        let panel = width + 4;
        let panel = Rect { x: area.x + panel, width: area.width - panel, height: rows, ..area };
        match &scene.ring {
            None => {
                self.text(panel, 0, "no node has told of the ring yet", Style::new());
            }
            Some(partitions) => {
                self.ring(ring, partitions);
                self.health(panel, partitions, scene.epoch);
            }
        }
        let links = Rect { y: panel.y + 3, height: panel.height - 3, ..panel };
        self.links(links, scene);
    }

    fn ring(&mut self, area: Rect, ring: &Ring) {
        let size = 2.0 / f64::from(area.width);
        let middle = |number: u16| (f64::from(number) + 0.5) * size - 1.0;
        for row in 0..area.height {
            for column in 0..area.width {
                let x = middle(column);
                let Some(cell) = self.buffer.cell_mut((area.x + column, area.y + row)) else {
                    continue;
                };
                match self.ink {
                    Ink::Colours => {
                        let half = |y: u16| ring.pixel(x, middle(y), size).map(pixel_colour);
                        let (upper, lower) = (half(row * 2), half(row * 2 + 1));
                        match (upper, lower) {
                            (Some(upper), Some(lower)) => {
                                cell.set_char('▀').set_bg(lower).set_fg(upper)
                            }
                            (Some(upper), None) => cell.set_char('▀').set_fg(upper),
                            (None, Some(lower)) => cell.set_char('▄').set_fg(lower),
                            (None, None) => continue,
                        };
                    }
                    Ink::Letters => {
                        let y = (f64::from(row) + 0.5) * size * 2.0 - 1.0;
                        // a cell is two pixels high
                        if let Some(pixel) = ring.pixel(x, y, size * 2.0) {
                            cell.set_char(pixel_letter(pixel));
                        }
                    }
                }
            }
        }
        let words = [ring.slices.len().to_string(), format!("× {}", ring.copies)];
        for (line, word) in (0..).zip(&words) {
            let y = area.y + (area.height - 1) / 2 + line;
            let indent =
                area.width.saturating_sub(u16::try_from(word.chars().count()).unwrap_or(0)) / 2;
            self.text(Rect { y, height: 1, ..area }, indent, word, Style::new());
        }
    }

    /// How many partitions are how.
    fn health(&mut self, area: Rect, ring: &Ring, epoch: Option<u64>) {
        let epoch = epoch.map_or(String::new(), |epoch| format!(", epoch {epoch}"));
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.texts(area, [("partitions", bold), (epoch.as_str(), Style::new())]);
        let second = Rect { y: area.y + 1, ..area };
        let mut column = 0;
        for health in Health::ALL {
            let count = ring.count(health);
            let sign = match self.ink {
                Ink::Colours => '■',
                Ink::Letters => health_letter(health),
            };
            let style = match count {
                0 => self.toned(Tone::Quiet),
                _ => self.inked(health_colour(health)),
            };
            let words = format!("{sign} {} {count}  ", health.word());
            column = self.text(second, column, &words, style);
        }
    }

    /// Who hears whom.
    fn links(&mut self, area: Rect, scene: &Scene) {
        let nodes = scene.nodes.len();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let fits = usize::from(area.width.saturating_sub(NAME) / (CELL + 1)) >= nodes;
        let cell = if fits { CELL + 1 } else { CELL };
        let columns =
            window(nodes, usize::from(area.width.saturating_sub(NAME) / cell), scene.selected);
        let rows = window(nodes, usize::from(area.height.saturating_sub(2)), scene.selected);
        let some = match rows.len() < nodes || columns.len() < nodes {
            true => format!("; {} of {nodes} nodes", rows.len().min(columns.len())),
            false => String::new(),
        };
        self.texts(
            area,
            [
                ("who hears whom", bold),
                (", round trip in ms", Style::new()),
                (some.as_str(), Style::new()),
            ],
        );
        let line = |number: usize| {
            let number = u16::try_from(number).unwrap_or(u16::MAX);
            Rect { y: area.y.saturating_add(number), height: 1, ..area }
        };
        let place =
            |number: usize| NAME + u16::try_from(number).unwrap_or(u16::MAX).saturating_mul(cell);
        for (number, index) in columns.clone().enumerate() {
            let node = scene.nodes[index].id;
            let style = self.inked(node_colour(node));
            let name = format!("{:>width$}", node.to_string(), width = usize::from(CELL - 1));
            self.text(line(1), place(number), &name, style);
        }
        for (number, index) in rows.enumerate() {
            let node = scene.nodes[index].id;
            let style = self.inked(node_colour(node));
            self.text(line(number + 2), 0, &node.to_string(), style);
            for (column, other) in columns.clone().enumerate() {
                let (word, style) = self.link(scene.links[index][other]);
                let word = format!("{word:>width$}", width = usize::from(CELL - 1));
                self.text(line(number + 2), place(column), &word, style);
            }
        }
    }

    fn link(&self, link: Link) -> (String, Style) {
        match link {
            Link::Itself => ("·".into(), self.toned(Tone::Quiet)),
            Link::Away => ("-".into(), self.toned(Tone::Quiet)),
            Link::Cut => ("cut".into(), self.toned(Tone::Bad).add_modifier(Modifier::BOLD)),
            Link::Heard { micros, slowly } => {
                let tone = if slowly { Tone::Fair } else { Tone::Good };
                (short_ms(micros), self.toned(tone))
            }
        }
    }

    fn load(&mut self, area: Rect, load: &Load) {
        let line = |number: u16| Rect { y: area.y + 1 + number, height: 1, ..area };
        self.kind(line(0), "gets", &load.pace.reads, &load.reads);
        self.kind(line(1), "puts", &load.pace.writes, &load.writes);
        let quiet_if = |none: bool, tone: Tone| if none { Tone::Quiet } else { tone };
        let share = load
            .pace
            .behind_share()
            .map_or(String::new(), |share| format!(" ({:.1} %)", share * 100.0));
        let parts = [
            (format!(" hints {:<6} ", load.hints), quiet_if(load.hints == 0, Tone::Fair)),
            (
                format!("unmet {}/s   ", rate(load.pace.unmet)),
                quiet_if(load.pace.unmet == 0.0, Tone::Bad),
            ),
            (
                format!("gets that met an owner behind {}/s{share}", rate(load.pace.behind)),
                quiet_if(load.pace.behind == 0.0, Tone::Fair),
            ),
        ];
        let mut column = 0;
        for (words, tone) in &parts {
            column = self.text(line(2), column, words, self.toned(*tone));
        }
    }

    fn kind(&mut self, area: Rect, name: &str, kind: &Kind, course: &[f64]) {
        let quantile = |so_many| kind.times.all_but_one_in(so_many).map_or("-".into(), time);
        let words = format!(
            " {name} {:>7}/s   p50 {:<8} p99 {:<8} ",
            rate(kind.rate),
            quantile(2),
            quantile(100)
        );
        let column = self.text(area, 0, &words, Style::new());
        let room = usize::from(area.width.saturating_sub(column + 1));
        self.text(area, column, &spark(course, room), self.inked(Color::Cyan));
    }

    fn bottom(&mut self, area: Rect, scene: &Scene) {
        if let Some((message, tone)) = &scene.message {
            self.text(area, 1, message, self.toned(*tone));
        }
        let last = Rect { y: area.y + 1, height: 1, ..area };
        self.text(last, 1, HELP, self.toned(Tone::Quiet));
    }
}

/// Columns of a node's name before its row of links.
const NAME: u16 = 5;

/// Least columns of a link, a blank included.
const CELL: u16 = 4;

/// Which of so many fit, with this one among them.
fn window(count: usize, room: usize, selected: usize) -> std::ops::Range<usize> {
    let room = room.min(count);
    let first = selected.saturating_sub(room / 2).min(count - room);
    first..first + room
}

/// A time as people compare it.
fn time(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        10.0..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1000.0),
    }
}

/// Milliseconds in three characters.
fn short_ms(micros: u32) -> String {
    match micros {
        0 => "ok".into(),
        1..9_950 => format!("{:.1}", f64::from(micros) / 1000.0),
        9_950..999_500 => format!("{:.0}", f64::from(micros) / 1000.0),
        _ => format!("{}s", micros.div_ceil(1_000_000).min(99)),
    }
}

fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// The course of a number as a line of blocks, the latest on the right, the highest as high as a line.
fn spark(course: &[f64], room: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let course = &course[course.len().saturating_sub(room)..];
    let highest = course.iter().copied().fold(0.0, f64::max);
    let block = |number: &f64| match highest {
        0.0 => BLOCKS[0],
        _ => BLOCKS[((number / highest * 7.0).round() as usize).min(7)],
    };
    course.iter().map(block).collect()
}

fn pixel_colour(pixel: Pixel) -> Color {
    match pixel {
        Pixel::Health(health) => health_colour(health),
        Pixel::Owner(owner) if owner.within_reach => node_colour(owner.node),
        Pixel::Owner(_) => Color::Indexed(237), // all but black
    }
}

fn pixel_letter(pixel: Pixel) -> char {
    match pixel {
        Pixel::Health(health) => health_letter(health),
        Pixel::Owner(owner) if owner.within_reach => {
            char::from_digit(owner.node.0 % 36, 36).unwrap_or('?')
        }
        Pixel::Owner(_) => ' ',
    }
}

fn health_colour(health: Health) -> Color {
    match health {
        Health::Whole => Color::Green,
        Health::Short => Color::Yellow,
        Health::Minority => Color::Red,
        Health::Lost => Color::White,
    }
}

fn health_letter(health: Health) -> char {
    match health {
        Health::Whole => '·',
        Health::Short => '-',
        Health::Minority => '=',
        Health::Lost => '!',
    }
}

/// Colours of nodes, far from those that say how things are; the thirteenth node has the first one's.
fn node_colour(node: NodeId) -> Color {
    const COLOURS: [u8; 12] = [33, 80, 141, 173, 109, 218, 66, 153, 137, 183, 37, 250];
    Color::Indexed(COLOURS[node.0.wrapping_sub(1) as usize % COLOURS.len()])
}

#[cfg(test)]
mod tests;
