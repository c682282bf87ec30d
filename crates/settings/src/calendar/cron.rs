//! Five cron fields, an optional zone behind them, and cron's `@` words.
//!
//! As in cron, a day matches when day-of-month **or** weekday match if both are restricted; a
//! field that starts with `*` does not count as restricted. "Or" becomes two calendar lines.

use super::Zone;
use super::expression::{Days, Expression, weekday};
use super::set::Set;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

/// Reads a cron line; nothing when the text is not one.
pub(crate) fn parse(text: &str, default_zone: &Zone) -> Option<Result<Vec<Expression>, String>> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    if let Some(first) = words.first()
        && let Some(word) = first.strip_prefix('@')
    {
        return Some(at_word(word, &words, default_zone));
    }
    // A systemd calendar has four words at most: weekdays, date, time, zone.
    match *words.as_slice() {
        [a, b, c, d, e] => Some(five([a, b, c, d, e], default_zone)),
        [a, b, c, d, e, zone] => {
            Some(Zone::find(zone).and_then(|zone| five([a, b, c, d, e], &zone)))
        }
        _ => None,
    }
}

fn at_word(word: &str, words: &[&str], default_zone: &Zone) -> Result<Vec<Expression>, String> {
    let zone = match *words {
        [_] => default_zone.clone(),
        [_, zone] => Zone::find(zone)?,
        _ => return Err(format!("has too many words after \"@{word}\"")),
    };
    let fields = match word {
        "hourly" => ["0", "*", "*", "*", "*"],
        "daily" | "midnight" => ["0", "0", "*", "*", "*"],
        // cron's week starts on Sunday, systemd's on Monday.
        "weekly" => ["0", "0", "*", "*", "0"],
        "monthly" => ["0", "0", "1", "*", "*"],
        "yearly" | "annually" => ["0", "0", "1", "1", "*"],
        "reboot" => {
            return Err(
                "\"@reboot\" names no time; a run that was missed is made up after a boot anyway"
                    .to_owned(),
            );
        }
        _ => {
            return Err(format!(
                "\"@{word}\" is not known; write for example \"@daily\""
            ));
        }
    };
    five(fields, &zone)
}

fn five(fields: [&str; 5], zone: &Zone) -> Result<Vec<Expression>, String> {
    let [minute, hour, day, month, week] = fields;
    let mut line = Expression::daily(zone);
    line.minutes = field(minute, 0, 59, "minute", &|_| None)?;
    line.hours = field(hour, 0, 23, "hour", &|_| None)?;
    let days = field(day, 1, 31, "day of month", &|_| None)?;
    line.months = field(month, 1, 12, "month", &month_name)?;
    // 0 and 7 are both Sunday, which is 6 here.
    let week_days: Set = field(week, 0, 7, "weekday", &weekday_name)?
        .iter()
        .map(|day| (day + 6) % 7)
        .collect();
    let (day_restricted, week_restricted) = (!day.starts_with('*'), !week.starts_with('*'));
    if day_restricted && week_restricted {
        let by_weekday = Expression {
            weekdays: week_days,
            ..line.clone()
        };
        line.days = Days::FromStart(days);
        return Ok(vec![line, by_weekday]);
    }
    line.weekdays = week_days;
    line.days = Days::FromStart(days);
    Ok(vec![line])
}

fn month_name(text: &str) -> Option<u8> {
    let position = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(text))?;
    u8::try_from(position + 1).ok()
}

fn weekday_name(text: &str) -> Option<u8> {
    (text.len() == 3)
        .then(|| weekday(text))
        .flatten()
        .map(|day| (day + 1) % 7)
}

type Names<'n> = &'n dyn Fn(&str) -> Option<u8>;

