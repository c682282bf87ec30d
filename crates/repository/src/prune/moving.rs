//! Moving what is needed into new packs, turn by turn, and what becomes of the old ones.

use model::{ByteCount, Instant};

use super::mark::{Bits, Usage};
use super::repack::{self, Moved, Needed, Repack};
use super::{PruneOptions, Pruning};
use crate::condemned::{CONDEMNED_COUNT_MAX, PackName};
use crate::error::RepositoryError;
use crate::index::Index;
use crate::layout::ObjectHash;

/// What was moved, and is named by the index by now.
struct Emptied {
    /// Old packs, of which nothing is needed any more.
    packs: Vec<PackName>,
    /// The decisions to delete them.
    decisions: Vec<ObjectHash>,
    /// Where everything is now, when old ones may go at once.
    moved: Index,
}

impl Pruning<'_> {
    /// Moves what is needed out of packs that are to go, and out of packs that are mostly not
    /// needed, if asked.
    pub(super) fn move_needed(
        &mut self,
        mut index: Index,
        (bits, usage): (Bits, Usage),
    ) -> Result<(), RepositoryError> {
        let begun = self.options.clock.now();
        let mut ordinals = repack::rescued(&index, &usage, &self.stored, &self.condemned());
        let limits = self.limits();
        if let Some(limits) = limits {
            ordinals.extend(repack::choose(&index, &usage, limits));
        }
        if !ordinals.is_empty() {
            let limits = limits.unwrap_or_default();
            let ends = begun.plus_secs(limits.secs_max.into());
            let known = (&mut index, &bits, &usage);
            let taken = self.take_up(known, &mut ordinals, (limits, ends))?;
            let needed = Needed {
                bits: &bits,
                usage: &usage,
                taken: &taken,
            };
            let moved = self.move_in_turns(&mut index, needed, (ordinals, limits, begun))?;
            drop((bits, usage, taken));
            self.delete_emptied(&mut index, moved)?;
        }
        if self.options.strays && self.beside.live.is_empty() {
            self.condemn_strays(&index)?;
        }
        Ok(())
    }

    /// Moves some packs after others: when it is cut, only what was moved since the last turn is
    /// moved again.
    fn move_in_turns(
        &mut self,
        index: &mut Index,
        needed: Needed<'_>,
        (ordinals, limits, begun): (Vec<u32>, Repack, Instant),
    ) -> Result<Emptied, RepositoryError> {
        let mut emptied = Emptied {
            packs: Vec::new(),
            decisions: Vec::new(),
            moved: Index::new(self.domain.scratch().cloned()),
        };
        if self.options.grace_secs == 0 {
            emptied.moved.add_from(&needed.taken.places, &|_| true)?;
        }
        let mut left = ordinals.into_iter().peekable();
        while left.peek().is_some() && !self.report.is_cut_short {
            let mut bytes = 0;
            let mut turn = Vec::new();
            while bytes < limits.turn_bytes.max(1)
                && let Some(ordinal) = left.next()
            {
                bytes += index.pack(ordinal).map_or(0, |pack| pack.size);
                turn.push(ordinal);
            }
            let spent_secs = self.options.clock.now().secs() - begun.secs();
            let spent_bytes = self.report.moved_bytes.get();
            let limits = Repack {
                bytes_max: limits.bytes_max.saturating_sub(spent_bytes),
                secs_max: limits
                    .secs_max
                    .saturating_sub(u32::try_from(spent_secs).unwrap_or(0)),
                ..limits
            };
            let sign = self.sign();
            let options = PruneOptions {
                monitor: &sign,
                ..*self.options
            };
            let moved = repack::repack(self.domain, index, needed, &options, (turn, limits));
            self.publish_moved(index, moved, &mut emptied)?;
        }
        Ok(emptied)
    }

    /// New packs come first, then the index names them, then the old ones are condemned: a cut
    /// between leaves chunks that are stored twice.
    fn publish_moved(
        &mut self,
        index: &mut Index,
        moved: Moved,
        emptied: &mut Emptied,
    ) -> Result<(), RepositoryError> {
        self.report.unreadable_packs += moved.unreadable;
        self.report.is_cut_short |= moved.is_cut_short;
        self.report.moved_bytes += ByteCount::new(moved.bytes());
        self.report.emptied_packs += moved.emptied.len() as u64;
        let waste = self.report.waste_bytes.get().saturating_sub(moved.waste);
        self.report.waste_bytes = ByteCount::new(waste);
        let error = moved.error.map_or(Ok(()), Err);
        let mut new = moved.new;
        if !new.packs().is_empty() {
            new.sort()?;
            self.go_on()?;
            let written = self.domain.write_index(&new, &[], self.options.entropy)?;
            index.segments.extend(written.segments);
        }
        let condemned = self.condemned();
        let is_new = |pack: &&PackName| !condemned.contains(&pack.0);
        let old: Vec<_> = moved.emptied.iter().filter(is_new).copied().collect();
        for packs in old.chunks(CONDEMNED_COUNT_MAX) {
            emptied.decisions.push(self.condemn(packs)?);
        }
        emptied.packs.extend(old);
        if self.options.grace_secs == 0 {
            emptied.moved.add_from(&new, &|_| true)?;
        }
        error
    }

    /// Deletes the packs that were emptied, when nobody has to be waited for.
    fn delete_emptied(
        &mut self,
        index: &mut Index,
        mut emptied: Emptied,
    ) -> Result<(), RepositoryError> {
        if emptied.decisions.is_empty() || !self.may_delete_at_once()? {
            return Ok(());
        }
        index.remove_packs(&Index::among(&emptied.packs), &mut |_, _| {})?;
        emptied.moved.sort()?;
        index.add_from(&emptied.moved, &|_| true)?;
        index.sort()?;
        self.replace_segments(index)?;
        self.delete_stored(&emptied.packs)?;
        self.carried_out(&emptied.decisions, &emptied.packs)
    }
}
