//! Times as people read them: local, to the second, and how far away.

use jiff::tz::TimeZone;
use model::Instant;

/// Gives the present.
pub fn now() -> Instant {
    Instant::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// Shows an instant in the machine's time zone: `2026-11-20 02:00:13`.
pub fn local(at: Instant) -> String {
    zoned(at, TimeZone::system())
}

fn zoned(at: Instant, zone: TimeZone) -> String {
    match jiff::Timestamp::from_microsecond(at.micros()) {
        Ok(time) => time
            .to_zoned(zone)
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => at.to_string(),
    }
}

/// Shows a number of seconds in its two largest units: `47 s`, `3 min 5 s`, `2 d 4 h`.
pub fn span(secs: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = secs.max(0);
    let mut parts: Vec<String> = Vec::new();
    for (size, unit) in UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        "0 s".to_owned()
    } else {
        parts.join(" ")
    }
}

/// Shows an instant from now: `in 3 h 5 min`, `2 d 4 h ago`.
pub fn relative(at: Instant, now: Instant) -> String {
    let secs = at.secs().saturating_sub(now.secs());
    match secs {
        0 => "now".to_owned(),
        1.. => format!("in {}", span(secs)),
        _ => format!("{} ago", span(secs.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_name_their_two_largest_units() {
        let shown: Vec<String> = [0, 47, 185, 3_600, 3_605, 187_200].map(span).to_vec();
        assert_eq!(shown, ["0 s", "47 s", "3 min 5 s", "1 h", "1 h", "2 d 4 h"]);
    }

    #[test]
    fn instants_are_shown_in_a_zone() {
        let at = Instant::from_secs(1_700_000_000);
        assert_eq!(zoned(at, TimeZone::UTC), "2023-11-14 22:13:20");
        assert_eq!(relative(at, at.plus_secs(60)), "1 min ago");
        assert_eq!(relative(at, at.plus_secs(-60)), "in 1 min");
    }
}
