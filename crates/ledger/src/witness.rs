//! When this server was on, as far as the ledger has seen: what tells why an occurrence was missed.
//!
//! Whoever writes to the ledger says which boot it is and how the clock stands to the time since
//! that boot. What was seen in one go is one span; a new boot or a moved clock begins another.

use model::Instant;
use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::{Ledger, LedgerError};

/// Where the spans are kept, among the notes.
const KEY: &str = "witness";

/// The most spans kept; the oldest go. Missed occurrences are settled at the next start of a job,
/// so only the newest matter.
const SPANS_MAX: usize = 200;

/// A clock that moved by less was only corrected.
const CORRECTION_SECS_MAX: i64 = 60;

/// What a process knows of the boot that it runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The kernel's id of this boot.
    pub id: String,
    /// Now, less the time for which the kernel is up, by this machine's clock: it moves when the clock does. In a container
    /// it is the boot of the machine below.
    pub at: Instant,
    /// When this machine or container began, by the same clock.
    pub began_at: Instant,
}

/// A time in which the server was on and its clock went evenly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    boot: String,
    boot_at: Instant,
    from: Instant,
    seen: Instant,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Witness {
    spans: Vec<Span>,
}

/// Why nothing answered an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The server was off.
    Off,
    /// The server was on: somebody stopped, masked or disabled the timer.
    NotArmed,
    /// The clock was moved over it.
    ClockMoved,
    /// It was before the ledger began, at this instant.
    BeforeLedger(Instant),
    /// Nothing was seen yet.
    Unknown,
}

impl Witness {
    /// Adds that the server is on, at `now`.
    pub fn see(&mut self, boot: &Boot, now: Instant) {
        if let Some(last) = self.spans.last_mut() {
            let same = last.boot == boot.id;
            let moved = boot.at.secs().saturating_sub(last.boot_at.secs());
            if same && moved.abs() <= CORRECTION_SECS_MAX {
                last.seen = last.seen.max(now);
                last.boot_at = boot.at;
                return;
            }
        }
        let last = self.spans.last();
        let is_boot_after = |last: &Span| last.boot != boot.id && boot.began_at > last.seen;
        let from = match last {
            Some(last) if is_boot_after(last) => boot.began_at,
            _ => now,
        };
        self.spans.push(Span {
            boot: boot.id.clone(),
            boot_at: boot.at,
            from: from.min(now),
            seen: now,
        });
        let surplus = self.spans.len().saturating_sub(SPANS_MAX);
        self.spans.drain(..surplus);
    }

    /// Says why nothing answered what was due at `at`.
    #[must_use]
    pub fn absence(&self, at: Instant) -> Absence {
        let Some(first) = self.spans.first() else {
            return Absence::Unknown;
        };
        if self.spans.iter().any(|s| s.from <= at && at <= s.seen) {
            return Absence::NotArmed;
        }
        if at < first.from {
            return Absence::BeforeLedger(first.from);
        }
        let pairs = self.spans.iter().zip(self.spans.iter().skip(1));
        let gap = pairs.rev().find(|(a, b)| a.seen < at && at < b.from);
        match gap {
            Some((before, after)) if before.boot == after.boot => Absence::ClockMoved,
            Some(_) => Absence::Off,
            None => Absence::Unknown,
        }
    }
}

impl Ledger {
    /// Notes that the server is on, and gives everything that was noted so far.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn witness(&mut self, boot: &Boot, now: Instant) -> Result<Witness, LedgerError> {
        self.write("noting that the server is on", |transaction| {
            let text: Option<String> = transaction
                .query_row("SELECT value FROM note WHERE key = ?1", [KEY], |row| {
                    row.get(0)
                })
                .optional()?;
            // A damaged note only costs the reasons of what was missed before.
            let mut witness: Witness = text
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default();
            witness.see(boot, now);
            let text = serde_json::to_string(&witness)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            transaction.execute(
                "INSERT INTO note (key, value) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                params![KEY, text],
            )?;
            Ok(witness)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn boot(id: &str, secs: i64) -> Boot {
        Boot {
            id: id.to_owned(),
            at: Instant::from_secs(secs),
            began_at: Instant::from_secs(secs),
        }
    }

    #[test]
    fn a_container_was_off_until_it_began_whenever_the_machine_below_did() {
        let at = Instant::from_secs;
        let mut witness = Witness::default();
        witness.see(&boot("a", 500), at(1000));
        let again = Boot {
            began_at: at(3000),
            ..boot("b", 1500)
        };
        witness.see(&again, at(3100));
        assert_eq!(witness.absence(at(2000)), Absence::Off);
        assert_eq!(witness.absence(at(3050)), Absence::NotArmed);
        // Its clock is moved on, which the file that tells its age does not show.
        let moved = Boot {
            at: at(2500),
            ..again
        };
        witness.see(&moved, at(4200));
        assert_eq!(witness.absence(at(3500)), Absence::ClockMoved);
    }

    #[test]
    fn what_was_missed_has_the_reason_that_boots_and_clock_give() {
        let mut fixture = Fixture::new();
        let at = Instant::from_secs;
        let mut see = |boot: &Boot, secs| fixture.ledger.witness(boot, at(secs)).unwrap();
        see(&boot("a", 1000), 1010);
        // A clock that is corrected by a second is the same clock.
        see(&boot("a", 1001), 5000);
        see(&boot("b", 20_000), 20_030);
        see(&boot("b", 20_000), 30_000);
        // Two days forward, within one boot.
        see(&boot("b", 192_800), 202_800);
        let witness = see(&boot("b", 192_800), 210_000);
        for (secs, wanted) in [
            (500, Absence::BeforeLedger(at(1010))),
            (3000, Absence::NotArmed),
            (10_000, Absence::Off),
            (20_010, Absence::NotArmed),
            (25_000, Absence::NotArmed),
            (100_000, Absence::ClockMoved),
            (205_000, Absence::NotArmed),
        ] {
            assert_eq!(witness.absence(at(secs)), wanted, "{secs}");
        }
        assert_eq!(Witness::default().absence(at(1)), Absence::Unknown);
    }

    #[test]
    fn a_container_whose_machine_booted_long_ago_was_off_between_its_boots() {
        let mut witness = Witness::default();
        let at = Instant::from_secs;
        witness.see(&boot("a", 0), at(1000));
        witness.see(&boot("b", 0), at(9000));
        assert_eq!(witness.absence(at(5000)), Absence::Off);
    }

    #[test]
    fn the_note_does_not_grow_without_end() {
        let mut witness = Witness::default();
        for number in 0..2000 {
            let now = number * 1000;
            witness.see(&boot(&number.to_string(), now - 1), Instant::from_secs(now));
        }
        assert_eq!(witness.spans.len(), SPANS_MAX);
    }
}
