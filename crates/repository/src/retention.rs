//! Which snapshots to keep: a pure function of snapshots, rules and the present.

use std::collections::BTreeSet;

use model::{Instant, SnapshotId};

/// A snapshot this far in the future was made under a wrong clock: it is kept, and fills no rule.
const FUTURE_SECS: i64 = 3600;
const HOUR_SECS: i64 = 3600;
const DAY_SECS: i64 = 24 * HOUR_SECS;

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which snapshot.
    pub id: SnapshotId,
    /// When its walk began.
    pub at: Instant,
    /// Whether it holds everything.
    pub is_complete: bool,
}

/// Rules of retention. A snapshot is kept when any rule keeps it; without any rule all are kept.
/// Hours, days, weeks (from Monday), months and years are those of UTC; of each the newest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// The newest ones.
    pub last: u32,
    /// One for each of so many hours that have one.
    pub hourly: u32,
    /// One for each of so many days that have one.
    pub daily: u32,
    /// One for each of so many weeks that have one.
    pub weekly: u32,
    /// One for each of so many months that have one.
    pub monthly: u32,
    /// One for each of so many years that have one.
    pub yearly: u32,
    /// All that are younger than this; 0 for no such rule.
    pub within_secs: u64,
    /// Never more than so many, the newest; 0 for no limit.
    pub max: u32,
}

/// Gives the number of the span of time that holds a second.
type Span = fn(i64) -> i64;

