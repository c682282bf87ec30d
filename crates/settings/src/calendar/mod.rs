//! When a schedule is due: what people write, what systemd gets, and our own count of occurrences.
//!
//! The ledger counts occurrences itself (a timer that elapses while its service runs leaves no
//! trace), so this computation and systemd's must agree to the second. Where clocks change we
//! decide: a local time that a clock change skips is due when the gap ends, and a local time that
//! comes twice is due at its first coming. [`Calendar::on_calendar`] writes extra lines so that
//! systemd does the same.

mod cron;
mod expression;
mod gap;
mod grammar;
mod occurrences;
mod phrase;
mod set;
mod zone;

#[cfg(test)]
mod against_systemd;

use std::fmt;

use model::Instant;

pub(crate) use expression::Expression;
pub(crate) use grammar::parse as parse_line;
pub use zone::Zone;

/// A line of a calendar may hold this many bytes: longer input is refused before it is parsed.
const WHEN_LENGTH_MAX: usize = 512;

/// Between two lines of a canonical text; in no line.
const CANONICAL_SEPARATOR: &str = "; ";

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    text: String,
    expressions: Vec<Expression>,
}

impl Calendar {
    /// Reads any accepted form: `hourly`, `daily 02:00`, `weekly mon 02:00`, `monthly 1 02:00`,
    /// `every 15 minutes`, five cron fields, a systemd calendar (marked with `systemd:` or not).
    ///
    /// A form without a zone of its own is taken in `default_zone`.
    ///
    /// # Errors
    ///
    /// One sentence for the person who wrote the text, also for a calendar that is never due.
    pub fn parse(text: &str, default_zone: &Zone) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty; write for example \"daily 02:00\"".to_owned());
        }
        if text.len() > WHEN_LENGTH_MAX {
            return Err(format!("is longer than {WHEN_LENGTH_MAX} bytes"));
        }
        let expressions = if let Some(plain) = text.strip_prefix("systemd:") {
            vec![grammar::parse(plain, default_zone)?]
        } else if let Some(found) = phrase::parse(text, default_zone) {
            found?
        } else if let Some(found) = cron::parse(text, default_zone) {
            found?
        } else {
            vec![grammar::parse(text, default_zone)?]
        };
        let calendar = Self {
            text: text.to_owned(),
            expressions,
        };
        calendar.check()?;
        Ok(calendar)
    }

    pub(crate) const fn of_expressions(text: String, expressions: Vec<Expression>) -> Self {
        Self { text, expressions }
    }

    /// Gives the text as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Gives one text for all calendars with the same occurrences as written: it names the zone, so it
    /// changes when the server's zone does. [`Calendar::read_canonical`] reads it back.
    #[must_use]
    pub fn canonical(&self) -> String {
        let lines: Vec<String> = self.expressions.iter().map(ToString::to_string).collect();
        lines.join(CANONICAL_SEPARATOR)
    }

    /// Reads what [`Calendar::canonical`] gave.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn read_canonical(text: &str) -> Result<Self, String> {
        let expressions: Result<Vec<Expression>, String> = text
            .split(CANONICAL_SEPARATOR)
            .map(|line| grammar::parse(line, &Zone::utc()))
            .collect();
        Ok(Self::of_expressions(text.to_owned(), expressions?))
    }

    /// Gives the `OnCalendar=` values for systemd, each with its zone.
    ///
    /// `year` is the present year. It matters only in zones whose clock changes follow no yearly
    /// rule: for those, the changes of the coming years are written out one by one.
    #[must_use]
    pub fn on_calendar(&self, year: i16) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let gaps = self.expressions.iter().flat_map(|e| gap::lines(e, year));
        for expression in self.expressions.iter().cloned().chain(gaps) {
            let line = expression.to_string();
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }

    /// Gives the first occurrence later than `after`, or nothing when there is none before the
    /// year 2200.
    #[must_use]
    pub fn next_after(&self, after: Instant) -> Option<Instant> {
        self.expressions
            .iter()
            .filter_map(|e| occurrences::between(e, after, None, 1).first().copied())
            .min()
    }

    /// Gives the occurrences later than `after` and not later than `until`, oldest first, at most
    /// `count_max`.
    #[must_use]
    pub fn occurrences_between(
        &self,
        after: Instant,
        until: Instant,
        count_max: usize,
    ) -> Vec<Instant> {
        let mut all: Vec<Instant> = self
            .expressions
            .iter()
            .flat_map(|e| occurrences::between(e, after, Some(until), count_max))
            .collect();
        all.sort_unstable();
        all.dedup();
        all.truncate(count_max);
        all
    }

    fn check(&self) -> Result<(), String> {
        // The past does not matter: a date that has gone by is as impossible as 30 February.
        // 2020 is before any server that runs this program, and keeps the check free of clocks.
        let start = Instant::from_secs(1_577_836_800);
        for expression in &self.expressions {
            if occurrences::between(expression, start, None, 1).is_empty() {
                return Err(format!("is never due: no date matches \"{expression}\""));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
