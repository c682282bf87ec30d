//! The rules by example, and against a model that looks at every snapshot by itself.

use proptest::prelude::*;

use super::*;

fn candidate(number: u8, at: &str) -> Candidate {
    Candidate {
        id: SnapshotId::from_bytes([number; 16]),
        at: at.parse().unwrap(),
        is_complete: true,
        is_pinned: false,
    }
}

fn kept(candidates: &[Candidate], keep: Keep) -> Vec<u8> {
    let now = "2026-03-10T00:00:00Z".parse().unwrap();
    let gone = plan_retention(candidates, &keep, now).gone;
    let is_kept = |c: &&Candidate| !gone.contains(&c.id);
    candidates
        .iter()
        .filter(is_kept)
        .map(|c| c.id.as_bytes()[0])
        .collect()
}

fn some() -> Vec<Candidate> {
    vec![
        candidate(1, "2024-12-31T23:59:59Z"),
        candidate(2, "2025-01-01T00:00:00Z"),
        candidate(3, "2026-01-31T12:00:00Z"),
        candidate(4, "2026-02-01T12:00:00Z"),
        candidate(5, "2026-03-01T23:00:00Z"),
        candidate(6, "2026-03-02T01:00:00Z"),
        candidate(7, "2026-03-09T01:10:00Z"),
        candidate(8, "2026-03-09T01:50:00Z"),
        candidate(9, "2026-03-09T23:00:00Z"),
    ]
}

#[test]
fn each_rule_keeps_the_newest_of_its_spans() {
    let keep = Keep::default();
    assert_eq!(kept(&some(), keep).len(), 9);
    assert_eq!(kept(&some(), Keep { last: 2, ..keep }), [8, 9]);
    assert_eq!(kept(&some(), Keep { hourly: 2, ..keep }), [8, 9]);
    assert_eq!(kept(&some(), Keep { daily: 3, ..keep }), [5, 6, 9]);
    assert_eq!(kept(&some(), Keep { weekly: 3, ..keep }), [5, 6, 9]);
    assert_eq!(kept(&some(), Keep { monthly: 3, ..keep }), [3, 4, 9]);
    assert_eq!(kept(&some(), Keep { yearly: 9, ..keep }), [1, 2, 9]);
    let within = Keep {
        within_secs: 86_400,
        ..keep
    };
    assert_eq!(kept(&some(), within), [7, 8, 9]);
    let max = Keep {
        last: 5,
        max: 2,
        ..keep
    };
    assert_eq!(kept(&some(), max), [8, 9]);
}

#[test]
fn partial_and_future_snapshots_push_nothing_out() {
    let mut candidates = some();
    candidates[8].is_complete = false;
    candidates[6].is_complete = false;
    candidates.push(candidate(10, "2027-01-01T00:00:00Z"));
    let keep = Keep {
        last: 1,
        ..Keep::default()
    };
    assert_eq!(kept(&candidates, keep), [8, 9, 10]);
    candidates.iter_mut().for_each(|c| c.is_complete = false);
    assert_eq!(kept(&candidates, keep), [9, 10]);
}

#[test]
fn limits_hold_together_and_yield_to_floors_and_pins() {
    let day = 24 * 3600;
    let both = Keep {
        daily: 9,
        max: 4,
        max_age_secs: 10 * day,
        ..Keep::default()
    };
    assert_eq!(kept(&some(), both), [5, 6, 9]);
    assert_eq!(kept(&some(), Keep { max: 2, ..both }), [6, 9]);
    assert_eq!(
        kept(
            &some(),
            Keep {
                max: 2,
                min: 4,
                ..both
            }
        ),
        [6, 7, 8, 9]
    );
    let aged = Keep {
        max: 1,
        min_age_secs: 2 * day,
        ..both
    };
    assert_eq!(kept(&some(), aged), [7, 8, 9]);
    let only_limits = Keep {
        max: 3,
        ..Keep::default()
    };
    assert_eq!(kept(&some(), only_limits), [7, 8, 9]);
    let mut pinned = some();
    pinned[0].is_pinned = true;
    assert_eq!(kept(&pinned, only_limits), [1, 7, 8, 9]);
    let only_age = Keep {
        max_age_secs: 60,
        ..Keep::default()
    };
    assert_eq!(kept(&some(), only_age), [9], "the newest always stays");
}

#[test]
fn each_kept_one_says_what_keeps_it() {
    let keep = Keep {
        last: 1,
        daily: 2,
        min: 1,
        ..Keep::default()
    };
    let plan = plan_retention(&some(), &keep, "2026-03-10T00:00:00Z".parse().unwrap());
    let id = |number| SnapshotId::from_bytes([number; 16]);
    let newest = vec![KeptBy::Newest, KeptBy::Min, KeptBy::Last, KeptBy::Daily];
    assert_eq!(plan.kept, [(id(6), vec![KeptBy::Daily]), (id(9), newest)]);
    assert_eq!(plan.gone, [1, 2, 3, 4, 5, 7, 8].map(id));
}