/// Gives the snapshots to forget, oldest first.
///
/// The newest complete snapshot is always kept. Partial ones fill no rule while there are complete
/// ones; they are kept when they are newer than every complete one or within the kept time.
#[must_use]
pub fn plan_retention(candidates: &[Candidate], keep: &Keep, now: Instant) -> Vec<SnapshotId> {
    if *keep == Keep::default() {
        return Vec::new();
    }
    let latest = now.plus_secs(FUTURE_SECS);
    let mut past: Vec<_> = candidates.iter().filter(|c| c.at <= latest).collect();
    past.sort_by_key(|candidate| std::cmp::Reverse((candidate.at, candidate.id)));
    let has_complete = past.iter().any(|candidate| candidate.is_complete);
    let counting: Vec<_> = past
        .iter()
        .copied()
        .filter(|candidate| candidate.is_complete || !has_complete)
        .collect();
    let mut kept = BTreeSet::new();
    let rules: [(u32, Span); 5] = [
        (keep.hourly, |secs| secs.div_euclid(HOUR_SECS)),
        (keep.daily, |secs| secs.div_euclid(DAY_SECS)),
        // 1970-01-01 was a Thursday.
        (keep.weekly, |secs| {
            (secs.div_euclid(DAY_SECS) + 3).div_euclid(7)
        }),
        (keep.monthly, |secs| month(secs.div_euclid(DAY_SECS))),
        (keep.yearly, |secs| {
            month(secs.div_euclid(DAY_SECS)).div_euclid(12)
        }),
    ];
    kept.extend(counting.iter().take(count(keep.last)).map(|c| c.id));
    for (number, span) in rules {
        kept.extend(newest_of_each(&counting, number, span));
    }
    let since = i64::try_from(keep.within_secs).unwrap_or(i64::MAX);
    let is_within = |candidate: &&&Candidate| {
        since > 0 && candidate.at.secs() > now.secs().saturating_sub(since)
    };
    kept.extend(past.iter().filter(is_within).map(|c| c.id));
    if keep.max > 0 {
        let mut room = count(keep.max);
        for candidate in &counting {
            if kept.contains(&candidate.id) {
                if room == 0 {
                    kept.remove(&candidate.id);
                }
                room = room.saturating_sub(1);
            }
        }
    }
    let newest = counting.first().map(|candidate| candidate.at);
    kept.extend(counting.first().map(|candidate| candidate.id));
    let is_fresh = |candidate: &&&Candidate| !candidate.is_complete && Some(candidate.at) > newest;
    kept.extend(past.iter().filter(is_fresh).map(|c| c.id));
    let gone = past
        .iter()
        .rev()
        .filter(|candidate| !kept.contains(&candidate.id));
    gone.map(|candidate| candidate.id).collect()
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn newest_of_each(newest_first: &[&Candidate], number: u32, span: Span) -> Vec<SnapshotId> {
    let mut spans = BTreeSet::new();
    let mut kept = Vec::new();
    for candidate in newest_first {
        if kept.len() >= count(number) {
            break;
        }
        if spans.insert(span(candidate.at.secs())) {
            kept.push(candidate.id);
        }
    }
    kept
}

/// Counts months since 0000-03 of the proleptic Gregorian calendar, shifted so that years begin in
/// January. Source: days of a 400-year cycle, counted from 1 March.
fn month(days_since_1970: i64) -> i64 {
    let days = days_since_1970 + 719_468;
    let cycle = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (cycle * 400 + year) * 12 + month_from_march + 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(number: u8, at: &str) -> Candidate {
        Candidate {
            id: SnapshotId::from_bytes([number; 16]),
            at: at.parse().unwrap(),
            is_complete: true,
        }
    }

    fn kept(candidates: &[Candidate], keep: Keep) -> Vec<u8> {
        let now = "2026-03-10T00:00:00Z".parse().unwrap();
        let gone = plan_retention(candidates, &keep, now);
        let is_kept = |c: &&Candidate| !gone.contains(&c.id);
        candidates
            .iter()
            .filter(is_kept)
            .map(|c| c.id.as_bytes()[0])
            .collect()
    }

    fn some() -> Vec<Candidate> {
        vec![
            candidate(1, "2024-12-31T23:59:59Z"),
            candidate(2, "2025-01-01T00:00:00Z"),
            candidate(3, "2026-01-31T12:00:00Z"),
            candidate(4, "2026-02-01T12:00:00Z"),
            candidate(5, "2026-03-01T23:00:00Z"),
            candidate(6, "2026-03-02T01:00:00Z"),
            candidate(7, "2026-03-09T01:10:00Z"),
            candidate(8, "2026-03-09T01:50:00Z"),
            candidate(9, "2026-03-09T23:00:00Z"),
        ]
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_spans() {
        let keep = Keep::default();
        assert_eq!(kept(&some(), keep).len(), 9);
        assert_eq!(kept(&some(), Keep { last: 2, ..keep }), [8, 9]);
        assert_eq!(kept(&some(), Keep { hourly: 2, ..keep }), [8, 9]);
        assert_eq!(kept(&some(), Keep { daily: 3, ..keep }), [5, 6, 9]);
        assert_eq!(kept(&some(), Keep { weekly: 3, ..keep }), [5, 6, 9]);
        assert_eq!(kept(&some(), Keep { monthly: 3, ..keep }), [3, 4, 9]);
        assert_eq!(kept(&some(), Keep { yearly: 9, ..keep }), [1, 2, 9]);
        let within = Keep {
            within_secs: 86_400,
            ..keep
        };
        assert_eq!(kept(&some(), within), [7, 8, 9]);
        let max = Keep {
            last: 5,
            max: 2,
            ..keep
        };
        assert_eq!(kept(&some(), max), [8, 9]);
    }

    #[test]
    fn partial_and_future_snapshots_push_nothing_out() {
        let mut candidates = some();
        candidates[8].is_complete = false;
        candidates[6].is_complete = false;
        candidates.push(candidate(10, "2027-01-01T00:00:00Z"));
        let keep = Keep {
            last: 1,
            ..Keep::default()
        };
        assert_eq!(kept(&candidates, keep), [8, 9, 10]);
        candidates.iter_mut().for_each(|c| c.is_complete = false);
        assert_eq!(kept(&candidates, keep), [9, 10]);
    }

    proptest! {
        #[test]
        fn the_newest_complete_snapshot_always_stays(
            times in proptest::collection::vec((0_i64..100_000_000, any::<bool>()), 1..40),
            rules in any::<[u8; 8]>(),
        ) {
            let candidates: Vec<_> = (0_u8..).zip(&times).map(|(number, (secs, is_complete))| Candidate {
                id: SnapshotId::from_bytes([number; 16]),
                at: Instant::from_secs(*secs),
                is_complete: *is_complete,
            }).collect();
            let [last, hourly, daily, weekly, monthly, yearly, max, within] = rules.map(u32::from);
            let within_secs = u64::from(within);
            let keep = Keep { last, hourly, daily, weekly, monthly, yearly, within_secs, max };
            let gone = plan_retention(&candidates, &keep, Instant::from_secs(100_000_000));
            let newest = candidates.iter().filter(|c| c.is_complete).max_by_key(|c| (c.at, c.id));
            prop_assert!(newest.is_none_or(|newest| !gone.contains(&newest.id)));
            prop_assert!(gone.len() < candidates.len());
        }
    }
}
