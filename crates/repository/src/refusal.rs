//! When nothing may be let go: while the clock or the newest snapshots cannot be believed.

use std::collections::BTreeMap;

use model::{ByteCount, Instant, escape};
use thiserror::Error;

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::snapshot::{Snapshot, SnapshotStatus};

/// How far the clock may be behind the newest snapshot.
const BEHIND_SECS_MAX: i64 = 3600;
/// So many newest snapshots in a row that lack something are too many.
const PARTIAL_COUNT: usize = 3;
/// So many snapshots before the newest say what is usual.
const USUAL_COUNT: usize = 7;
/// Below this nothing is unusual.
const USUAL_BYTES_MIN: u64 = 16 * 1024 * 1024;
const USUAL_ENTRIES_MIN: u64 = 1000;

/// Says why nothing may be let go.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The clock is older than this program.
    #[error("the clock says {now}, which is before this program was built ({built_at})")]
    ClockBeforeBuild {
        /// What it says.
        now: Instant,
        /// When that was.
        built_at: Instant,
    },
    /// The clock is behind what was backed up.
    #[error("the clock says {now}, but the newest snapshot ended at {newest}")]
    ClockBehind {
        /// What it says.
        now: Instant,
        /// When the newest snapshot ended.
        newest: Instant,
    },
    /// The newest snapshots all lack something.
    #[error("the newest {PARTIAL_COUNT} snapshots{of} are partial, and older ones are complete")]
    Partial {
        /// Of what, when a person asked for it.
        of: String,
    },
    /// The newest snapshot is much smaller than usual.
    #[error(
        "the newest snapshot{of} has {entries} entries and {bytes}; \
         {usual_entries} and {usual_bytes} were usual before"
    )]
    Shrunk {
        /// Of what, when a person asked for it.
        of: String,
        /// Its entries.
        entries: u64,
        /// Its bytes.
        bytes: ByteCount,
        /// The median of those before.
        usual_entries: u64,
        /// The median of those before.
        usual_bytes: ByteCount,
    },
}

/// What is looked at of a snapshot.
#[derive(Debug, Clone, Copy)]
struct Look {
    started_at: Instant,
    is_complete: bool,
    entries: u64,
    bytes: u64,
}

impl Domain {
    /// Says whether something speaks against letting snapshots go and deleting what nothing needs
    /// now. A person may know better.
    ///
    /// # Errors
    ///
    /// `Store` when the snapshots cannot be listed, and whatever keeps one from being read.
    pub fn refusal(
        &self,
        now: Instant,
        built_at: Instant,
    ) -> Result<Option<Refusal>, RepositoryError> {
        let list = self.snapshots()?;
        if let Some(error) = list.unreadable.into_iter().next() {
            return Err(error);
        }
        let newest = list.snapshots.iter().map(|one| one.body.finished_at).max();
        if let Some(refusal) = refuse_clock(newest, now, built_at) {
            return Ok(Some(refusal));
        }
        let mut series: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for snapshot in &list.snapshots {
            let own = series.entry(snapshot.body.series()).or_default();
            own.push(snapshot);
        }
        Ok(series.values().find_map(|own| {
            let of = own.first().map(|snapshot| of_what(snapshot));
            let looks = own.iter().map(|snapshot| look(snapshot)).collect();
            refuse(looks, of.unwrap_or_default())
        }))
    }
}

/// Says of which host and paths a snapshot is, in the words of a refusal.
fn of_what(snapshot: &Snapshot) -> String {
    let paths = snapshot.body.paths();
    let Some(first) = paths.first() else {
        return String::new();
    };
    let more = if paths.len() > 1 { " and more" } else { "" };
    let host = escape(snapshot.body.host.as_bytes());
    format!(" of {first}{more} on {host}")
}

fn look(snapshot: &Snapshot) -> Look {
    let body = &snapshot.body;
    Look {
        started_at: body.started_at,
        is_complete: body.status == SnapshotStatus::Complete,
        entries: body.entries,
        bytes: body.bytes.get(),
    }
}

