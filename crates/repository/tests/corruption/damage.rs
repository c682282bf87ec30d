//! What can become of stored objects.

use std::fmt;

use edge::ObjectName;

use super::rich::{Objects, Rich};
use crate::common::dice::Dice;

pub(crate) const KINDS: &[&str] = &[
    "repository",
    "slot",
    "data pack",
    "metadata pack",
    "index segment",
    "snapshot",
    "condemned",
    "trash",
    "pin",
    "session",
    "revoked",
    "checkpoint",
    "damage note",
];

/// What no snapshot needs, and nobody but a person may miss: damaged, it keeps nobody from work.
pub(crate) fn is_short_lived(kind: &str) -> bool {
    let kinds = [
        "condemned",
        "trash",
        "pin",
        "session",
        "revoked",
        "checkpoint",
        "damage note",
    ];
    kinds.contains(&kind)
}

pub(crate) fn kind_of(name: &str) -> &'static str {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["repository"] => "repository",
        ["k", ..] => "slot",
        ["d", _, "p", ..] => "data pack",
        ["d", _, "m", ..] => "metadata pack",
        ["d", _, "i", ..] => "index segment",
        ["d", _, "s", ..] => "snapshot",
        ["w", _, last] => match last.split('-').next() {
            Some("condemned") => "condemned",
            Some("trash") => "trash",
            Some("pin") => "pin",
            Some("session") => "session",
            Some("revoked") => "revoked",
            Some("checkpoint") => "checkpoint",
            Some("damaged") => "damage note",
            _ => "other",
        },
        _ => "other",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    FlipOne,
    FlipSome,
    Cut,
    Empty,
    Grow,
    Overwrite,
    Shift,
    Missing,
    Swap,
    SwapAmongKinds,
    Duplicate,
    Misplace,
    Stale,
    StaleInPlace,
    Foreign,
}

pub(crate) const CHANGES: &[How] = &[
    How::FlipOne,
    How::FlipSome,
    How::Cut,
    How::Empty,
    How::Grow,
    How::Overwrite,
    How::Shift,
    How::Missing,
    How::Swap,
    How::SwapAmongKinds,
    How::Duplicate,
    How::Misplace,
    How::Stale,
    How::StaleInPlace,
    How::Foreign,
];

/// What was done to which objects.
pub(crate) struct Change {
    pub(crate) how: How,
    pub(crate) names: Vec<ObjectName>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(ObjectName::as_str).collect();
        write!(f, "{:?} {}", self.how, names.join(" and "))
    }
}

impl Change {
    pub(crate) fn is_short_lived(&self) -> bool {
        let mut names = self.names.iter();
        names.all(|name| is_short_lived(kind_of(name.as_str())))
    }

    pub(crate) fn touches(&self, kind: &str) -> bool {
        self.names.iter().any(|name| kind_of(name.as_str()) == kind)
    }
}

/// Changes an object of a kind, if there still is one.
pub(crate) fn apply(
    rich: &Rich,
    objects: &mut Objects,
    (kind, how): (&str, How),
    dice: &mut Dice,
) -> Change {
    let own: Vec<ObjectName> = objects
        .keys()
        .filter(|name| kind_of(name.as_str()) == kind)
        .cloned()
        .collect();
    if own.is_empty() {
        return Change {
            how,
            names: Vec::new(),
        };
    }
    let name = dice.pick(&own).clone();
    let all: Vec<ObjectName> = objects.keys().cloned().collect();
    let mut names = vec![name.clone()];
    match how {
        How::Missing => drop(objects.remove(&name)),
        How::Swap => names.push(swap(objects, &name, dice.pick(&own))),
        How::SwapAmongKinds => names.push(swap(objects, &name, dice.pick(&all))),
        How::Duplicate => {
            let other = dice.pick(&own).clone();
            objects.insert(other.clone(), objects[&name].clone());
            names.push(other);
        }
        How::Misplace => names.push(misplace(objects, &name, dice.pick(&all))),
        How::Stale => names.extend(bring_back(rich, objects, kind, dice)),
        How::StaleInPlace => {
            let (_, bytes) = dice.pick(&rich.stale);
            objects.insert(name, bytes.clone());
        }
        How::Foreign => {
            let alike: Vec<_> = rich
                .foreign
                .iter()
                .filter(|(name, _)| kind_of(name.as_str()) == kind)
                .collect();
            let bytes = if alike.is_empty() {
                &dice.pick(&rich.foreign).1
            } else {
                &dice.pick(&alike).1
            };
            objects.insert(name, bytes.clone());
        }
        _ => change_bytes(objects.get_mut(&name).unwrap(), how, dice),
    }
    Change { how, names }
}

fn change_bytes(bytes: &mut Vec<u8>, how: How, dice: &mut Dice) {
    if bytes.is_empty() {
        return;
    }
    match how {
        How::FlipOne => flip(bytes, dice),
        How::FlipSome => (0..=dice.below(8)).for_each(|_| flip(bytes, dice)),
        How::Cut => bytes.truncate(dice.below(bytes.len())),
        How::Empty => bytes.clear(),
        How::Grow => (0..=dice.below(300)).for_each(|_| bytes.push(dice.next().to_le_bytes()[0])),
        How::Overwrite => {
            let from = dice.below(bytes.len());
            let to = (from + 1 + dice.below(512)).min(bytes.len());
            let fill = *dice.pick(&[0, 0xff, 0x20]);
            bytes[from..to].fill(fill);
        }
        _ => {
            let by = dice.below(bytes.len());
            bytes.rotate_left(by);
        }
    }
}

fn flip(bytes: &mut [u8], dice: &mut Dice) {
    // Headers, trailers and lengths are at the ends: half of all bits are there.
    let at = match dice.below(4) {
        0 => dice.below(bytes.len().min(128)),
        1 => bytes.len() - 1 - dice.below(bytes.len().min(256)),
        _ => dice.below(bytes.len()),
    };
    bytes[at] ^= 1 << dice.below(8);
}

fn swap(objects: &mut Objects, one: &ObjectName, other: &ObjectName) -> ObjectName {
    let (a, b) = (objects[one].clone(), objects[other].clone());
    objects.insert(one.clone(), b);
    objects.insert(other.clone(), a);
    other.clone()
}

/// Stores an object under the last part of its name, but where another one is.
fn misplace(objects: &mut Objects, name: &ObjectName, other: &ObjectName) -> ObjectName {
    let last = name.as_str().rsplit('/').next().unwrap();
    let place = match other.as_str().rsplit_once('/') {
        Some((place, _)) => format!("{place}/{last}"),
        None => last.to_owned(),
    };
    let place = ObjectName::new(place).unwrap();
    objects.insert(place.clone(), objects[name].clone());
    place
}

/// Brings back something that was there before.
fn bring_back(
    rich: &Rich,
    objects: &mut Objects,
    kind: &str,
    dice: &mut Dice,
) -> Option<ObjectName> {
    let alike: Vec<_> = rich
        .stale
        .iter()
        .filter(|(name, _)| kind_of(name.as_str()) == kind)
        .collect();
    let (name, bytes) = if alike.is_empty() {
        dice.pick(&rich.stale)
    } else {
        dice.pick(&alike)
    };
    objects.insert(name.clone(), bytes.clone());
    Some(name.clone())
}
