//! The state of the model and its steps: two writers and two deletions, one chunk, six packs.

#![expect(clippy::indexing_slicing, reason = "a test ends at the first surprise")]
#![expect(
    clippy::too_many_lines,
    reason = "the steps of a party stand one below the other"
)]

/// Sets of packs, snapshots or parties, one bit each.
pub(crate) type Set = u8;

/// The parties: two writers, then two deletions.
const WRITERS: [usize; 2] = [0, 1];
/// The pack that a party may store; the two packs before them are there at first.
const OWN_PACK: [Set; 4] = [0b100, 0b1000, 0b1_0000, 0b10_0000];
/// The snapshot that is there at first; those of the writers follow.
const OLD_SNAPSHOT: Set = 1;

const IDLE: u8 = 255;
const CUT: u8 = 254;

/// The rules; all of them hold in the program.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Packs that a session may rely on are not deleted.
    pub(crate) waits: bool,
    /// A writer relies on nothing that it has seen condemned.
    pub(crate) avoids: bool,
    /// Who looked before it said that it is at work is as if it were not there.
    pub(crate) says_first: bool,
    /// That a session is given up is stored before snapshots are listed.
    pub(crate) revokes: bool,
    /// A writer looks, after its snapshot is there, whether it was given up.
    pub(crate) confirms: bool,
    /// What is needed of condemned packs at last is moved, not deleted.
    pub(crate) marks_again: bool,
    /// Two deletions wait for each other.
    pub(crate) deletes_alone: bool,
    /// Listings show everything at once; otherwise what is young may be missing.
    pub(crate) is_fresh: bool,
    /// Packs are deleted only when their decision is old.
    pub(crate) has_grace: bool,
}

