//! Extra calendar lines for local times that a clock change skips.
//!
//! systemd drops such a run silently: `02:30 Europe/Berlin` is not run at all on the last Sunday
//! of March. Each line here says "on that day, at the end of the gap". Where the clock changes by
//! a yearly rule ("last Sunday of March") one line covers every year.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::expression::{Days, Expression};
use super::set::Set;

/// Changes looked at to recognise a yearly rule; every position of a weekday comes up in them.
const RULE_YEARS: i16 = 20;
/// Changes written out where there is no rule.
const WRITTEN_YEARS: i16 = 10;

/// One gap: local times from `start` up to before `end` do not exist.
#[derive(Debug, Clone, Copy)]
struct Gap {
    start: DateTime,
    end: DateTime,
}

/// A yearly rule: the gap lies on this weekday among seven days of one month.
struct Rule {
    weekday: u8,
    month: u8,
    day_min: u8,
    day_max: u8,
    from: Time,
    until: Time,
}

/// Gives the lines that make up for what the gaps of the zone would swallow.
pub(crate) fn lines(expression: &Expression, year: i16) -> Vec<Expression> {
    let gaps = gaps(expression.zone.rules(), year);
    match rule(&gaps) {
        Some(rule) => {
            by_rule(expression, &rule).unwrap_or_else(|| by_date(expression, &gaps, year))
        }
        None => by_date(expression, &gaps, year),
    }
}

fn gaps(rules: &TimeZone, year: i16) -> Vec<Gap> {
    let start = DateTime::constant(year, 1, 1, 0, 0, 0, 0);
    let Ok(start) = TimeZone::UTC.to_timestamp(start) else {
        return Vec::new();
    };
    let end = year.saturating_add(RULE_YEARS);
    let mut gaps = Vec::new();
    let mut before = rules.to_offset(start);
    for change in rules.following(start) {
        let at: Timestamp = change.timestamp();
        let gap = Gap {
            start: before.to_datetime(at),
            end: change.offset().to_datetime(at),
        };
        before = change.offset();
        if gap.start.year() >= end {
            break;
        }
        if gap.end > gap.start {
            gaps.push(gap);
        }
    }
    gaps
}

fn rule(gaps: &[Gap]) -> Option<Rule> {
    let first = gaps.first()?;
    let last = gaps.last()?;
    let years = usize::try_from(last.start.year() - first.start.year() + 1).ok()?;
    let same = |gap: &Gap| {
        gap.start.month() == first.start.month()
            && gap.start.weekday() == first.start.weekday()
            && gap.start.time() == first.start.time()
            && gap.end.time() == first.end.time()
            && gap.end.date() == gap.start.date()
    };
    let days: Vec<u8> = gaps.iter().map(|g| g.start.day().unsigned_abs()).collect();
    let (day_min, day_max) = (*days.iter().min()?, *days.iter().max()?);
    let yearly = years == gaps.len() && years >= usize::try_from(RULE_YEARS - 1).ok()?;
    (yearly && gaps.iter().all(same) && day_max - day_min == 6).then(|| Rule {
        weekday: first.start.weekday().to_monday_zero_offset().unsigned_abs(),
        month: first.start.month().unsigned_abs(),
        day_min,
        day_max,
        from: first.start.time(),
        until: first.end.time(),
    })
}

/// Gives one line for every year, or nothing when the days cannot be written that way.
fn by_rule(expression: &Expression, rule: &Rule) -> Option<Vec<Expression>> {
    let swallowed = expression
        .times()
        .any(|time| time >= rule.from && time < rule.until);
    if !swallowed || expression.has_time(rule.until) {
        return Some(Vec::new());
    }
    let days = match expression.days {
        Days::FromStart(days) => days,
        Days::FromEnd(_) if rule.month == 2 => return None,
        Days::FromEnd(days) => {
            let length = match rule.month {
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            days.iter()
                .map(|n| (length + 1u8).saturating_sub(n))
                .collect()
        }
    };
    let mut line = expression.clone();
    line.weekdays = expression
        .weekdays
        .and(Set::range(rule.weekday, rule.weekday));
    line.months = expression.months.and(Set::range(rule.month, rule.month));
    let days = days.and(Set::range(rule.day_min, rule.day_max));
    line.days = Days::FromStart(days);
    let empty = line.weekdays.is_empty() || line.months.is_empty() || days.is_empty();
    Some(if empty {
        Vec::new()
    } else {
        vec![at_time(line, rule.until)]
    })
}

/// Gives one line for each gap of the coming years that swallows something.
fn by_date(expression: &Expression, gaps: &[Gap], year: i16) -> Vec<Expression> {
    gaps.iter()
        .filter(|gap| gap.start.year() < year.saturating_add(WRITTEN_YEARS))
        .filter(|gap| swallows(expression, gap))
        .map(|gap| {
            let date: Date = gap.end.date();
            let mut line = expression.clone();
            line.weekdays = Set::range(0, 6);
            line.years = Some([date.year()].into());
            line.months = Set::range(date.month().unsigned_abs(), date.month().unsigned_abs());
            line.days = Days::FromStart(Set::range(
                date.day().unsigned_abs(),
                date.day().unsigned_abs(),
            ));
            at_time(line, gap.end.time())
        })
        .collect()
}

fn swallows(expression: &Expression, gap: &Gap) -> bool {
    if expression.has_date(gap.end.date()) && expression.has_time(gap.end.time()) {
        return false;
    }
    // A gap is at most a day long (a date line was crossed): it touches two dates at most.
    [gap.start.date(), gap.end.date()].into_iter().any(|date| {
        expression.has_date(date)
            && expression.times().any(|time| {
                let local = date.to_datetime(time);
                local >= gap.start && local < gap.end
            })
    })
}

fn at_time(mut line: Expression, time: Time) -> Expression {
    line.hours = Set::range(time.hour().unsigned_abs(), time.hour().unsigned_abs());
    line.minutes = Set::range(time.minute().unsigned_abs(), time.minute().unsigned_abs());
    line.second = time.second().unsigned_abs();
    line
}
