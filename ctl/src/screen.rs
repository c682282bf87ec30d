//! Where answers go: tables for people, one JSON document for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::problem::Problem;

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Color {
    /// Decides for one stream.
    pub fn wanted(self, stream: &impl IsTerminal) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                stream.is_terminal() && !refused
            }
        }
    }
}

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// A heading.
    Strong,
    /// All is well.
    Good,
    /// Look at it.
    Warning,
    /// Something is wrong.
    Bad,
    /// Beside the point.
    Faint,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// A piece of text with a tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    text: String,
    tone: Tone,
}

/// Makes plain text.
pub fn plain(text: impl fmt::Display) -> Text {
    toned(text, Tone::Plain)
}

/// Makes text with a tone.
pub fn toned(text: impl fmt::Display, tone: Tone) -> Text {
    Text {
        text: text.to_string(),
        tone,
    }
}

/// Says a number of things: `1 schedule`, `2 schedules`.
pub fn counted(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// Rows below a heading, each column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<Text>>,
}

impl Table {
    /// Begins a table. A column whose heading starts with `>` is aligned to the right.
    pub fn new(heading: &[&'static str]) -> Self {
        Self {
            heading: heading.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell for each column.
    pub fn row(&mut self, cells: Vec<Text>) {
        self.rows.push(cells);
    }

    /// True when nothing was added.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let count = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self
            .heading
            .iter()
            .map(|name| count(name.trim_start_matches('>')))
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(count(&cell.text));
            }
        }
        widths
    }
}

/// Standard output, as this call wants it; problems go to standard error.
pub struct Screen {
    json: bool,
    color: bool,
    color_of_problems: bool,
    out: Box<dyn Write>,
}

impl Screen {
    /// Takes standard output.
    pub fn new(json: bool, color: Color) -> Self {
        let out = io::stdout();
        Self {
            json,
            color: color.wanted(&out) && !json,
            color_of_problems: color.wanted(&io::stderr()),
            out: Box::new(out),
        }
    }

    /// True when a program reads.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Writes a problem to standard error. When that is closed, the exit code is all that is left
    /// to say.
    pub fn complain(&self, problem: &Problem) {
        let text = if self.json {
            problem.for_programs()
        } else {
            problem.for_people(self.color_of_problems)
        };
        drop(io::stderr().write_all(text.as_bytes()));
    }

    /// Writes one JSON document.
    ///
    /// # Errors
    ///
    /// When standard output takes no more.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.out, value)?;
        writeln!(self.out)
    }

    /// Writes one line.
    ///
    /// # Errors
    ///
    /// When standard output takes no more.
    pub fn line(&mut self, parts: &[Text]) -> io::Result<()> {
        for part in parts {
            self.write(part, part.text.as_str())?;
        }
        writeln!(self.out)
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    ///
    /// When standard output takes no more.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Gives standard output for a stream of bytes.
    pub fn stream(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Writes a table with its heading.
    ///
    /// # Errors
    ///
    /// When standard output takes no more.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let widths = table.widths();
        let heading = table
            .heading
            .iter()
            .map(|name| toned(name.trim_start_matches('>'), Tone::Strong))
            .collect::<Vec<_>>();
        for row in std::iter::once(&heading).chain(&table.rows) {
            self.table_row(&table.heading, &widths, row)?;
        }
        Ok(())
    }

    fn table_row(
        &mut self,
        heading: &[&'static str],
        widths: &[usize],
        row: &[Text],
    ) -> io::Result<()> {
        let last = row.len().saturating_sub(1);
        for (number, ((cell, width), name)) in row.iter().zip(widths).zip(heading).enumerate() {
            let gap = width.saturating_sub(cell.text.chars().count());
            let padded = match (name.starts_with('>'), number == last) {
                (true, _) => format!("{}{}", " ".repeat(gap), cell.text),
                (false, true) => cell.text.clone(),
                (false, false) => format!("{}{}", cell.text, " ".repeat(gap)),
            };
            self.write(cell, &padded)?;
            if number != last {
                self.out.write_all(b"  ")?;
            }
        }
        writeln!(self.out)
    }

    fn write(&mut self, part: &Text, text: &str) -> io::Result<()> {
        if self.color && part.tone != Tone::Plain {
            write!(self.out, "{}{text}\x1b[0m", part.tone.code())
        } else {
            write!(self.out, "{text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>);

    impl Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(color: bool, write: impl FnOnce(&mut Screen)) -> String {
        let sheet = Sheet::default();
        write(&mut Screen {
            json: false,
            color,
            color_of_problems: color,
            out: Box::new(sheet.clone()),
        });
        String::from_utf8(sheet.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_the_last_is_not_padded() {
        let mut table = Table::new(&["name", ">size", "state"]);
        table.row(vec![plain("nightly"), plain("1.5 GiB"), plain("ok")]);
        table.row(vec![plain("é"), plain("9 B"), toned("failed", Tone::Bad)]);
        assert_eq!(
            shown(false, |screen| screen.table(&table).unwrap()),
            "name        size  state\nnightly  1.5 GiB  ok\né            9 B  failed\n"
        );
    }

    #[test]
    fn tones_are_colours_only_where_colour_is_wanted() {
        let line = [toned("failed", Tone::Bad)];
        assert_eq!(shown(false, |s| s.line(&line).unwrap()), "failed\n");
        assert_eq!(
            shown(true, |s| s.line(&line).unwrap()),
            "\x1b[31mfailed\x1b[0m\n"
        );
    }
}
