//! The three ways to print: a table for people, JSON and plain lines for programs.

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned, with headings.
    #[default]
    Table,
    /// One JSON document with a `schema` field.
    Json,
    /// Tab-separated, without headings.
    Plain,
}

/// One JSON document on stdout.
pub fn json(document: &impl Serialize) {
    anstream::print!("{}", json_text(document));
}

/// The same as text.
pub fn json_text(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document).expect("our documents are plain data");
    text + "\n"
}

/// What stands in a cell, and in which colour a terminal shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    text: String,
    colour: Option<Color>,
}

impl Shown {
    /// With a colour, or as everything else.
    pub fn of(text: String, colour: Option<Color>) -> Self {
        Shown { text, colour }
    }
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Shown::of(text, None)
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        Shown::of(text.into(), None)
    }
}

/// One JSON document on a line of its own: for what comes bit by bit.
pub fn json_line(document: &impl Serialize) {
    let text = serde_json::to_string(document).expect("our documents are plain data");
    anstream::println!("{text}");
}

/// Rows as a table with these headings, or as plain lines.
pub fn rows(format: Format, headings: &[&str], rows: &[Vec<String>]) {
    let shown = |row: &Vec<String>| row.iter().map(|text| text.as_str().into()).collect();
    anstream::print!("{}", coloured(format, headings, rows.iter().map(shown).collect()));
}

/// The same as text, with colours. Whoever prints it strips them where nobody can see them.
pub fn coloured(format: Format, headings: &[&str], rows: Vec<Vec<Shown>>) -> String {
    match format {
        Format::Plain | Format::Json => {
            let line = |row: Vec<Shown>| {
                row.into_iter().map(|shown| shown.text).collect::<Vec<_>>().join("\t") + "\n"
            };
            rows.into_iter().map(line).collect()
        }
        Format::Table => {
            let mut table = Table::new();
            table
                .load_preset(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled)
                .enforce_styling()
                .set_header(headings);
            for row in rows {
                table.add_row(row.into_iter().map(|shown| match shown.colour {
                    Some(colour) => Cell::new(shown.text).fg(colour),
                    None => Cell::new(shown.text),
                }));
            }
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            table.trim_fmt() + "\n"
        }
    }
}
