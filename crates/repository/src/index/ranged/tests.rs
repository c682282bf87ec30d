//! What parts of segments promise: that they answer as all of them, with few requests.

use sealing::ScheduleKey;
use testkit::{CountingEntropy, MemoryStore, RecordingStore};

use super::super::divide::Division;
use super::super::tests::{id, pack, prefix};
use super::*;

const COUNT: u32 = 100_000;

/// Of these the records of metadata are in the last one. In all, a part of the records of data
/// are in three segments.
const METADATA: u32 = 1000;

fn domain_of(index: &Index, division: Division) -> (Domain, Arc<RecordingStore>) {
    let store = Arc::new(RecordingStore::new(Arc::new(MemoryStore::default())));
    let key = ScheduleKey::from_bytes([1; 32]);
    let entropy = CountingEntropy::default();
    let domain = Domain::create(store.clone(), &key, &entropy, "").unwrap();
    domain
        .write_divided(index, &[], &entropy, division)
        .unwrap();
    store.take_requests();
    (domain, store)
}

fn index_of(packs: Vec<PackInfo>, pack_of: impl Fn(u32) -> u32) -> Index {
    let mut index = Index::default();
    let records =
        (0..COUNT).map(|number| Record::new(prefix(number), pack_of(number), 0, (number, 1)));
    index.add(packs, records).unwrap();
    index.sort().unwrap();
    index
}

/// A domain whose index takes several segments, and where to count what is asked of it.
fn large_domain() -> (Domain, Arc<RecordingStore>) {
    let index = index_of((0..200).map(pack).collect(), |number| number % 200);
    let division = Division {
        records_max: 40_000,
        apart_from: usize::MAX,
        lent_max: 0,
    };
    let (domain, store) = domain_of(&index, division);
    let whole = domain.load_index().unwrap();
    let mut counts: Vec<_> = whole.segments.iter().map(|s| s.records).collect();
    counts.sort_unstable();
    assert_eq!(counts, [20_000, 40_000, 40_000]);
    store.take_requests();
    (domain, store)
}

/// The same with metadata, which has a segment of its own.
fn family_domain(lent_max: usize) -> (Domain, Arc<RecordingStore>) {
    let mut packs: Vec<_> = (0..200).map(pack).collect();
    for pack in packs.iter_mut().skip(100).take(2) {
        pack.kind = ObjectKind::MetadataPack;
    }
    let index = index_of(packs, |number| match number {
        0..METADATA => 100 + number % 2,
        _ => (number % 198 + 102) % 200,
    });
    let division = Division {
        records_max: 40_000,
        apart_from: 0,
        lent_max,
    };
    let (domain, store) = domain_of(&index, division);
    let whole = domain.load_index().unwrap();
    let mut counts: Vec<_> = whole.segments.iter().map(|s| s.records).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1000, 19_000, 40_000, 40_000]);
    store.take_requests();
    (domain, store)
}

fn open(domain: &Domain, whole_bytes: u64) -> Option<RangedIndex> {
    let listed = domain.list(ObjectKind::IndexSegment).unwrap();
    RangedIndex::open_beyond(domain, &listed, whole_bytes).unwrap()
}

/// Asks for all chunks and some that are not there, here and in the whole index.
fn assert_answers_as_whole(domain: &Domain, index: &RangedIndex) {
    let whole = domain
        .load_index_asking_packs(&super::super::Doomed::new(), None)
        .unwrap();
    for number in 0..COUNT + 1000 {
        let found = index.find(&id(number)).unwrap();
        let expected = whole.find(&id(number));
        let place = |record: Record| (record.frame(), record.offset(), record.length());
        assert_eq!(found.map(place), expected.map(place));
        let hash = found.map(|record| Locate::pack(index, record.pack).unwrap().hash);
        let expected = expected.map(|record| whole.pack(record.pack).unwrap().hash);
        assert_eq!(hash, expected);
    }
}

#[test]
fn few_chunks_are_found_with_few_requests() {
    let (domain, store) = large_domain();
    let index = open(&domain, 0).unwrap();
    let opened = store.take_requests();
    assert_eq!((opened.lists, opened.ranges, opened.gets), (1, 3, 0));
    assert!(index.find(&id(7)).unwrap().is_some());
    assert!(index.find(&id(COUNT)).unwrap().is_none());
    // A block of records of each segment that may hold it, and a block of packs.
    let asked = store.take_requests();
    assert!(asked.ranges <= 7, "{asked:?}");
    assert!(asked.gets == 0 && asked.bytes_read < 500_000, "{asked:?}");
}

#[test]
fn a_directory_spares_all_but_one_block() {
    let (domain, store) = family_domain(1000);
    assert_asks_for((&domain, &store), 1);
    // Of many packs the one is asked for, too.
    let (domain, store) = family_domain(0);
    assert_asks_for((&domain, &store), 2);
}

