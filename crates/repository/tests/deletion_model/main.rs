//! The rules by which writers and deletion share a domain (`docs/format.md`, "Sessions" and
//! "Deletion"), as a model that is explored whole: every order of every step of two writers and a
//! deletion, or of a writer and two deletions, each of which may be cut at every step, and each
//! session of which may be given up at any time, for no rule may depend on a clock.
//!
//! One chunk stands for all. Six packs may hold it: one that is there at first (and sometimes a
//! second copy), one that each writer may store, one that each deletion may move it to. A model
//! that cannot fail proves nothing: each rule is also taken away, and then a loss must be found.

mod state;

use std::collections::HashSet;

use state::{ALL, Rules, Set, State};

/// Takes a rule away.
type Without = fn(&mut Rules);

/// Explores all that can happen; gives the number of states, or `None` when something is lost.
fn explore(first: State, rules: Rules, passes: u8) -> Option<usize> {
    let mut known = HashSet::from([first]);
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        if !state.is_sound() {
            return None;
        }
        for mut next in state.successors(rules, passes) {
            next.tidy();
            if known.insert(next) {
                open.push(next);
            }
        }
    }
    Some(known.len())
}

const ONE_PACK: Set = 0b1;
const TWO_COPIES: Set = 0b11;

/// The large cases take minutes and gigabytes: only on request.
#[expect(
    clippy::disallowed_methods,
    reason = "how much is explored is chosen outside"
)]
fn is_thorough() -> bool {
    std::env::var_os("BACKSTAY_MODEL_WHOLE").is_some()
}

#[test]
fn a_writer_and_a_deletion_that_comes_again_lose_nothing() {
    for packs in [ONE_PACK, TWO_COPIES] {
        let states = explore(State::first(packs, 1, 1), ALL, 2).unwrap();
        assert!(states > 10_000, "{states}");
    }
}

#[test]
fn two_writers_and_a_deletion_lose_nothing_whatever_is_cut() {
    let states = explore(State::first(ONE_PACK, 2, 1), ALL, 1).unwrap();
    assert!(states > 100_000, "{states}");
    if is_thorough() {
        explore(State::first(TWO_COPIES, 2, 1), ALL, 1).unwrap();
    }
}

#[test]
fn two_writers_beside_what_is_condemned_lose_nothing() {
    // Nobody needs the pack, and the decision about it was made before.
    let mut first = State::first(ONE_PACK, 2, 1);
    first.condemned = ONE_PACK;
    first.snapshots = 0;
    let states = explore(first, ALL, 1).unwrap();
    assert!(states > 100_000, "{states}");
}

#[test]
fn two_deletions_lose_nothing() {
    let states = explore(State::first(TWO_COPIES, 0, 2), ALL, 2).unwrap();
    assert!(states > 10_000, "{states}");
    if is_thorough() {
        for packs in [ONE_PACK, TWO_COPIES] {
            explore(State::first(packs, 1, 2), ALL, 1).unwrap();
        }
    }
}

#[test]
fn late_listings_lose_nothing_within_the_grace_and_something_without() {
    let late = Rules {
        is_fresh: false,
        ..ALL
    };
    let first = State::first(ONE_PACK, 1, 1);
    assert_eq!(explore(first, late, 2), None);
    let patient = Rules {
        has_grace: true,
        ..late
    };
    let states = explore(first, patient, 2).unwrap();
    assert!(states > 10_000, "{states}");
}

#[test]
fn without_any_one_of_the_rules_something_is_lost() {
    let without: [(&str, Without); 6] = [
        ("deletions wait for sessions", |rules| rules.waits = false),
        ("writers avoid what is condemned", |rules| {
            rules.avoids = false
        }),
        ("a session begins before it looks", |rules| {
            rules.says_first = false
        }),
        ("who is given up can know it", |rules| rules.revokes = false),
        ("a writer asks whether it was given up", |rules| {
            rules.confirms = false
        }),
        ("what is needed is looked up again", |rules| {
            rules.marks_again = false
        }),
    ];
    for (rule, take_away) in without {
        let mut rules = ALL;
        take_away(&mut rules);
        let is_lost = |packs| explore(State::first(packs, 1, 1), rules, 3).is_none();
        assert!(is_lost(ONE_PACK), "{rule}: not needed?");
    }
    let rules = Rules {
        deletes_alone: false,
        ..ALL
    };
    assert_eq!(explore(State::first(TWO_COPIES, 0, 2), rules, 2), None);
}
