//! Calendars in systemd's own grammar (`systemd.time`, "Calendar events").
//!
//! Accepted is what systemd accepts, less what makes no backup schedule: fractions of a second,
//! more than one second per minute, `@` timestamps, and zones by abbreviation.

use std::collections::BTreeSet;

use super::Zone;
use super::expression::{Days, Expression, YEAR_MAX, YEAR_MIN, weekday};
use super::set::Set;

/// One element of a list: `start`, `start..stop`, `start/repeat` or `start..stop/repeat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Element {
    start: u16,
    stop: Option<u16>,
    repeat: Option<u16>,
}

/// What a field says: everything, or a list.
type Chain = Option<Vec<Element>>;

/// Reads one calendar line.
pub(crate) fn parse(text: &str, default_zone: &Zone) -> Result<Expression, String> {
    let refused = |why: String| format!("{:?} is not a calendar: {why}", text.trim());
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    let zone = match words.last() {
        Some(last) if Zone::looks_like(last) && !last.contains(':') => {
            let zone = Zone::find(last).map_err(refused)?;
            words.pop();
            zone
        }
        _ => default_zone.clone(),
    };
    if let [one] = words.as_slice()
        && let Some(found) = shorthand(one, &zone)
    {
        return Ok(found);
    }
    let mut line = Expression::daily(&zone);
    let mut rest = words.as_slice();
    if let Some((first, more)) = rest.split_first()
        && first.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        line.weekdays = weekdays(first).map_err(refused)?;
        rest = more;
    }
    match *rest {
        [] if words.is_empty() => return Err(refused("it is empty".to_owned())),
        [] => {}
        [date, time] => {
            read_date(date, &mut line).map_err(refused)?;
            read_time(time, &mut line).map_err(refused)?;
        }
        [one] if one.contains(':') => read_time(one, &mut line).map_err(refused)?,
        [one] => read_date(one, &mut line).map_err(refused)?,
        _ => return Err(refused("it has too many words".to_owned())),
    }
    Ok(line)
}

fn shorthand(word: &str, zone: &Zone) -> Option<Expression> {
    let mut line = Expression::daily(zone);
    let months = |line: &mut Expression, all: &[u8]| {
        line.months = all.iter().copied().collect();
        line.days = Days::FromStart(Set::range(1, 1));
    };
    match word.to_ascii_lowercase().as_str() {
        "minutely" => {
            line.hours = Set::range(0, 23);
            line.minutes = Set::range(0, 59);
        }
        "hourly" => line.hours = Set::range(0, 23),
        "daily" => {}
        "weekly" => line.weekdays = Set::range(0, 0),
        "monthly" => line.days = Days::FromStart(Set::range(1, 1)),
        "quarterly" => months(&mut line, &[1, 4, 7, 10]),
        "semiannually" | "semi-annually" => months(&mut line, &[1, 7]),
        "yearly" | "annually" | "anually" => months(&mut line, &[1]),
        _ => return None,
    }
    Some(line)
}

fn weekdays(text: &str) -> Result<Set, String> {
    let mut days = Set::EMPTY;
    let day = |name: &str| weekday(name).ok_or_else(|| format!("{name:?} is not a weekday"));
    // systemd allows a comma after the last name.
    for part in text.trim_end_matches(',').split(',') {
        let range = part.split_once("..").or_else(|| part.split_once('-'));
        if let Some((first, last)) = range {
            let (first, last) = (day(first)?, day(last)?);
            if first > last {
                return Err(format!(
                    "the weekday range {part:?} runs past Sunday; write both parts, for example \"Sat,Sun,Mon\""
                ));
            }
            Set::range(first, last).iter().for_each(|n| days.insert(n));
        } else {
            days.insert(day(part)?);
        }
    }
    Ok(days)
}