pub(crate) const ALL: Rules = Rules {
    waits: true,
    avoids: true,
    says_first: true,
    revokes: true,
    confirms: true,
    marks_again: true,
    deletes_alone: true,
    is_fresh: true,
    has_grace: false,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Writer {
    at: u8,
    seen: Set,
    avoided: Set,
    /// Where the index said that the chunk is.
    view: Set,
    /// What segments name that came after it had read the index.
    index_since: Set,
    gone: Set,
    /// Epochs since it began, where time counts.
    age: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Deletion {
    at: u8,
    stored: Set,
    condemned: Set,
    blocked: Set,
    is_alone: bool,
    to_revoke: Set,
    /// Where the index said that the chunk is, and the one place of these that it found.
    index: Set,
    found: Set,
    index_since: Set,
    /// The place, when somebody needs it.
    place: Set,
    free: Set,
    /// What is stored already of what would be moved.
    taken: Set,
    passes: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    stored: Set,
    index: Set,
    pub(crate) condemned: Set,
    pub(crate) snapshots: Set,
    confirmed: Set,
    sessions: Set,
    seen: [Set; 4],
    revoked: Set,
    writers: [Writer; 2],
    deletions: [Deletion; 2],
    /// Young objects, where time counts; age of the decision.
    young_sessions: Set,
    young_snapshots: Set,
    young_condemned: Set,
    decision_age: u8,
}

/// Takes a step of a deletion: what it changes, and where it goes on.
type Go<'a> = dyn FnMut(&dyn Fn(&mut State, &mut Deletion), u8) + 'a;
const fn bit(number: usize) -> Set {
    1 << number
}

fn each(set: Set) -> impl Iterator<Item = Set> {
    (0..8).map(bit).filter(move |one| set & one != 0)
}

/// All sets that a listing may show.
fn listings(there: Set, young: Set, is_fresh: bool) -> Vec<Set> {
    if is_fresh || young & there == 0 {
        return vec![there];
    }
    let young = young & there;
    let hidden = (0..=young).filter(|set| set & !young == 0);
    hidden.map(|hidden| there & !hidden).collect()
}

impl State {
    pub(crate) fn first(packs: Set, writers: usize, deletions: usize) -> Self {
        let mut state = Self {
            stored: packs,
            index: packs,
            condemned: 0,
            snapshots: OLD_SNAPSHOT,
            confirmed: OLD_SNAPSHOT,
            sessions: 0,
            seen: [0; 4],
            revoked: 0,
            writers: [Writer::default(); 2],
            deletions: [Deletion::default(); 2],
            young_sessions: 0,
            young_snapshots: 0,
            young_condemned: 0,
            decision_age: 0,
        };
        state
            .writers
            .iter_mut()
            .skip(writers)
            .for_each(|w| w.at = IDLE);
        state
            .deletions
            .iter_mut()
            .skip(deletions)
            .for_each(|d| d.at = IDLE);
        state
    }

    /// Every snapshot that a reader may count on has its chunk where the index says.
    pub(crate) fn is_sound(&self) -> bool {
        let counted = each(self.snapshots).any(|snapshot| {
            let is_unsure = WRITERS
                .iter()
                .any(|w| snapshot == bit(w + 1) && self.revoked & bit(*w) != 0);
            !is_unsure || self.confirmed & snapshot != 0
        });
        !counted || self.stored & self.index != 0
    }

    /// A segment of a party names packs.
    fn name(&mut self, party: usize, packs: Set) {
        self.replace(party, 0, packs);
    }

    /// A segment of a party that names packs takes the place of those that it had read.
    fn replace(&mut self, party: usize, read: Set, packs: Set) {
        let since = match party {
            0 | 1 => self.writers[party].index_since,
            _ => self.deletions[party - 2].index_since,
        };
        self.index = self.index & !(read & !since) | packs;
        for (other, writer) in self.writers.iter_mut().enumerate() {
            writer.index_since |= if other == party { 0 } else { packs };
        }
        for (other, deletion) in self.deletions.iter_mut().enumerate() {
            deletion.index_since |= if other + 2 == party { 0 } else { packs };
        }
    }

    fn begin(&mut self, party: usize, seen: Set) {
        self.sessions |= bit(party);
        self.seen[party] = seen;
        self.young_sessions |= bit(party);
    }

    fn end(&mut self, party: usize) {
        self.sessions &= !bit(party);
        // What begins again is another session.
        self.deletions
            .iter_mut()
            .for_each(|d| d.to_revoke &= !bit(party));
    }

    fn write(&self, w: usize, rules: Rules, next: &mut Vec<Self>) {
        let writer = self.writers[w];
        let snapshot = bit(w + 1);
        let mut go = |change: &dyn Fn(&mut Self, &mut Writer), at: u8| {
            let mut state = *self;
            let mut own = state.writers[w];
            change(&mut state, &mut own);
            own.at = at;
            state.writers[w] = own;
            next.push(state);
        };
        let condemned = || listings(self.condemned, self.young_condemned, rules.is_fresh);
        match writer.at {
            0 => condemned()
                .into_iter()
                .for_each(|seen| go(&|_, own| own.seen = seen, 1)),
            1 if rules.says_first => go(&|state, own| state.begin(w, own.seen), 2),
            1 => go(&|_, _| {}, 2),
            2 => condemned().into_iter().for_each(|list| {
                let avoided = if rules.avoids { writer.seen | list } else { 0 };
                go(&|_, own| own.avoided = avoided, 3);
            }),
            3 => go(
                &|state, own| {
                    own.view = state.index;
                    own.index_since = 0;
                },
                4,
            ),
            4 => {
                // Strays are taken up. What the index names and is gone is as if it were not named.
                let strays = self.stored & !writer.avoided & !writer.view;
                let has_place = writer.view & self.stored & !writer.avoided != 0;
                let take_up = |state: &mut Self, own: &mut Writer| {
                    state.name(w, strays);
                    own.gone = writer.view & !state.stored;
                    own.view |= strays;
                };
                go(&take_up, if has_place || strays != 0 { 7 } else { 5 });
            }
            5 => go(&|state, _| state.stored |= OWN_PACK[w], 6),
            6 => go(
                &|state, own| {
                    state.name(w, OWN_PACK[w]);
                    own.view |= OWN_PACK[w];
                },
                7,
            ),
            7 => {
                go(&|_, _| {}, 8);
                // A writer may write anew what it knows of the index, with all places of each chunk.
                go(&|state, own| state.replace(w, own.view, own.view), 8);
                go(
                    &|state, own| state.replace(w, own.view, own.view & !own.gone),
                    8,
                );
            }
            8 if !rules.says_first => go(&|state, own| state.begin(w, own.seen), 9),
            8 => go(&|_, _| {}, 9),
            9 => go(
                &|state, _| {
                    state.snapshots |= snapshot;
                    state.young_snapshots |= snapshot;
                },
                10,
            ),
            10 if self.sessions & bit(w) != 0 || !rules.confirms => {
                go(&|state, _| state.confirmed |= snapshot, 15);
            }
            10 => go(&|_, _| {}, 11),
            11 => go(&|state, own| own.avoided = state.condemned, 12),
            12 => go(&|state, own| own.view = state.index, 13),
            13 if self.stored & writer.view & !writer.avoided != 0 => {
                go(&|state, _| state.confirmed |= snapshot, 15);
            }
            13 => go(&|_, _| {}, 14),
            14 => go(&|state, _| state.snapshots &= !snapshot, 15),
            15 => go(&|state, _| state.end(w), IDLE),
            _ => {}
        }
        if (1..=15).contains(&writer.at) {
            go(&|_, _| {}, CUT);
        }
    }

    fn delete(&self, number: usize, (rules, passes): (Rules, u8), next: &mut Vec<Self>) {
        let party = number + 2;
        let own = self.deletions[number];
        let mut go = |change: &dyn Fn(&mut Self, &mut Deletion), at: u8| {
            let mut state = *self;
            let mut deletion = own;
            change(&mut state, &mut deletion);
            deletion.at = at;
            // What it named itself while it went on is known to the others only.
            state.deletions[number] = deletion;
            next.push(state);
        };
        match own.at {
            0 => go(&|state, own| own.stored = state.stored, 1),
            1 => go(&|state, _| state.begin(party, 0), 2),
            2 => {
                let there = self.sessions & !bit(party);
                for shown in listings(there, self.young_sessions, rules.is_fresh) {
                    for list in listings(self.condemned, self.young_condemned, rules.is_fresh) {
                        // Any run may have been silent for too long, and come back; a deletion asks
                        // before it deletes. Where time counts, none is.
                        let cut = (2..4).filter(|party| self.deletions[party - 2].at == CUT);
                        let may_die = shown & (0b11 | cut.map(bit).sum::<Set>());
                        for dead in (0..=may_die).filter(|set| set & !may_die == 0) {
                            if dead == 0 || rules.is_fresh {
                                let look = self.look(own, (shown, list, dead), rules);
                                go(&|_, own| *own = look, 3);
                            }
                        }
                    }
                }
            }
            3 if own.to_revoke == 0 || !rules.revokes => go(&|_, _| {}, 5),
            3 => go(&|state, own| state.revoked |= own.to_revoke, 4),
            4 => go(
                &|state, own| each(own.to_revoke).for_each(|one| state.sessions &= !one),
                5,
            ),
            5 => go(
                &|state, own| {
                    own.index = state.index;
                    own.index_since = 0;
                },
                16,
            ),
            16 => {
                // What was read and is gone by now is as if it were not named.
                let held = own.index & self.stored;
                let good = held & !own.condemned;
                let mut places: Vec<_> = each(if good == 0 { held } else { good }).collect();
                places.resize(places.len().max(1), 0);
                for place in places {
                    go(&|_, own| own.found = place, 6);
                }
            }
            6 => self.mark(own, rules, &mut go),
            7 => {
                let changes = own.free & own.index != 0;
                go(
                    &|state, own| {
                        if changes {
                            state.replace(party, own.index, own.found & !own.free);
                        }
                    },
                    8,
                );
            }
            8 => go(&|state, own| state.stored &= !own.free, 9),
            9 => go(&|state, own| state.condemned &= !own.free, 10),
            10 => {
                let dead = own.index & own.stored & !own.condemned & !own.place;
                go(
                    &|state, own| {
                        if own.is_alone && dead != 0 {
                            state.condemn(dead);
                        }
                    },
                    11,
                );
                // A second place of what is to be moved is looked at first.
                for spare in each(dead).filter(|_| own.is_alone && own.place != 0) {
                    go(
                        &|state, own| {
                            own.taken = spare;
                            if dead != spare {
                                state.condemn(dead & !spare);
                            }
                        },
                        11,
                    );
                }
            }
            11 => {
                // What is needed and condemned is moved; what is needed may be, too.
                let is_doomed = own.place & own.condemned != 0;
                let may_move = is_doomed || own.is_alone && own.place != 0;
                if may_move && self.stored & own.place != 0 && self.stored & OWN_PACK[party] == 0 {
                    go(&|state, _| state.stored |= OWN_PACK[party], 12);
                }
                // It counts as moved when it is read whole elsewhere.
                let strays = own.stored & !own.index & !own.condemned;
                for taken in each((strays | own.taken) & self.stored) {
                    if own.is_alone && own.place != 0 {
                        go(&|_, own| own.taken = taken, 17);
                    }
                }
                go(&|_, _| {}, 14);
            }
            17 => go(&|state, own| state.name(party, own.taken), 13),
            12 => go(&|state, _| state.name(party, OWN_PACK[party]), 13),
            13 => go(
                &|state, own| {
                    if own.place & own.condemned == 0 {
                        state.condemn(own.place);
                    }
                },
                14,
            ),
            14 => {
                let strays = own.stored & !own.index & !own.condemned & !own.taken;
                go(
                    &|state, own| {
                        if own.is_alone && strays != 0 {
                            state.condemn(strays);
                        }
                    },
                    15,
                );
            }
            15 => {
                let at = if own.passes + 1 < passes { 0 } else { IDLE };
                go(
                    &|state, own| {
                        state.end(party);
                        *own = Deletion {
                            passes: own.passes + 1,
                            ..Deletion::default()
                        };
                    },
                    at,
                );
            }
            _ => {}
        }
        if (2..=17).contains(&own.at) {
            go(&|_, _| {}, CUT);
        }
    }

    fn look(&self, own: Deletion, (shown, list, dead): (Set, Set, Set), rules: Rules) -> Deletion {
        let live = shown & !dead;
        let waited: Vec<usize> = (0..4)
            .filter(|party| live & bit(*party) != 0)
            .filter(|party| {
                if *party < 2 {
                    rules.waits
                } else {
                    rules.deletes_alone
                }
            })
            .collect();
        let blocks = |one: &Set| waited.iter().any(|party| self.seen[*party] & one == 0);
        let is_young = rules.has_grace && self.decision_age < 3;
        Deletion {
            condemned: list,
            blocked: if is_young {
                list
            } else {
                each(list).filter(blocks).sum()
            },
            is_alone: waited.is_empty(),
            to_revoke: dead,
            ..own
        }
    }

    /// Finds where what snapshots need is, and what of the condemned packs is free.
    fn mark(&self, own: Deletion, rules: Rules, go: &mut Go<'_>) {
        // It may be younger than the index that was read.
        let is_held = self.index & self.stored != 0;
        for listed in listings(self.snapshots, self.young_snapshots, rules.is_fresh) {
            // Of a run that was given up and cut, a snapshot that lacks something is taken back.
            let unsure: Set = WRITERS
                .iter()
                .filter(|w| self.revoked & bit(**w) != 0 && self.writers[**w].at >= CUT)
                .map(|w| bit(w + 1))
                .sum();
            let taken_back = if is_held { 0 } else { listed & unsure };
            let needs = listed & !taken_back != 0 && (rules.marks_again || own.condemned == 0);
            if needs && own.found == 0 {
                // What is needed is nowhere: nothing is done.
                go(&|state, _| state.snapshots &= !taken_back, 15);
                continue;
            }
            let place = if needs { own.found } else { 0 };
            go(
                &|state, own| {
                    state.snapshots &= !taken_back;
                    own.place = place;
                    // Of several condemned packs that hold it, all stay.
                    let kept = if place & own.condemned == 0 {
                        place
                    } else {
                        own.index
                    };
                    own.free = own.condemned & !own.blocked & !kept;
                },
                7,
            );
        }
    }

    fn condemn(&mut self, packs: Set) {
        self.condemned |= packs;
        self.young_condemned |= packs;
        self.decision_age = 0;
    }

    /// Time goes on: what was young is shown by every listing. No run takes longer than two such
    /// steps, and the grace is three.
    fn tick(&self, next: &mut Vec<Self>) {
        let is_running = |w: &&Writer| w.at != IDLE && w.at != CUT && w.at > 0;
        if self.writers.iter().filter(is_running).any(|w| w.age > 0) {
            return;
        }
        let mut state = *self;
        for writer in state.writers.iter_mut().filter(|w| w.at > 0 && w.at < CUT) {
            writer.age = 1;
        }
        state.young_sessions = 0;
        state.young_snapshots = 0;
        state.young_condemned = 0;
        state.decision_age = (state.decision_age + 1).min(3);
        next.push(state);
    }

    /// Forgets what no later step of a party looks at.
    pub(crate) fn tidy(&mut self) {
        for writer in &mut self.writers {
            let at = writer.at;
            let is_at = |range: std::ops::RangeInclusive<u8>| range.contains(&at);
            let kept = |set: Set, is_kept: bool| if is_kept { set } else { 0 };
            writer.seen = kept(writer.seen, is_at(1..=8));
            writer.avoided = kept(writer.avoided, is_at(3..=4) || is_at(12..=13));
            writer.view = kept(writer.view, is_at(4..=7) || at == 13);
            writer.gone = kept(writer.gone, is_at(5..=7));
            writer.index_since = kept(writer.index_since, is_at(4..=7));
        }
        for deletion in &mut self.deletions {
            let at = match deletion.at {
                16 => 5,
                17 => 12,
                at => at,
            };
            let kept = |set: Set, last: u8| if at <= last { set } else { 0 };
            deletion.stored = kept(deletion.stored, 14);
            deletion.condemned = kept(deletion.condemned, 14);
            deletion.blocked = kept(deletion.blocked, 6);
            deletion.is_alone &= at <= 14;
            deletion.to_revoke = kept(deletion.to_revoke, 4);
            deletion.index = kept(deletion.index, 14);
            deletion.found = kept(deletion.found, 7);
            let has_read = deletion.at == 16 || (6..=7).contains(&at);
            deletion.index_since = if has_read { deletion.index_since } else { 0 };
            deletion.place = kept(deletion.place, 13);
            deletion.taken = kept(deletion.taken, 14);
            deletion.free = kept(deletion.free, 9);
        }
        for party in 0..4 {
            if self.sessions & bit(party) == 0 {
                self.seen[party] = 0;
            }
        }
    }

    pub(crate) fn successors(&self, rules: Rules, passes: u8) -> Vec<Self> {
        let mut next = Vec::new();
        WRITERS
            .iter()
            .for_each(|w| self.write(*w, rules, &mut next));
        (0..2).for_each(|d| self.delete(d, (rules, passes), &mut next));
        // Retention lets the old snapshot go at some time.
        if self.snapshots & OLD_SNAPSHOT != 0 {
            let mut state = *self;
            state.snapshots &= !OLD_SNAPSHOT;
            next.push(state);
        }
        if rules.has_grace {
            self.tick(&mut next);
        }
        next
    }
}
