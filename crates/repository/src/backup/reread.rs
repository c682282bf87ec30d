//! Which unchanged files a run reads all the same, to find content that changed without a trace.

use edge::TreePath;
use sealing::TreeHasher;

/// A level that no tree has, so that the hash tells nothing of borders of pages.
const LEVEL: u8 = u8::MAX;

/// One share of all files: another in each run, until all had their turn.
pub(super) struct Reread {
    hasher: TreeHasher,
    /// The number of shares, and the one of this run; none when nothing is read again.
    shares: Option<(u64, u64)>,
}

impl Reread {
    /// Takes `percent` of all files, 0 for none; rounds count runs.
    pub(super) fn new(hasher: TreeHasher, percent: u8, round: u64) -> Self {
        let shares = match percent {
            0 => None,
            percent => {
                let number = 100_u64.div_ceil(percent.into());
                Some((number, round % number))
            }
        };
        Self { hasher, shares }
    }

    pub(super) fn selects(&self, path: &TreePath) -> bool {
        self.shares
            .is_some_and(|(number, own)| self.hasher.hash(LEVEL, path.key()) % number == own)
    }
}

#[cfg(test)]
mod tests {
    use sealing::{Keyring, ScheduleKey};

    use super::*;

    #[test]
    fn every_file_has_its_turn_once() {
        let keyring = Keyring::first(&ScheduleKey::from_bytes([1; 32]), "");
        let paths: Vec<_> = (0..500)
            .map(|number| TreePath::parse(format!("a/{number}").as_bytes()).unwrap())
            .collect();
        for (percent, runs) in [(100, 1), (10, 10), (30, 4), (1, 100)] {
            for path in &paths {
                let turns = (7..7 + runs)
                    .filter(|round| {
                        Reread::new(keyring.tree_hasher(), percent, *round).selects(path)
                    })
                    .count();
                assert_eq!(turns, 1, "{percent} %");
            }
        }
        let none = Reread::new(keyring.tree_hasher(), 0, 3);
        assert!(!paths.iter().any(|path| none.selects(path)));
    }
}
