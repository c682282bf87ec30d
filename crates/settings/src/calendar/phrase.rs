//! The forms that people write first: `daily 02:00`, `weekly mon,thu 02:00`, `every 15 minutes`.

use super::Zone;
use super::expression::{Days, Expression, weekday};
use super::set::Set;

/// Reads a phrase; nothing when the text does not begin like one.
pub(crate) fn parse(text: &str, default_zone: &Zone) -> Option<Result<Vec<Expression>, String>> {
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    let first = words.first()?.to_ascii_lowercase();
    let kind = first.as_str();
    if !matches!(
        kind,
        "minutely" | "hourly" | "daily" | "weekly" | "monthly" | "every"
    ) {
        return None;
    }
    let zone = match words.last() {
        Some(last) if Zone::looks_like(last) => {
            let zone = match Zone::find(last) {
                Ok(zone) => zone,
                Err(why) => return Some(Err(why)),
            };
            words.pop();
            zone
        }
        _ => default_zone.clone(),
    };
    let rest = words.get(1..).unwrap_or_default();
    Some(match kind {
        "minutely" => minutely(rest, &zone),
        "hourly" => hourly(rest, &zone),
        "daily" => daily(rest, &zone),
        "weekly" => weekly(rest, &zone),
        "monthly" => monthly(rest, &zone),
        _ => every(rest, &zone),
    })
}

fn minutely(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    let [] = rest else {
        return Err("\"minutely\" takes nothing but a zone".to_owned());
    };
    let mut line = Expression::daily(zone);
    line.hours = Set::range(0, 23);
    line.minutes = Set::range(0, 59);
    Ok(vec![line])
}

fn hourly(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    let minute = match *rest {
        [] => 0,
        [minute] => minute
            .strip_prefix(':')
            .and_then(|digits| two_digits(digits, 59))
            .ok_or_else(|| {
                format!("{minute:?} is not a minute; write for example \"hourly :30\"")
            })?,
        _ => return Err("write for example \"hourly\" or \"hourly :30\"".to_owned()),
    };
    let mut line = Expression::daily(zone);
    line.hours = Set::range(0, 23);
    line.minutes = Set::range(minute, minute);
    Ok(vec![line])
}

fn daily(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    match *rest {
        [] => Ok(vec![Expression::daily(zone)]),
        [times] => at_times(&Expression::daily(zone), times),
        _ => Err("write for example \"daily 02:00\" or \"daily 02:00,14:00\"".to_owned()),
    }
}

fn weekly(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    let mut line = Expression::daily(zone);
    match *rest {
        [] => {
            line.weekdays = Set::range(0, 0);
            Ok(vec![line])
        }
        [days, times] => {
            line.weekdays = days_of_week(days)?;
            at_times(&line, times)
        }
        _ => Err("write for example \"weekly mon 02:00\" or \"weekly mon,thu 02:00\"".to_owned()),
    }
}

fn monthly(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    let mut line = Expression::daily(zone);
    match *rest {
        [] => {
            line.days = Days::FromStart(Set::range(1, 1));
            Ok(vec![line])
        }
        [day, times] => {
            line.days = day_of_month(day)?;
            at_times(&line, times)
        }
        _ => Err("write for example \"monthly 1 02:00\" or \"monthly last 02:00\"".to_owned()),
    }
}

fn every(rest: &[&str], zone: &Zone) -> Result<Vec<Expression>, String> {
    let example = || "write for example \"every 15 minutes\" or \"every 6 hours\"".to_owned();
    let (count, unit) = match *rest {
        [unit] => ("1", unit),
        [count, unit] => (count, unit),
        _ => return Err(example()),
    };
    let count: u8 = count.parse().map_err(|_| example())?;
    let mut line = Expression::daily(zone);
    let (whole, name) = match unit {
        "minute" | "minutes" => (60, "minutes"),
        "hour" | "hours" => (24, "hours"),
        _ => return Err(example()),
    };
    // Otherwise the last step of the hour or day would be shorter than the others.
    if count == 0 || whole % count != 0 {
        let allowed: Vec<String> = (1..whole)
            .filter(|n| whole % n == 0)
            .map(|n| n.to_string())
            .collect();
        return Err(format!(
            "every {count} {name} does not divide evenly; use one of {}",
            allowed.join(", ")
        ));
    }
    if count == whole {
        return Err(format!(
            "every {count} {name} is better written as {:?}",
            if whole == 60 { "hourly" } else { "daily 00:00" }
        ));
    }
    let steps: Set = (0..whole).step_by(usize::from(count)).collect();
    if whole == 60 {
        line.hours = Set::range(0, 23);
        line.minutes = steps;
    } else {
        line.hours = steps;
    }
    Ok(vec![line])
}

