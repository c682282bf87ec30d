//! From a calendar line to instants, with the rule for clock changes.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use model::Instant;

use super::expression::{Expression, YEAR_MAX};

/// Gives the occurrences of one line later than `after`, up to `until`, at most `count_max`.
pub(crate) fn between(
    expression: &Expression,
    after: Instant,
    until: Option<Instant>,
    count_max: usize,
) -> Vec<Instant> {
    let mut found = Vec::new();
    let rules = expression.zone.rules();
    let Ok(start) = Timestamp::from_microsecond(after.micros()) else {
        return found;
    };
    // From the day before: a local time moved by a clock change may belong to an earlier date.
    let first = rules.to_datetime(start).date().yesterday();
    let mut date = first.ok().and_then(|day| next_date(expression, day));
    while let Some(day) = date {
        for at in instants_of(expression, day) {
            if until.is_some_and(|end| at > end) || found.len() >= count_max {
                return found;
            }
            if at > after && found.last() != Some(&at) {
                found.push(at);
            }
        }
        date = day
            .tomorrow()
            .ok()
            .and_then(|next| next_date(expression, next));
        if until.is_some_and(|end| starts_after(rules, day, end)) {
            break;
        }
    }
    found
}

/// True when the whole of a local date lies after an instant.
fn starts_after(rules: &TimeZone, day: Date, end: Instant) -> bool {
    day.yesterday()
        .ok()
        .and_then(|before| due_at(rules, before.at(0, 0, 0, 0)))
        .is_some_and(|at| at > end)
}

/// Gives the first matching local date that is not earlier than `date`.
fn next_date(expression: &Expression, mut date: Date) -> Option<Date> {
    while date.year() <= YEAR_MAX {
        if !expression.has_year(date.year()) {
            date = Date::new(date.year() + 1, 1, 1).ok()?;
        } else if !expression.has_month(date) {
            date = date.last_of_month().tomorrow().ok()?;
        } else if expression.has_date(date) {
            return Some(date);
        } else {
            date = date.tomorrow().ok()?;
        }
    }
    None
}

/// Gives the instants of one matching date, in order.
fn instants_of(expression: &Expression, date: Date) -> Vec<Instant> {
    let rules = expression.zone.rules();
    if let Some(midnight) = plain_day(rules, date) {
        let seconds = |time: jiff::civil::Time| {
            i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second())
        };
        return expression
            .times()
            .map(|time| midnight.plus_secs(seconds(time)))
            .collect();
    }
    expression
        .times()
        .filter_map(|time| due_at(rules, date.to_datetime(time)))
        .collect()
}

/// Gives the first instant of a date on which no clock changes, and nothing for other dates.
fn plain_day(rules: &TimeZone, date: Date) -> Option<Instant> {
    let start = rules.to_ambiguous_timestamp(date.at(0, 0, 0, 0));
    let end = rules.to_ambiguous_timestamp(date.tomorrow().ok()?.at(0, 0, 0, 0));
    match (start.offset(), end.offset()) {
        (
            AmbiguousOffset::Unambiguous { offset: before },
            AmbiguousOffset::Unambiguous { offset: after },
        ) if before == after => {
            let start = before.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
            let end = start.as_second() + 86_400;
            // Equal offsets at both ends can still hide two changes between them.
            let change = rules.following(start).next();
            if change.is_some_and(|change| change.timestamp().as_second() < end) {
                return None;
            }
            Some(Instant::from_micros(start.as_microsecond()))
        }
        _ => None,
    }
}

/// Gives the instant at which a local time is due: its first coming when it comes twice, the end
/// of the gap when it is skipped.
fn due_at(rules: &TimeZone, local: DateTime) -> Option<Instant> {
    let at = match rules.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok()?,
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok()?,
        AmbiguousOffset::Gap { after, .. } => {
            // Read with the later offset, a skipped time lies before the change it falls into.
            let earlier = after.to_timestamp(local).ok()?;
            rules.following(earlier).next()?.timestamp()
        }
    };
    Some(Instant::from_micros(at.as_microsecond()))
}