fn refuse_clock(newest: Option<Instant>, now: Instant, built_at: Instant) -> Option<Refusal> {
    if now < built_at {
        return Some(Refusal::ClockBeforeBuild { now, built_at });
    }
    let newest = newest?;
    let is_behind = now < newest.plus_secs(-BEHIND_SECS_MAX);
    is_behind.then_some(Refusal::ClockBehind { now, newest })
}

/// Looks at the snapshots of one series.
fn refuse(mut looks: Vec<Look>, of: String) -> Option<Refusal> {
    looks.sort_by_key(|look| std::cmp::Reverse(look.started_at));
    let (first, rest) = looks.split_at_checked(PARTIAL_COUNT).unwrap_or((&[], &[]));
    let is_partial = !first.is_empty() && first.iter().all(|look| !look.is_complete);
    if is_partial && rest.iter().any(|look| look.is_complete) {
        return Some(Refusal::Partial { of });
    }
    let (newest, before) = looks.split_first()?;
    let usual_entries = median(before, |look| look.entries);
    let usual_bytes = median(before, |look| look.bytes);
    let has_few = usual_entries >= USUAL_ENTRIES_MIN && newest.entries < usual_entries / 2;
    let is_small = usual_bytes >= USUAL_BYTES_MIN && newest.bytes < usual_bytes / 2;
    (has_few || is_small).then_some(Refusal::Shrunk {
        of,
        entries: newest.entries,
        bytes: ByteCount::new(newest.bytes),
        usual_entries,
        usual_bytes: ByteCount::new(usual_bytes),
    })
}

fn median(looks: &[Look], of: fn(&Look) -> u64) -> u64 {
    let mut values: Vec<_> = looks.iter().take(USUAL_COUNT).map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const BUILT: Instant = Instant::from_secs(1_000_000);

    /// A snapshot a day, the last one on day `number - 1`.
    fn days(number: i64) -> Vec<Look> {
        let one = |day| Look {
            started_at: BUILT.plus_secs(day * DAY),
            is_complete: true,
            entries: 10_000,
            bytes: 1 << 30,
        };
        (0..number).map(one).collect()
    }

    fn now() -> Instant {
        BUILT.plus_secs(9 * DAY)
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_refused() {
        let ended = BUILT.plus_secs(8 * DAY + 3600);
        assert_eq!(refuse_clock(Some(ended), now(), BUILT), None);
        assert_eq!(refuse_clock(None, now(), BUILT), None);
        let past = BUILT.plus_secs(-1);
        assert!(matches!(
            refuse_clock(None, past, BUILT),
            Some(Refusal::ClockBeforeBuild { .. })
        ));
        let early = |secs: i64| refuse_clock(Some(ended), ended.plus_secs(-secs), BUILT);
        assert_eq!(early(3600), None);
        assert!(matches!(early(3601), Some(Refusal::ClockBehind { .. })));
    }

    #[test]
    fn partial_ones_are_refused_while_there_are_complete_ones() {
        let mut looks = days(6);
        looks[5].is_complete = false;
        looks[4].is_complete = false;
        assert_eq!(refuse(looks.clone(), String::new()), None);
        looks[3].is_complete = false;
        assert_eq!(
            refuse(looks.clone(), "it".into()),
            Some(Refusal::Partial { of: "it".into() })
        );
        looks.iter_mut().for_each(|look| look.is_complete = false);
        assert_eq!(refuse(looks, String::new()), None, "it never was otherwise");
    }

    #[test]
    fn a_snapshot_of_half_is_refused_until_it_is_usual() {
        let shrunk = |number: usize| {
            let mut looks = days(10);
            looks
                .iter_mut()
                .rev()
                .take(number)
                .for_each(|look| look.bytes /= 3);
            refuse(looks, String::new())
        };
        for number in 1..5 {
            assert!(
                matches!(shrunk(number), Some(Refusal::Shrunk { .. })),
                "{number}"
            );
        }
        assert_eq!(shrunk(5), None);
        let mut looks = days(4);
        looks[3].entries = 4999;
        assert!(matches!(
            refuse(looks.clone(), String::new()),
            Some(Refusal::Shrunk {
                entries: 4999,
                usual_entries: 10_000,
                ..
            })
        ));
        looks.iter_mut().for_each(|look| look.entries /= 11);
        assert_eq!(refuse(looks, String::new()), None, "few files vary much");
    }
}