/// Makes sure that only so many parts are read to find a chunk of content.
fn assert_asks_for((domain, store): (&Domain, &RecordingStore), parts: u64) {
    let index = open(domain, 0).unwrap();
    // What is small is read whole: all of the metadata is known, and whom to ask for the rest.
    let opened = store.take_requests();
    assert_eq!((opened.lists, opened.ranges, opened.gets), (1, 0, 1));
    for number in 0..METADATA {
        assert!(index.find(&id(number)).unwrap().is_some());
    }
    assert_eq!(store.take_requests().ranges, 0);
    for number in [METADATA, COUNT / 2, COUNT - 1] {
        let index = open(domain, 0).unwrap();
        store.take_requests();
        let record = index.find(&id(number)).unwrap().unwrap();
        assert!(Locate::pack(&index, record.pack).is_some());
        let asked = store.take_requests();
        assert_eq!((asked.ranges, asked.gets), (parts, 0), "{asked:?}");
    }
    // One block says that a chunk is not there, too.
    assert!(index.find(&id(COUNT)).unwrap().is_none());
    assert_eq!(store.take_requests().ranges, 1);
}

#[test]
fn parts_of_segments_answer_as_all_of_them() {
    let (domain, store) = large_domain();
    let index = open(&domain, 0).unwrap();
    assert_answers_as_whole(&domain, &index);
    let asked = store.take_requests();
    // The third is so short that all its blocks are kept.
    assert_eq!(
        asked.gets,
        2 + 3,
        "each long segment once, and all for the whole index"
    );
    assert!(asked.ranges < 150, "{asked:?}");
    for lent_max in [1000, 0] {
        let (domain, store) = family_domain(lent_max);
        let index = open(&domain, 0).unwrap();
        assert_answers_as_whole(&domain, &index);
        let asked = store.take_requests();
        assert_eq!(asked.gets, 1 + 2 + 4);
        assert!(asked.ranges < 150, "{asked:?}");
    }
}

#[test]
fn ids_that_begin_as_a_block_does_are_found_before_it() {
    let record = |number: u32| {
        let mut prefix = [7; 20];
        prefix[16..].copy_from_slice(&number.to_be_bytes());
        Record::new(prefix, u32::from(number == 0), 0, (number, 1))
    };
    let mut index = Index::default();
    let mut metadata = pack(1);
    metadata.kind = ObjectKind::MetadataPack;
    let packs = vec![pack(0), metadata];
    index.add(packs, (0..20_000).map(record)).unwrap();
    index.sort().unwrap();
    let division = Division {
        records_max: 5_000,
        apart_from: 0,
        lent_max: 1,
    };
    let (domain, _) = domain_of(&index, division);
    let index = open(&domain, 0).unwrap();
    for number in 0..20_001_u32 {
        let mut id = [7; 32];
        id[16..20].copy_from_slice(&number.to_be_bytes());
        let found = index.find(&ChunkId::from_bytes(id)).unwrap();
        assert_eq!(
            found.map(Record::offset),
            (number < 20_000).then_some(number)
        );
    }
}

#[test]
fn a_segment_that_was_replaced_or_is_damaged_is_done_without() {
    for damage in [None, Some(&b"no segment"[..])] {
        let (domain, _) = family_domain(1000);
        let index = open(&domain, 0).unwrap();
        let before = domain.load_index().unwrap();
        let largest = before.segments.iter().max_by_key(|one| one.records);
        let name = domain.name(ObjectKind::IndexSegment, &largest.unwrap().hash);
        match damage {
            // Another writer did so since this one was opened.
            None => {
                let entropy = CountingEntropy::default();
                let replaced = before.segment_hashes();
                domain.write_index(&before, &replaced, &entropy).unwrap();
                for hash in replaced {
                    let name = domain.name(ObjectKind::IndexSegment, &hash);
                    domain.store().delete(&name).unwrap();
                }
                assert_answers_as_whole(&domain, &index);
            }
            Some(bytes) => {
                domain.store().put(&name, bytes).unwrap();
                let mut errors = (METADATA..COUNT).filter_map(|n| index.find(&id(n)).err());
                let error = errors.next().unwrap();
                // There are no packs that could be asked instead.
                assert!(error.to_string().contains(name.as_str()), "{error}");
            }
        }
    }
}

#[test]
fn no_pack_counts_as_known_when_a_part_of_a_divided_index_is_damaged() {
    let (domain, _) = family_domain(1000);
    let whole = domain.load_index().unwrap();
    assert!((0..200).all(|number| whole.has_all_of(&pack(number).hash)));
    let mut data = whole.segments.iter().filter(|one| one.records > 1000);
    let (damaged, metadata) = (data.next_back().unwrap(), pack(100).hash);
    let name = domain.name(ObjectKind::IndexSegment, &damaged.hash);
    domain.store().put(&name, b"no segment").unwrap();
    let part = domain.load_index().unwrap();
    assert!((0..200).all(|number| part.has_pack(&pack(number).hash)));
    assert!((0..200).all(|number| !part.has_all_of(&pack(number).hash)));
    // What is lent to segments that are not there is not known by that.
    for one in whole.segments.iter().filter(|one| one.records > 1000) {
        let name = domain.name(ObjectKind::IndexSegment, &one.hash);
        domain.store().delete(&name).unwrap();
    }
    let rest = domain.load_index().unwrap();
    assert!(rest.has_all_of(&metadata) && !rest.has_pack(&pack(0).hash));
}

#[test]
fn a_short_index_and_a_damaged_one_are_read_whole() {
    let (domain, _) = large_domain();
    assert!(open(&domain, WHOLE_BYTES).is_some());
    assert!(open(&domain, 100_000_000).is_none());
    let (hash, _) = domain.list(ObjectKind::IndexSegment).unwrap()[0];
    let name = domain.name(ObjectKind::IndexSegment, &hash);
    domain.store().put(&name, b"no segment").unwrap();
    assert!(open(&domain, 0).is_none());
}
