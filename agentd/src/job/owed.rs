//! What a schedule owes: its occurrences since the last settlement, bounded.

use ledger::Surplus;
use model::Instant;
use settings::Calendar;

/// Occurrences are computed in portions of this many.
const PORTION: usize = 1000;

/// The newest so many occurrences get a row of their own: two months of a minutely schedule.
const OCCURRENCES_MAX: usize = 100_000;

/// Gives the occurrences after `since` and not after `until`, rising. Of too many, the newest; the
/// others are counted.
pub(super) fn owed(
    calendar: &Calendar,
    since: Instant,
    until: Instant,
) -> (Vec<Instant>, Option<Surplus>) {
    newest(calendar, since, until, OCCURRENCES_MAX)
}

fn newest(
    calendar: &Calendar,
    since: Instant,
    until: Instant,
    count_max: usize,
) -> (Vec<Instant>, Option<Surplus>) {
    let mut all = Vec::new();
    let mut surplus: Option<Surplus> = None;
    let mut after = since;
    loop {
        let portion = calendar.occurrences_between(after, until, PORTION);
        let Some(last) = portion.last() else { break };
        after = *last;
        all.extend(portion);
        // Twice as many may be held, so that moving them down is rare.
        if all.len() > count_max.saturating_mul(2) {
            drop_oldest(&mut all, count_max, &mut surplus);
        }
    }
    drop_oldest(&mut all, count_max, &mut surplus);
    (all, surplus)
}

fn drop_oldest(all: &mut Vec<Instant>, count_max: usize, surplus: &mut Option<Surplus>) {
    let count = all.len().saturating_sub(count_max);
    let dropped: Vec<Instant> = all.drain(..count).collect();
    if let (Some(first), Some(last)) = (dropped.first(), dropped.last()) {
        *surplus = Some(Surplus {
            count: count + surplus.map_or(0, |before| before.count),
            first: surplus.map_or(*first, |before| before.first),
            last: *last,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::Zone;

    #[test]
    fn of_too_many_the_newest_are_kept_and_the_others_counted() {
        let minutely = Calendar::parse("*-*-* *:*:00 UTC", &Zone::utc()).unwrap();
        let at = |minutes: i64| Instant::from_secs(1_767_225_600 + minutes * 60);
        let (all, surplus) = newest(&minutely, at(0), at(7305), 1500);
        assert_eq!(all.len(), 1500);
        assert_eq!((all[0], all[1499]), (at(5806), at(7305)));
        let wanted = Surplus {
            count: 5805,
            first: at(1),
            last: at(5805),
        };
        assert_eq!(surplus, Some(wanted));
        let (all, surplus) = newest(&minutely, at(0), at(20), 1500);
        assert_eq!((all.len(), surplus), (20, None));
    }
}