fn read_date(text: &str, line: &mut Expression) -> Result<(), String> {
    let wrong = || format!("{text:?} is not a date like *-*-* or 2027-01-31");
    let (head, day, from_end) = match text.split_once('~') {
        Some((head, day)) => (head, day, true),
        None => {
            let (head, day) = text.rsplit_once('-').ok_or_else(wrong)?;
            (head, day, false)
        }
    };
    let (year, month) = match head.split_once('-') {
        Some((year, month)) => (year, month),
        None => ("*", head),
    };
    line.years = years(chain(year)?.as_deref())?;
    line.months = numbers(chain(month)?.as_deref(), 1, 12, "month")?;
    line.days = match chain(day)? {
        None => Days::FromStart(Set::range(1, 31)),
        Some(list) if from_end => Days::FromEnd(days_from_end(&list)?),
        list => Days::FromStart(numbers(list.as_deref(), 1, 31, "day")?),
    };
    Ok(())
}

fn read_time(text: &str, line: &mut Expression) -> Result<(), String> {
    let mut fields = text.split(':');
    let (Some(hours), Some(minutes)) = (fields.next(), fields.next()) else {
        return Err(format!("{text:?} is not a time like 02:00"));
    };
    let seconds = fields.next().unwrap_or("0");
    if fields.next().is_some() {
        return Err(format!("{text:?} is not a time like 02:00:00"));
    }
    if seconds.contains('.') && !seconds.contains("..") {
        return Err("fractions of a second are not used here".to_owned());
    }
    line.hours = numbers(chain(hours)?.as_deref(), 0, 23, "hour")?;
    line.minutes = numbers(chain(minutes)?.as_deref(), 0, 59, "minute")?;
    let seconds = numbers(chain(seconds)?.as_deref(), 0, 59, "second")?;
    let mut all = seconds.iter();
    match (all.next(), all.next()) {
        (Some(only), None) => line.second = only,
        _ => return Err("a schedule can be due once a minute, not more often".to_owned()),
    }
    Ok(())
}

fn chain(text: &str) -> Result<Chain, String> {
    if text == "*" {
        return Ok(None);
    }
    if let Some(step) = text.strip_prefix("*/") {
        return Err(format!(
            "systemd has no \"*/{step}\"; write where to start, for example \"0/{step}\""
        ));
    }
    text.split(',')
        .map(element)
        .collect::<Result<_, _>>()
        .map(Some)
}

fn element(text: &str) -> Result<Element, String> {
    let (range, repeat) = match text.split_once('/') {
        Some((range, repeat)) => (range, Some(number(repeat)?)),
        None => (text, None),
    };
    let (start, stop) = match range.split_once("..") {
        Some((start, stop)) => (start, Some(number(stop)?)),
        None => (range, None),
    };
    if repeat == Some(0) {
        return Err(format!("the step of {text:?} is 0"));
    }
    Ok(Element {
        start: number(start)?,
        stop,
        repeat,
    })
}

fn number(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(format!("{text:?} is not a number")),
    }
}

impl Element {
    /// Gives the numbers of this element within bounds that it must keep.
    fn expand(self, low: u16, high: u16, field: &str) -> Result<Vec<u16>, String> {
        let last = self.stop.unwrap_or(self.start);
        if self.start < low || self.start > high || last < low || last > high {
            let wrong = if self.start < low || self.start > high {
                self.start
            } else {
                last
            };
            return Err(format!("{field} {wrong} is not between {low} and {high}"));
        }
        if last < self.start {
            return Err(format!(
                "the {field} range {}..{last} runs backwards",
                self.start
            ));
        }
        let stop = match (self.stop, self.repeat) {
            (Some(stop), _) => stop,
            (None, Some(_)) => high,
            (None, None) => self.start,
        };
        let step = usize::from(self.repeat.unwrap_or(1));
        Ok((self.start..=stop).step_by(step).collect())
    }
}

fn numbers(list: Option<&[Element]>, low: u8, high: u8, field: &str) -> Result<Set, String> {
    let Some(list) = list else {
        return Ok(Set::range(low, high));
    };
    let mut set = Set::EMPTY;
    for element in list {
        for number in element.expand(u16::from(low), u16::from(high), field)? {
            set.insert(u8::try_from(number).unwrap_or(u8::MAX));
        }
    }
    Ok(set)
}