/// Says whether one snapshot is kept, by the words of the documentation and by looking at all the
/// others each time.
fn model_keeps(all: &[Candidate], one: &Candidate, keep: &Keep, now: i64) -> bool {
    let age = |c: &Candidate| now - c.at.secs();
    let is_past = |c: &Candidate| age(c) >= -3600;
    let has_complete = all.iter().any(|c| is_past(c) && c.is_complete);
    let counts = |c: &Candidate| is_past(c) && (c.is_complete || !has_complete);
    let is_newer = |a: &Candidate, b: &Candidate| (a.at, a.id) > (b.at, b.id);
    let newer = || all.iter().filter(|c| counts(c) && is_newer(c, one));
    let within = |secs: u64| secs > 0 && age(one) < i64::try_from(secs).unwrap();
    if one.is_pinned || !is_past(one) || (counts(one) && newer().count() == 0) {
        return true;
    }
    if !one.is_complete && has_complete && !all.iter().any(|c| counts(c) && c.at >= one.at) {
        return true;
    }
    if (counts(one) && newer().count() < keep.min as usize) || within(keep.min_age_secs) {
        return true;
    }
    if keep.max_age_secs > 0 && !within(keep.max_age_secs) {
        return false;
    }
    let by_rule = |c: &Candidate| rule_keeps(all, c, keep, now, &counts);
    let rank = newer().filter(|c| by_rule(c)).count();
    by_rule(one) && (keep.max == 0 || !counts(one) || rank < keep.max as usize)
}

fn rule_keeps(
    all: &[Candidate],
    one: &Candidate,
    keep: &Keep,
    now: i64,
    counts: &dyn Fn(&Candidate) -> bool,
) -> bool {
    if !keep.has_rule() {
        return now - one.at.secs() >= -3600;
    }
    let is_within = now - one.at.secs() < i64::try_from(keep.within_secs).unwrap();
    if keep.within_secs > 0 && is_within && now - one.at.secs() >= -3600 {
        return true;
    }
    let newer: Vec<_> = all
        .iter()
        .filter(|c| counts(c) && (c.at, c.id) > (one.at, one.id))
        .collect();
    let spans: [(u32, Span); 5] = [
        (keep.hourly, |secs| secs / 3600),
        (keep.daily, |secs| secs / 86_400),
        (keep.weekly, |secs| (secs / 86_400 + 3) / 7),
        (keep.monthly, |secs| counted_month(secs / 86_400)),
        (keep.yearly, |secs| counted_month(secs / 86_400) / 12),
    ];
    let fills = |(number, span): (u32, Span)| {
        let own = span(one.at.secs());
        let others: BTreeSet<_> = newer.iter().map(|c| span(c.at.secs())).collect();
        !others.contains(&own) && others.len() < number as usize
    };
    counts(one) && (newer.len() < keep.last as usize || spans.into_iter().any(fills))
}

/// Counts months since 1970 one after another.
fn counted_month(mut days: i64) -> i64 {
    let mut month = 0;
    loop {
        let year = 1970 + month / 12;
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let length = match month % 12 {
            1 if is_leap => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        };
        if days < length {
            return month;
        }
        days -= length;
        month += 1;
    }
}

const NOW: i64 = 200_000_000;

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    // Near each other and years apart; a few ahead of the clock.
    let time = prop_oneof![
        3 => NOW - 400_000..NOW + 8000,
        2 => NOW - 10_000_000..NOW,
        1 => 0..NOW,
    ];
    let one = (time, any::<bool>(), proptest::bool::weighted(0.1));
    proptest::collection::vec(one, 1..40).prop_map(|rows| {
        let number = |(number, (secs, is_complete, is_pinned))| Candidate {
            id: SnapshotId::from_bytes([number; 16]),
            at: Instant::from_secs(secs),
            is_complete,
            is_pinned,
        };
        (0_u8..).zip(rows).map(number).collect()
    })
}

fn rules() -> impl Strategy<Value = Keep> {
    let number = || prop_oneof![2 => Just(0_u32), 3 => 1_u32..9];
    let age = || prop_oneof![2 => Just(0_u64), 1 => 1_u64..300_000, 1 => 1_u64..20_000_000];
    let spans = (number(), number(), number(), number(), number(), number());
    let limits = (number(), number(), age(), age(), age());
    (spans, limits).prop_map(|(spans, limits)| {
        let (last, hourly, daily, weekly, monthly, yearly) = spans;
        let (min, max, within_secs, min_age_secs, max_age_secs) = limits;
        Keep {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within_secs,
            min,
            min_age_secs,
            max,
            max_age_secs,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_is_what_the_documentation_says(all in candidates(), keep in rules()) {
        let plan = plan_retention(&all, &keep, Instant::from_secs(NOW));
        let kept: BTreeSet<_> = plan.kept.iter().map(|(id, _)| *id).collect();
        for one in &all {
            let is_kept = model_keeps(&all, one, &keep, NOW);
            prop_assert_eq!(kept.contains(&one.id), is_kept, "{:?} by {:?}", one, keep);
            prop_assert_eq!(plan.gone.contains(&one.id), !is_kept);
        }
        prop_assert!(plan.kept.iter().all(|(_, why)| !why.is_empty()));
        prop_assert!(!kept.is_empty());
        prop_assert!(!keep.keeps_all() || plan.gone.is_empty());
    }
}
