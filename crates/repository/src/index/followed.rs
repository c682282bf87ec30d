//! The index of a reader that takes long: packs that it names may be moved meanwhile. Where one is
//! gone, the index is read again, without it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sealing::ChunkId;

use super::{Doomed, Index, Locate, PackInfo, Record};
use crate::domain::Domain;
use crate::error::ReadError;
use crate::layout::ObjectHash;

/// Times that the index of one reader is read again. Each pack that is gone counts once at most,
/// and one that the index read last does not name does not count.
const TIMES_MAX: usize = 16;

/// An index, and the one that came after it.
pub(crate) struct Followed<I> {
    pub(crate) index: I,
    domain: Domain,
    newer: Mutex<Newer>,
}

#[derive(Default)]
struct Newer {
    gone: Doomed,
    index: Option<Arc<Index>>,
    times: usize,
}

impl<I> Followed<I> {
    pub(crate) fn new(domain: &Domain, index: I) -> Self {
        Self {
            index,
            domain: domain.clone(),
            newer: Mutex::default(),
        }
    }
}

impl<I: Locate> Locate for Followed<I> {
    fn find(&self, id: &ChunkId) -> Result<Option<Record>, ReadError> {
        self.index.find(id)
    }

    fn pack(&self, ordinal: u32) -> Option<&PackInfo> {
        self.index.pack(ordinal)
    }

    /// Who asks meanwhile waits: what is read serves all.
    fn without(&self, pack: &ObjectHash) -> Option<Arc<Index>> {
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = newer.gone.insert(*pack);
        let index = newer.index.as_ref();
        let names_it = index.is_none_or(|index| is_new && index.has_pack(pack));
        if names_it && newer.times < TIMES_MAX {
            newer.times += 1;
            // That it cannot be read helps nobody: then the pack is gone, which is told.
            if let Ok(index) = self.domain.load_index_asking_packs(&newer.gone, None) {
                newer.index = Some(Arc::new(index));
            }
        }
        newer.index.clone()
    }
}

impl<I> fmt::Debug for Followed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").finish_non_exhaustive()
    }
}
