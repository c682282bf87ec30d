//! How a verb fails: what was being done, the causes, what to type next, and the exit code.
//!
//! Every expected error of the crates below becomes one `Problem` with one code of
//! `docs/exit-codes.md`. Nothing is printed here.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;

use model::Exit;
use serde::Serialize;

/// The most causes that are shown; a longer chain ends with a count.
const CAUSES_MAX: usize = 8;

/// A verb that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    exit: Exit,
    what: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

/// The shape of a problem for programs (`--json`).
#[derive(Serialize)]
struct Report<'a> {
    error: &'a str,
    causes: &'a [String],
    hints: &'a [String],
    exit: u8,
}

impl Problem {
    /// Begins a problem: what could not be done, to which thing.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            causes: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Says where it happened, in front of what could not be done.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.what = format!("{place}: {}", self.what);
        self
    }

    /// Adds one cause.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds an error and all errors below it, outermost first. A cause that its predecessor
    /// already ends with is left out.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            let said = self.causes.last().is_some_and(|last| last.ends_with(&text));
            if !said {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds something to do next, most often a command to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Gives the exit code.
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// Gives what and why on one line.
    pub fn summary(&self) -> String {
        let mut parts = vec![self.what.clone()];
        parts.extend(self.causes.iter().cloned());
        parts.join(": ")
    }

    /// Gives the lines for people.
    pub fn for_people(&self, color: bool) -> String {
        let (red, bold, plain) = if color {
            ("\x1b[1;31m", "\x1b[1m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut text = format!("{red}Error:{plain} {}\n", self.what);
        for (number, cause) in (1..).zip(self.causes.iter().take(CAUSES_MAX)) {
            let mut lines = cause.trim_end().lines();
            let first = lines.next().unwrap_or_default();
            line(&mut text, format_args!("  {number}. {first}"));
            for more in lines {
                line(&mut text, format_args!("     {more}"));
            }
        }
        if let Some(rest @ 1..) = self.causes.len().checked_sub(CAUSES_MAX) {
            line(&mut text, format_args!("  … and {rest} more"));
        }
        for hint in &self.hints {
            line(&mut text, format_args!("{bold}Hint:{plain} {hint}"));
        }
        text
    }

    /// Gives one JSON object for programs.
    pub fn for_programs(&self) -> String {
        let report = Report {
            error: &self.what,
            causes: &self.causes,
            hints: &self.hints,
            exit: self.exit.code(),
        };
        let mut text = serde_json::to_string(&report).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn line(text: &mut String, arguments: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    _ = writeln!(text, "{arguments}");
}

/// A closed pipe or full disk behind standard output.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, "cannot write the answer").because(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_causes_in_order_and_a_command_to_type() {
        let problem = Problem::new(Exit::WrongKey, "cannot open repository /srv/backups")
            .cause("the key does not open any domain")
            .cause("tried 2 domains:\n12ab\n34cd")
            .hint("backstayctl key export nightly");
        assert_eq!(
            problem.for_people(false),
            "Error: cannot open repository /srv/backups\n  1. the key does not open any domain\n  \
             2. tried 2 domains:\n     12ab\n     34cd\nHint: backstayctl key export nightly\n"
        );
    }

    #[test]
    fn a_chain_longer_than_the_bound_is_counted() {
        let problem = (0..10).fold(Problem::new(Exit::Failed, "x"), |p, n| p.cause(n));
        assert!(problem.for_people(false).ends_with("  … and 2 more\n"));
    }

    #[test]
    fn programs_get_the_exit_code_too() {
        let text = Problem::new(Exit::Busy, "x").for_programs();
        assert_eq!(
            text,
            "{\"error\":\"x\",\"causes\":[],\"hints\":[],\"exit\":11}\n"
        );
    }
}
