//! One calendar line with every field spelt out, and its text for systemd.

use std::collections::BTreeSet;
use std::fmt;

use jiff::civil::{Date, Time};

use super::Zone;
use super::set::Set;

/// The last year that systemd computes (`MAX_YEAR` in its calendar code).
pub(crate) const YEAR_MAX: i16 = 2199;
/// Lines name no year before this one.
pub(crate) const YEAR_MIN: i16 = 1970;

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Days of a month, counted from its beginning or from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Days {
    /// 1 is the first day.
    FromStart(Set),
    /// 1 is the last day (`~` in systemd's grammar).
    FromEnd(Set),
}

/// One calendar line: due when every field matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expression {
    /// 0 is Monday.
    pub(crate) weekdays: Set,
    /// Nothing means every year.
    pub(crate) years: Option<BTreeSet<i16>>,
    pub(crate) months: Set,
    pub(crate) days: Days,
    pub(crate) hours: Set,
    pub(crate) minutes: Set,
    /// Exactly one: a schedule is due at most once a minute.
    pub(crate) second: u8,
    pub(crate) zone: Zone,
}

impl Expression {
    /// Due at midnight of every day; callers narrow the fields.
    pub(crate) fn daily(zone: &Zone) -> Self {
        Self {
            weekdays: Set::range(0, 6),
            years: None,
            months: Set::range(1, 12),
            days: Days::FromStart(Set::range(1, 31)),
            hours: Set::range(0, 0),
            minutes: Set::range(0, 0),
            second: 0,
            zone: zone.clone(),
        }
    }

    pub(crate) fn has_year(&self, year: i16) -> bool {
        self.years.as_ref().is_none_or(|all| all.contains(&year))
    }

    pub(crate) fn has_month(&self, date: Date) -> bool {
        self.months.contains(date.month().unsigned_abs())
    }

    /// True when something is due on this local date.
    pub(crate) fn has_date(&self, date: Date) -> bool {
        let day = date.day().unsigned_abs();
        let from_end = date.days_in_month().unsigned_abs() + 1 - day;
        let weekday = date.weekday().to_monday_zero_offset().unsigned_abs();
        self.has_year(date.year())
            && self.has_month(date)
            && self.weekdays.contains(weekday)
            && match self.days {
                Days::FromStart(days) => days.contains(day),
                Days::FromEnd(days) => days.contains(from_end),
            }
    }

    /// True when a local time is one of those due on each of its dates.
    pub(crate) fn has_time(&self, time: Time) -> bool {
        self.hours.contains(time.hour().unsigned_abs())
            && self.minutes.contains(time.minute().unsigned_abs())
            && self.second == time.second().unsigned_abs()
    }

    /// Gives the local times of each due date, in order.
    pub(crate) fn times(&self) -> impl Iterator<Item = Time> {
        self.hours.iter().flat_map(move |hour| {
            self.minutes.iter().filter_map(move |minute| {
                let [hour, minute, second] =
                    [hour, minute, self.second].map(|n| i8::try_from(n).unwrap_or(i8::MAX));
                Time::new(hour, minute, second, 0).ok()
            })
        })
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != Set::range(0, 6) {
            write_weekdays(f, self.weekdays)?;
            f.write_str(" ")?;
        }
        match &self.years {
            None => f.write_str("*")?,
            Some(years) => {
                let years: Vec<String> = years.iter().map(|y| format!("{y:04}")).collect();
                f.write_str(&years.join(","))?;
            }
        }
        f.write_str("-")?;
        self.months.write(f, 1, 12)?;
        match self.days {
            Days::FromStart(days) => {
                f.write_str("-")?;
                days.write(f, 1, 31)?;
            }
            Days::FromEnd(days) => {
                f.write_str("~")?;
                days.write(f, 1, 31)?;
            }
        }
        f.write_str(" ")?;
        self.hours.write(f, 0, 23)?;
        f.write_str(":")?;
        self.minutes.write(f, 0, 59)?;
        write!(f, ":{:02} {}", self.second, self.zone)
    }
}

/// Writes `Mon..Fri` for three days or more in a row, otherwise names; a range never wraps,
/// because systemd refuses `Sat..Mon`.
fn write_weekdays(f: &mut fmt::Formatter<'_>, days: Set) -> fmt::Result {
    let name = |day: u8| WEEKDAYS.get(usize::from(day)).copied().unwrap_or("?");
    let mut day = 0;
    let mut comma = "";
    while day < 7 {
        if !days.contains(day) {
            day += 1;
            continue;
        }
        let mut last = day;
        while last < 6 && days.contains(last + 1) {
            last += 1;
        }
        f.write_str(comma)?;
        if last >= day + 2 {
            write!(f, "{}..{}", name(day), name(last))?;
            day = last + 1;
        } else {
            f.write_str(name(day))?;
            day += 1;
        }
        comma = ",";
    }
    Ok(())
}

/// Finds a weekday by its English name, full or of three letters, in any case; 0 is Monday.
pub(crate) fn weekday(text: &str) -> Option<u8> {
    const FULL: [&str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];
    let same = |name: &&str| name.eq_ignore_ascii_case(text);
    WEEKDAYS
        .iter()
        .position(same)
        .or_else(|| FULL.iter().position(same))
        .and_then(|position| u8::try_from(position).ok())
}
