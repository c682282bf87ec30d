//! Which snapshots to keep: a pure function of snapshots, rules and the present.

use std::collections::{BTreeMap, BTreeSet};

use model::{Instant, SnapshotId};
use serde::Serialize;

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
    /// Whether somebody wants it kept.
    pub is_pinned: bool,
}

/// Rules of retention. Hours, days, weeks (from Monday), months and years are those of UTC; of each
/// the newest counts. Partial snapshots fill no rule while there are complete ones. 0 means no such
/// rule.
///
/// Where they differ, the first of these decides:
///
/// 1. Kept: what is pinned, the newest complete snapshot, partial ones that are newer than it, and
///    what claims to be from the future.
/// 2. Kept: the newest `min`, and what is younger than `min_age_secs`.
/// 3. Goes: what is older than `max_age_secs`, and of what the rules keep all but the newest `max`.
///    Both limits hold together.
/// 4. Kept: what any other rule keeps; everything, when there is no other rule.
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
    /// All that are younger than this.
    pub within_secs: u64,
    /// So many newest stay whatever the limits say.
    pub min: u32,
    /// All that are younger than this stay whatever the limits say.
    pub min_age_secs: u64,
    /// Never more than so many, the newest.
    pub max: u32,
    /// None that is as old as this.
    pub max_age_secs: u64,
}

impl Keep {
    /// True when a rule, apart from the limits, says what stays.
    #[must_use]
    pub const fn has_rule(&self) -> bool {
        self.last > 0
            || self.hourly > 0
            || self.daily > 0
            || self.weekly > 0
            || self.monthly > 0
            || self.yearly > 0
            || self.within_secs > 0
    }

    /// True when nothing can go by it.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        !self.has_rule() && self.max == 0 && self.max_age_secs == 0
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBy {
    /// Somebody wants it kept.
    Pin,
    /// It is the newest that holds everything.
    Newest,
    /// It is partial and newer than every complete one.
    Newer,
    /// It claims to be from the future.
    Future,
    /// `min`
    Min,
    /// `min_age_secs`
    MinAge,
    /// `last`
    Last,
    /// `hourly`
    Hourly,
    /// `daily`
    Daily,
    /// `weekly`
    Weekly,
    /// `monthly`
    Monthly,
    /// `yearly`
    Yearly,
    /// `within_secs`
    Within,
    /// There is no rule.
    NoRule,
}

/// What becomes of each snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetentionPlan {
    /// Those to forget, oldest first.
    pub gone: Vec<SnapshotId>,
    /// The others, oldest first, and all that keeps each.
    pub kept: Vec<(SnapshotId, Vec<KeptBy>)>,
}

/// Gives the number of the span of time that holds a second.
type Span = fn(i64) -> i64;

/// What keeps each snapshot.
type Kept = BTreeMap<SnapshotId, BTreeSet<KeptBy>>;

/// Says what becomes of each snapshot, by the order of precedence that [`Keep`] names.
#[must_use]
pub fn plan_retention(candidates: &[Candidate], keep: &Keep, now: Instant) -> RetentionPlan {
    let latest = now.plus_secs(FUTURE_SECS);
    let mut all: Vec<_> = candidates.iter().collect();
    all.sort_by_key(|candidate| std::cmp::Reverse((candidate.at, candidate.id)));
    let (future, past): (Vec<&Candidate>, Vec<&Candidate>) =
        all.iter().copied().partition(|c| c.at > latest);
    let has_complete = past.iter().any(|candidate| candidate.is_complete);
    let is_counting = |c: &&Candidate| c.is_complete || !has_complete;
    let counting: Vec<_> = past.iter().copied().filter(is_counting).collect();
    let mut kept = by_rules(&past, &counting, keep, now);
    limit(&mut kept, &counting, keep);
    for candidate in &past {
        if keep.max_age_secs > 0 && !is_younger(candidate, keep.max_age_secs, now) {
            kept.remove(&candidate.id);
        }
    }
    for candidate in counting.iter().take(count(keep.min)) {
        note(&mut kept, candidate, KeptBy::Min);
    }
    for candidate in &past {
        if is_younger(candidate, keep.min_age_secs, now) {
            note(&mut kept, candidate, KeptBy::MinAge);
        }
    }
    let newest = counting.first().copied();
    if let Some(candidate) = newest {
        note(&mut kept, candidate, KeptBy::Newest);
    }
    for candidate in &past {
        if !candidate.is_complete && newest.is_some_and(|newest| candidate.at > newest.at) {
            note(&mut kept, candidate, KeptBy::Newer);
        }
    }
    for candidate in future {
        note(&mut kept, candidate, KeptBy::Future);
    }
    for candidate in all.iter().filter(|candidate| candidate.is_pinned) {
        note(&mut kept, candidate, KeptBy::Pin);
    }
    let mut plan = RetentionPlan::default();
    for candidate in all.iter().rev() {
        match kept.remove(&candidate.id) {
            Some(why) => plan.kept.push((candidate.id, why.into_iter().collect())),
            None => plan.gone.push(candidate.id),
        }
    }
    plan
}

fn by_rules(past: &[&Candidate], counting: &[&Candidate], keep: &Keep, now: Instant) -> Kept {
    let mut kept = Kept::new();
    if !keep.has_rule() {
        for candidate in past {
            note(&mut kept, candidate, KeptBy::NoRule);
        }
        return kept;
    }
    let rules: [(KeptBy, u32, Span); 5] = [
        (KeptBy::Hourly, keep.hourly, |secs| {
            secs.div_euclid(HOUR_SECS)
        }),
        (KeptBy::Daily, keep.daily, |secs| secs.div_euclid(DAY_SECS)),
        // 1970-01-01 was a Thursday.
        (KeptBy::Weekly, keep.weekly, |secs| {
            (secs.div_euclid(DAY_SECS) + 3).div_euclid(7)
        }),
        (KeptBy::Monthly, keep.monthly, |secs| {
            month(secs.div_euclid(DAY_SECS))
        }),
        (KeptBy::Yearly, keep.yearly, |secs| {
            month(secs.div_euclid(DAY_SECS)).div_euclid(12)
        }),
    ];
    for candidate in counting.iter().take(count(keep.last)) {
        note(&mut kept, candidate, KeptBy::Last);
    }
    for (why, number, span) in rules {
        let mut spans = BTreeSet::new();
        for candidate in counting {
            if spans.len() >= count(number) {
                break;
            }
            if spans.insert(span(candidate.at.secs())) {
                note(&mut kept, candidate, why);
            }
        }
    }
    for candidate in past {
        if is_younger(candidate, keep.within_secs, now) {
            note(&mut kept, candidate, KeptBy::Within);
        }
    }
    kept
}

/// Leaves the newest `max` of those that are kept so far.
fn limit(kept: &mut Kept, counting: &[&Candidate], keep: &Keep) {
    if keep.max == 0 {
        return;
    }
    let held: Vec<_> = counting
        .iter()
        .filter(|c| kept.contains_key(&c.id))
        .collect();
    for candidate in held.into_iter().skip(count(keep.max)) {
        kept.remove(&candidate.id);
    }
}

fn note(kept: &mut Kept, candidate: &Candidate, why: KeptBy) {
    kept.entry(candidate.id).or_default().insert(why);
}

/// False for an age of 0, which is no rule.
fn is_younger(candidate: &Candidate, age_secs: u64, now: Instant) -> bool {
    let age = i64::try_from(age_secs).unwrap_or(i64::MAX);
    age > 0 && candidate.at.secs() > now.secs().saturating_sub(age)
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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
mod tests;
