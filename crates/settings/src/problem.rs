//! What is wrong with a configuration: every fault, each with file, line and key path.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, or what stands for it (`generation 12`).
    pub file: String,
    /// The line, counted from 1, when known.
    pub line: Option<usize>,
    /// The key path, for example `schedule.nightly.when`; empty for the file as a whole.
    pub key: String,
    /// One sentence fragment for people.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every fault found, in order of file and line; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Gives `Ok` when nothing was found.
    pub(crate) fn none_or(mut all: Vec<Problem>) -> Result<(), Self> {
        if all.is_empty() {
            return Ok(());
        }
        all.sort();
        all.dedup();
        Err(Self(all))
    }

    /// Gives the faults.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
