//! Writing an index into segments that divide its records among them (`docs/format.md`, "Index
//! segments").

use edge::Entropy;
use sealing::ObjectKind;

use super::stored::{RECORDS_MAX, SMALL_RECORDS, Written};
use super::{Index, PackInfo, Record, SegmentInfo};
use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;
use crate::segment::{Directory, Ended, LENT_COUNT_MAX, SIBLING_COUNT_MAX, SegmentWriter, Sibling};

/// Where there are many packs, a segment has up to so many records: 64 MiB.
const MANY_RECORDS_MAX: usize = 1 << 21;
/// And so many for each pack, if it may: five times as many bytes as the packs take.
const RECORDS_PER_PACK: usize = 32;

/// How an index is divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Division {
    /// Records of a segment at most.
    pub(super) records_max: usize,
    /// From so many records on those of metadata have a segment of their own. What is shorter is
    /// read whole, which is quicker than asking twice.
    pub(super) apart_from: usize,
    /// Packs that the last segment names for the others at most: it is to stay short.
    pub(super) lent_max: usize,
}

impl Division {
    /// Each part names all packs, so that many packs want large parts.
    fn usual(packs: usize) -> Self {
        Self {
            records_max: packs
                .saturating_mul(RECORDS_PER_PACK)
                .clamp(RECORDS_MAX, MANY_RECORDS_MAX),
            apart_from: 1 << 15,
            lent_max: LENT_COUNT_MAX,
        }
    }
}

/// Packs of an index as a segment names them, with the records of some.
struct Portion<'a> {
    packs: Vec<&'a PackInfo>,
    /// For each pack of the index the ordinal that its records have here.
    ordinals: Vec<Option<u32>>,
}

impl<'a> Portion<'a> {
    /// Takes packs of some kinds with their records.
    fn of(index: &'a Index, is_taken: &dyn Fn(ObjectKind) -> bool) -> Self {
        Self::after(Vec::new(), index, is_taken)
    }

    /// The same behind packs without records.
    fn after(
        mut packs: Vec<&'a PackInfo>,
        index: &'a Index,
        is_taken: &dyn Fn(ObjectKind) -> bool,
    ) -> Self {
        let mut ordinals = Vec::with_capacity(index.packs().len());
        for pack in index.packs() {
            let is_taken = is_taken(pack.kind);
            let next = u32::try_from(packs.len()).ok();
            ordinals.push(next.filter(|_| is_taken));
            packs.extend(is_taken.then_some(pack));
        }
        Self { packs, ordinals }
    }

    fn translated(&self, record: Record) -> Option<Record> {
        let ordinal = usize::try_from(record.pack).ok()?;
        let pack = (*self.ordinals.get(ordinal)?)?;
        Some(record.in_pack(pack))
    }
}

/// What the last segment of several says of others.
#[derive(Default)]
struct Last<'a> {
    replaced: &'a [ObjectHash],
    directory: Option<Directory>,
}

impl Domain {
    /// Writes an index as segments that divide its records among them. The last one, once it is
    /// there, replaces others; they are not deleted here.
    pub(crate) fn write_index(
        &self,
        index: &Index,
        replaced: &[ObjectHash],
        entropy: &dyn Entropy,
    ) -> Result<Written, RepositoryError> {
        let division = Division::usual(index.packs().len());
        self.write_divided(index, replaced, entropy, division)
    }

    pub(super) fn write_divided(
        &self,
        index: &Index,
        replaced: &[ObjectHash],
        entropy: &dyn Entropy,
        division: Division,
    ) -> Result<Written, RepositoryError> {
        let mut writing = Writing {
            domain: self,
            entropy,
            records_max: division.records_max,
            written: Written::default(),
        };
        let is_data = |kind| kind == ObjectKind::DataPack;
        let data_packs = index.packs().iter().filter(|pack| is_data(pack.kind));
        let has_both = (1..index.packs().len()).contains(&data_packs.count());
        let mut last = Last {
            replaced,
            directory: None,
        };
        let portion = if has_both && index.len() >= division.apart_from {
            let data = Portion::of(index, &is_data);
            let siblings = writing.write(index, &data, Last::default())?;
            let has_directory = siblings.len() <= SIBLING_COUNT_MAX;
            let lends = has_directory && data.packs.len() <= division.lent_max;
            let lent = if lends { data.packs } else { Vec::new() };
            last.directory = has_directory.then(|| Directory::of(siblings, lent.len()));
            Portion::after(lent, index, &|kind| !is_data(kind))
        } else {
            Portion::of(index, &|_| true)
        };
        writing.write(index, &portion, last)?;
        Ok(writing.written)
    }
}

struct Writing<'a> {
    domain: &'a Domain,
    entropy: &'a dyn Entropy,
    records_max: usize,
    written: Written,
}

impl Writing<'_> {
    /// Writes the segments of a portion; gives what a directory says of them.
    fn write(
        &mut self,
        index: &Index,
        portion: &Portion<'_>,
        last: Last<'_>,
    ) -> Result<Vec<Ended>, RepositoryError> {
        let mut siblings = Vec::new();
        let mut writer = self.begin(portion)?;
        let mut rows = 0;
        index.each_record(&mut |_, record: Record| {
            let Some(record) = portion.translated(record) else {
                return Ok(());
            };
            if rows == self.records_max {
                let full = std::mem::replace(&mut writer, self.begin(portion)?);
                siblings.push(self.finish(full, Last::default())?);
                rows = 0;
            }
            rows += 1;
            writer.push(&record).map_err(RepositoryError::Sealing)
        })?;
        siblings.push(self.finish(writer, last)?);
        Ok(siblings)
    }

    fn begin(&self, portion: &Portion<'_>) -> Result<SegmentWriter, RepositoryError> {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt);
        let packs = portion.packs.iter().copied();
        SegmentWriter::new(self.domain.keyring(), &salt, packs).map_err(RepositoryError::Sealing)
    }

    fn finish(&mut self, writer: SegmentWriter, last: Last<'_>) -> Result<Ended, RepositoryError> {
        let siblings = last.directory.iter().flat_map(|one| &one.siblings);
        let leads = siblings.into_iter().any(is_large);
        let sealed = writer.finish(last.replaced, last.directory);
        let (stored, ended) = sealed.map_err(RepositoryError::Sealing)?;
        let (domain, kind) = (self.domain, ObjectKind::IndexSegment);
        domain
            .store()
            .put(&domain.name(kind, &stored.hash), &stored.bytes)?;
        domain.keep_in_cache(kind, &stored.hash, &stored.bytes);
        self.written.bytes += stored.bytes.len() as u64;
        self.written.segments.push(SegmentInfo {
            hash: stored.hash,
            records: ended.sibling.records,
            leads,
        });
        Ok(ended)
    }
}

/// True for a sibling that is not merged with others when they become many.
pub(super) const fn is_large(sibling: &Sibling) -> bool {
    sibling.records >= SMALL_RECORDS
}
