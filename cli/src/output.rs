//! The three ways to print: a table for people, JSON and plain lines for programs.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
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
    let text = serde_json::to_string_pretty(document).expect("our documents are plain data");
    anstream::println!("{text}");
}

/// One JSON document on a line of its own: for what comes bit by bit.
pub fn json_line(document: &impl Serialize) {
    let text = serde_json::to_string(document).expect("our documents are plain data");
    anstream::println!("{text}");
}

/// Rows as a table with these headings, or as plain lines.
pub fn rows(format: Format, headings: &[&str], rows: &[Vec<String>]) {
    match format {
        Format::Plain | Format::Json => {
            for row in rows {
                anstream::println!("{}", row.join("\t"));
            }
        }
        Format::Table => {
            let mut table = Table::new();
            table
                .load_preset(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Disabled)
                .set_header(headings);
            table.add_rows(rows);
            for column in table.column_iter_mut() {
                column.set_padding((0, 2));
            }
            anstream::println!("{}", table.trim_fmt());
        }
    }
}
