//! Our occurrences against those of `systemd-analyze calendar`, where that program is installed.

use std::process::Command;

use jiff::Timestamp;
use model::Instant;

use super::{Calendar, Zone};

const COUNT: usize = 60;

/// Asks systemd for the next elapses of one calendar line.
fn elapses(line: &str, base: &str) -> Vec<Instant> {
    let out = Command::new("systemd-analyze")
        .args(["calendar", "--iterations=60", "--base-time", base, line])
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .filter_map(|row| row.split_once(": "))
        // "Iter. #2" on systemd 252, "Iteration #2" on 257.
        .filter(|(key, _)| key.contains("Next elapse") || key.contains("Iter"))
        .map(|(_, value)| {
            let words: Vec<&str> = value.split_whitespace().collect();
            let text = format!("{}T{}Z", words[1], words[2]);
            Instant::from_micros(text.parse::<Timestamp>().unwrap().as_microsecond())
        })
        .collect()
}

fn compare(when: &str, base: &str) {
    let calendar =
        Calendar::parse(when, &Zone::utc()).unwrap_or_else(|why| panic!("{when}: {why}"));
    let mut theirs: Vec<Instant> = calendar
        .on_calendar(2026)
        .iter()
        .flat_map(|line| elapses(line, base))
        .collect();
    theirs.sort_unstable();
    theirs.dedup();
    theirs.truncate(COUNT);
    let after: Timestamp = base.replace(" UTC", "Z").replace(' ', "T").parse().unwrap();
    let after = Instant::from_micros(after.as_microsecond());
    let mut ours = Vec::new();
    let mut last = after;
    while ours.len() < theirs.len() {
        last = calendar.next_after(last).unwrap();
        ours.push(last);
    }
    assert_eq!(
        ours,
        theirs,
        "{when} from {base}: {:?}",
        calendar.on_calendar(2026)
    );
    let until = *ours.last().unwrap();
    assert_eq!(
        calendar.occurrences_between(after, until, COUNT),
        ours,
        "{when}"
    );
}

#[test]
fn occurrences_agree_with_systemd() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    for when in [
        "minutely",
        "hourly",
        "hourly :30 Europe/Berlin",
        "every 15 minutes Europe/Berlin",
        "every 6 hours America/New_York",
        "daily 02:00 Europe/Berlin",
        "daily 02:30 Europe/Berlin",
        "daily 01:30,02:30,03:30 America/New_York",
        "daily 02:10 Australia/Lord_Howe",
        "daily 00:30 Africa/Cairo",
        "daily 02:30 Asia/Kolkata",
        "weekly sun 02:30 Europe/Berlin",
        "weekly fri-mon 02:00 UTC",
        "monthly 28 02:30 Europe/Berlin",
        "monthly last 02:30 Europe/Berlin",
        "0 3 * * *",
        "*/15 * * * *",
        "0 4 13 * 5",
        "0 6 */10 * 1",
        "0 12 15 6 3",
        "30 2 28-31 3 * Europe/Berlin",
        "3/20 1-5 * * 1-5/2 Europe/Berlin",
        "0 0 29 2 *",
        "Mon..Fri *-*-* 04:00:00 UTC",
        "Fri *-*~07/1 10:00",
        "*-*~10/3 06:00",
        "*-*~05..02 06:00",
        "Mon *-*-01..07 00:00",
        "*-02,04..10/3-1..20/6 08/5:10..40/15:30 Europe/Berlin",
        "2027..2199/2-*-1 00:00",
        "quarterly",
        "semiannually Europe/Berlin",
        "*-03-25..31 02:15 Europe/Berlin",
    ] {
        for base in [
            "2026-11-20 12:00:00 UTC",
            "2027-03-27 20:00:00 UTC",
            "2026-10-24 20:00:00 UTC",
            "2027-03-13 23:00:00 UTC",
            "2028-02-28 23:59:59 UTC",
        ] {
            compare(when, base);
        }
    }
}

#[test]
fn what_systemd_refuses_or_never_runs_is_refused() {
    for when in [
        "*-02-30",
        "*-02-30 02:00 Europe/Berlin",
        "0 0 31 2 *",
        "2019-01-01",
        "Sun..Tue 02:00",
        "Mon *-*-* 24:00",
    ] {
        assert!(Calendar::parse(when, &Zone::utc()).is_err(), "{when}");
    }
}

#[test]
fn a_skipped_local_time_runs_once_when_the_gap_ends() {
    let calendar = Calendar::parse("daily 02:30 Europe/Berlin", &Zone::utc()).unwrap();
    assert_eq!(
        calendar.on_calendar(2026),
        [
            "*-*-* 02:30:00 Europe/Berlin",
            "Sun *-03-25,26,27,28,29,30,31 03:00:00 Europe/Berlin"
        ]
    );
    let at = |text: &str| text.parse::<Instant>().unwrap();
    assert_eq!(
        calendar.occurrences_between(at("2027-03-27T00:00:00Z"), at("2027-03-30T00:00:00Z"), 9),
        [
            at("2027-03-27T01:30:00Z"),
            at("2027-03-28T01:00:00Z"),
            at("2027-03-29T00:30:00Z")
        ]
    );
}

#[test]
fn a_repeated_local_time_runs_at_its_first_coming() {
    let calendar = Calendar::parse("daily 02:30 Europe/Berlin", &Zone::utc()).unwrap();
    let at = |text: &str| text.parse::<Instant>().unwrap();
    assert_eq!(
        calendar.occurrences_between(at("2026-10-24T12:00:00Z"), at("2026-10-26T00:00:00Z"), 9),
        [at("2026-10-25T00:30:00Z")]
    );
    // Asked in the middle of the repeated hour, the answer stays the same.
    assert_eq!(
        calendar.next_after(at("2026-10-25T01:10:00Z")),
        Some(at("2026-10-26T01:30:00Z"))
    );
}

#[test]
fn zones_without_a_yearly_rule_get_dates() {
    let calendar = Calendar::parse("daily 02:30 Africa/Casablanca", &Zone::utc()).unwrap();
    let lines = calendar.on_calendar(2026);
    assert!(lines.len() > 5, "{lines:?}");
    assert!(
        lines.iter().skip(1).all(|line| line.starts_with("20")),
        "{lines:?}"
    );
}