fn field(text: &str, low: u8, high: u8, name: &str, names: Names<'_>) -> Result<Set, String> {
    let mut set = Set::EMPTY;
    for part in text.split(',') {
        let wrong = |why: &str| format!("cron {name} {part:?} {why}");
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: usize = step.parse().map_err(|_| wrong("has a bad step"))?;
                (range, Some(step))
            }
            None => (part, None),
        };
        if step == Some(0) {
            return Err(wrong("has a step of 0"));
        }
        let value = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            names(text)
                .or_else(|| plain.then(|| text.parse().ok()).flatten())
                .filter(|n| (low..=high).contains(n))
                .ok_or_else(|| wrong(&format!("is not between {low} and {high}")))
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((first, last)) => (value(first)?, value(last)?),
            None if step.is_some() => (value(range)?, high),
            None => (value(range)?, value(range)?),
        };
        if first > last {
            return Err(wrong("runs backwards"));
        }
        // A weekday step from a bare number ends on Saturday: 7 is only a name for Sunday.
        let last = if high == 7 && last == 7 && range != "7" && !range.contains('-') {
            6
        } else {
            last
        };
        (first..=last)
            .step_by(step.unwrap_or(1))
            .for_each(|n| set.insert(n));
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text, &Zone::utc()) {
            None => "not cron".to_owned(),
            Some(Err(why)) => why,
            Some(Ok(lines)) => {
                let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
                lines.join(" + ")
            }
        }
    }

    #[test]
    fn cron_lines_become_calendars() {
        for (cron, calendar) in [
            ("0 3 * * *", "*-*-* 03:00:00 UTC"),
            ("*/15 * * * *", "*-*-* *:00,15,30,45:00 UTC"),
            ("0 */5 * * *", "*-*-* 00,05,10,15,20:00:00 UTC"),
            ("3/20 * * * *", "*-*-* *:03,23,43:00 UTC"),
            ("0 4 * * 1-5", "Mon..Fri *-*-* 04:00:00 UTC"),
            ("0 4 * * 5-7", "Fri..Sun *-*-* 04:00:00 UTC"),
            ("0 4 * * 0", "Sun *-*-* 04:00:00 UTC"),
            ("0 4 * * 7", "Sun *-*-* 04:00:00 UTC"),
            ("0 4 * * sun,tue", "Tue,Sun *-*-* 04:00:00 UTC"),
            ("0 22 * * 1-5/2", "Mon,Wed,Fri *-*-* 22:00:00 UTC"),
            ("0 4 * * */2", "Tue,Thu,Sat,Sun *-*-* 04:00:00 UTC"),
            ("0 0 1 */3 *", "*-01,04,07,10-01 00:00:00 UTC"),
            ("0 4 13 * 5", "*-*-13 04:00:00 UTC + Fri *-*-* 04:00:00 UTC"),
            ("0 6 */10 * 1", "Mon *-*-01,11,21,31 06:00:00 UTC"),
            (
                "0 12 15 6 3",
                "*-06-15 12:00:00 UTC + Wed *-06-* 12:00:00 UTC",
            ),
            ("30 2 * * * Europe/Berlin", "*-*-* 02:30:00 Europe/Berlin"),
            ("@weekly", "Sun *-*-* 00:00:00 UTC"),
            ("@yearly Europe/Berlin", "*-01-01 00:00:00 Europe/Berlin"),
        ] {
            assert_eq!(shown(cron), calendar, "{cron}");
        }
    }

    #[test]
    fn bad_fields_are_named() {
        let all: Vec<String> = [
            "60 * * * *",
            "0 24 * * *",
            "0 0 0 * *",
            "0 0 * 13 *",
            "0 0 * * 8",
            "0 0 5-1 * *",
            "*/0 * * * *",
            "*/x * * * *",
            "0 0 * * mon-",
            "@reboot",
            "@never",
            "0 0 * * * Mars/Base",
        ]
        .into_iter()
        .map(shown)
        .collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
    cron minute "60" is not between 0 and 59
    cron hour "24" is not between 0 and 23
    cron day of month "0" is not between 1 and 31
    cron month "13" is not between 1 and 12
    cron weekday "8" is not between 0 and 7
    cron day of month "5-1" runs backwards
    cron minute "*/0" has a step of 0
    cron minute "*/x" has a bad step
    cron weekday "mon-" is not between 0 and 7
    "@reboot" names no time; a run that was missed is made up after a boot anyway
    "@never" is not known; write for example "@daily"
    time zone "Mars/Base" is not known; write for example "UTC" or "Europe/Berlin"
"#);
    }
}