fn at_times(line: &Expression, times: &str) -> Result<Vec<Expression>, String> {
    let mut lines: Vec<Expression> = Vec::new();
    for time in times.split(',') {
        let read = time
            .split_once(':')
            .and_then(|(hour, minute)| Some((two_digits(hour, 23)?, two_digits(minute, 59)?)));
        let (hour, minute) = read
            .ok_or_else(|| format!("{time:?} is not a time of day; write for example \"02:00\""))?;
        let minutes = Set::range(minute, minute);
        // Times with one minute share a line.
        if let Some(same) = lines.iter_mut().find(|line| line.minutes == minutes) {
            same.hours.insert(hour);
        } else {
            lines.push(Expression {
                hours: Set::range(hour, hour),
                minutes,
                ..line.clone()
            });
        }
    }
    Ok(lines)
}

/// Reads `7` or `07`, up to `high`.
fn two_digits(text: &str, high: u8) -> Option<u8> {
    let plain = matches!(text.len(), 1 | 2) && text.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|number| *number <= high)
}

fn days_of_week(text: &str) -> Result<Set, String> {
    let day = |name: &str| {
        weekday(name).ok_or_else(|| format!("{name:?} is not a weekday; write for example \"mon\""))
    };
    let mut days = Set::EMPTY;
    for part in text.split(',') {
        match part.split_once("..").or_else(|| part.split_once('-')) {
            None => days.insert(day(part)?),
            // People may write "fri-mon": it is spelt out for systemd, which refuses it.
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                let count = (last + 7 - first) % 7;
                (0..=count).for_each(|n| days.insert((first + n) % 7));
            }
        }
    }
    Ok(days)
}

fn day_of_month(text: &str) -> Result<Days, String> {
    if text.eq_ignore_ascii_case("last") {
        return Ok(Days::FromEnd(Set::range(1, 1)));
    }
    match two_digits(text, 31) {
        Some(day @ 29..) => Err(format!(
            "not every month has a day {day}; use 1 to 28 or \"last\""
        )),
        Some(day @ 1..) => Ok(Days::FromStart(Set::range(day, day))),
        _ => Err(format!(
            "{text:?} is not a day of the month; use 1 to 28 or \"last\""
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, &Zone::utc()) {
            None => "no phrase".to_owned(),
            Some(Err(why)) => why,
            Some(Ok(lines)) => {
                let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                lines.join(" + ")
            }
        }
    }

    #[test]
    fn phrases_become_calendars() {
        for (phrase, calendar) in [
            ("minutely", "*-*-* *:*:00 UTC"),
            ("hourly", "*-*-* *:00:00 UTC"),
            ("hourly :30", "*-*-* *:30:00 UTC"),
            ("every 15 minutes", "*-*-* *:00,15,30,45:00 UTC"),
            ("every minute", "*-*-* *:*:00 UTC"),
            (
                "every 6 hours Europe/Berlin",
                "*-*-* 00,06,12,18:00:00 Europe/Berlin",
            ),
            ("daily", "*-*-* 00:00:00 UTC"),
            ("daily 02:00 Europe/Berlin", "*-*-* 02:00:00 Europe/Berlin"),
            (
                "daily 2:00,14:00,23:30",
                "*-*-* 02,14:00:00 UTC + *-*-* 23:30:00 UTC",
            ),
            ("weekly", "Mon *-*-* 00:00:00 UTC"),
            ("weekly mon,thu 02:00", "Mon,Thu *-*-* 02:00:00 UTC"),
            ("weekly fri-mon 02:00", "Mon,Fri..Sun *-*-* 02:00:00 UTC"),
            ("monthly 15 02:00", "*-*-15 02:00:00 UTC"),
            ("monthly last 02:00", "*-*~01 02:00:00 UTC"),
        ] {
            assert_eq!(shown(phrase), calendar, "{phrase}");
        }
    }

    #[test]
    fn wrong_phrases_show_a_right_one() {
        let all: Vec<String> = [
            "hourly 30",
            "daily 25:00",
            "daily 2am",
            "daily at 02:00",
            "weekly someday 02:00",
            "weekly 02:00",
            "monthly 31 02:00",
            "monthly 0 02:00",
            "every 7 minutes",
            "every 60 minutes",
            "every fortnight",
            "daily 02:00 Europe/Nowhere",
        ]
        .into_iter()
        .map(shown)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
    "30" is not a minute; write for example "hourly :30"
    "25:00" is not a time of day; write for example "02:00"
    "2am" is not a time of day; write for example "02:00"
    write for example "daily 02:00" or "daily 02:00,14:00"
    "someday" is not a weekday; write for example "mon"
    write for example "weekly mon 02:00" or "weekly mon,thu 02:00"
    not every month has a day 31; use 1 to 28 or "last"
    "0" is not a day of the month; use 1 to 28 or "last"
    every 7 minutes does not divide evenly; use one of 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30
    every 60 minutes is better written as "hourly"
    write for example "every 15 minutes" or "every 6 hours"
    time zone "Europe/Nowhere" is not known; write for example "UTC" or "Europe/Berlin"
"#);
    }
}