/// Reads days counted from the end of the month: `~03` is the third last, `~07/1` the last seven.
fn days_from_end(list: &[Element]) -> Result<Set, String> {
    let mut set = Set::EMPTY;
    for element in list {
        // Steps lead towards the end of the month: `~10/3` is the 10th, 7th, 4th and 1st last.
        let (first, last) = match element.stop {
            Some(stop) => (element.start.max(stop), element.start.min(stop)),
            None if element.repeat.is_some() => (element.start, 1),
            None => (element.start, element.start),
        };
        if first > 28 || last < 1 {
            return Err("days from the end of a month go from 1 to 28".to_owned());
        }
        let step = usize::from(element.repeat.unwrap_or(1));
        for number in (last..=first).rev().step_by(step) {
            set.insert(u8::try_from(number).unwrap_or(u8::MAX));
        }
    }
    Ok(set)
}

fn years(list: Option<&[Element]>) -> Result<Option<BTreeSet<i16>>, String> {
    let Some(list) = list else {
        return Ok(None);
    };
    let (low, high) = (YEAR_MIN.unsigned_abs(), YEAR_MAX.unsigned_abs());
    let mut all = BTreeSet::new();
    for element in list {
        for year in element.expand(low, high, "year")? {
            all.insert(i16::try_from(year).unwrap_or(i16::MAX));
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, &Zone::utc()) {
            Ok(line) => line.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn every_field_is_spelt_out() {
        assert_eq!(shown("Mon"), "Mon *-*-* 00:00:00 UTC");
        assert_eq!(shown("02:30"), "*-*-* 02:30:00 UTC");
        assert_eq!(shown("*-*~01"), "*-*~01 00:00:00 UTC");
        assert_eq!(
            shown("Mon..Wed,sat *-*-1..3 0/6:00 Europe/Berlin"),
            "Mon..Wed,Sat *-*-01,02,03 00,06,12,18:00:00 Europe/Berlin"
        );
        assert_eq!(shown("2027,2029-02-01"), "2027,2029-02-01 00:00:00 UTC");
        assert_eq!(
            shown("Fri *-*~07/1"),
            "Fri *-*~01,02,03,04,05,06,07 00:00:00 UTC"
        );
        assert_eq!(shown("quarterly"), "*-01,04,07,10-01 00:00:00 UTC");
        assert_eq!(
            shown("minutely Europe/Berlin"),
            "*-*-* *:*:00 Europe/Berlin"
        );
    }

    #[test]
    fn what_cannot_be_is_said_precisely() {
        let all: Vec<String> = [
            "",
            "tomorrow",
            "Sat..Mon 02:00",
            "*:*/15",
            "25:00",
            "*-13-01",
            "*-*-* 02:00:00.5",
            "*-*-* *:*:*",
            "*-*-9..5",
            "*-*-* 02:00 Europe/Nowhere",
            "a b c d",
        ]
        .into_iter()
        .map(shown)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
    "" is not a calendar: it is empty
    "tomorrow" is not a calendar: "tomorrow" is not a weekday
    "Sat..Mon 02:00" is not a calendar: the weekday range "Sat..Mon" runs past Sunday; write both parts, for example "Sat,Sun,Mon"
    "*:*/15" is not a calendar: systemd has no "*/15"; write where to start, for example "0/15"
    "25:00" is not a calendar: hour 25 is not between 0 and 23
    "*-13-01" is not a calendar: month 13 is not between 1 and 12
    "*-*-* 02:00:00.5" is not a calendar: fractions of a second are not used here
    "*-*-* *:*:*" is not a calendar: a schedule can be due once a minute, not more often
    "*-*-9..5" is not a calendar: the day range 9..5 runs backwards
    "*-*-* 02:00 Europe/Nowhere" is not a calendar: time zone "Europe/Nowhere" is not known; write for example "UTC" or "Europe/Berlin"
    "a b c d" is not a calendar: "a" is not a weekday
"#);
    }
}
