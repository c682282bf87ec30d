//! What the index promises, in memory and in scratch files alike.

use std::sync::Mutex;

use edge::ScratchFile;

use super::*;

/// Scratch files in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryScratch;

#[derive(Debug, Default)]
struct MemoryScratchFile(Mutex<Vec<u8>>);

impl Scratch for MemoryScratch {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::<MemoryScratchFile>::default())
    }
}

impl ScratchFile for MemoryScratchFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let end = usize::try_from(offset).unwrap() + bytes.len();
        let length = file.len().max(end);
        file.resize(length, 0);
        file[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let file = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let part = file.get(start..start + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

pub(super) fn prefix(number: u32) -> Prefix {
    let hash = blake3::hash(&number.to_le_bytes());
    *hash.as_bytes().first_chunk().unwrap()
}

pub(super) fn id(number: u32) -> ChunkId {
    ChunkId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(super) fn pack(byte: u8) -> PackInfo {
    PackInfo {
        hash: ObjectHash::from_bytes([byte; 32]),
        kind: ObjectKind::DataPack,
        epoch: 0,
        salt: [0; 32],
        size: 1,
        frames: Vec::new(),
    }
}

fn rows(index: &Index) -> Vec<Record> {
    let mut rows = Vec::new();
    index
        .each_record(&mut |number, record| {
            assert_eq!(number, rows.len());
            rows.push(record);
            Ok(())
        })
        .unwrap();
    rows
}

#[test]
fn chunks_are_found_across_segments_and_without_gone_packs() {
    let id = |byte: u8| ChunkId::from_bytes([byte; 32]);
    let record = |byte: u8, pack| Record::new([byte; 20], pack, 0, (0, 1));
    for in_memory_max in [1, 2, 100] {
        let mut index = Index::with_limit(Some(Arc::new(MemoryScratch)), in_memory_max);
        let first = [record(10, 0), record(11, 1)];
        index.add(vec![pack(1), pack(2)], first).unwrap();
        let second = [record(10, 0), record(12, 1)];
        index.add(vec![pack(3), pack(2)], second).unwrap();
        index.sort().unwrap();
        assert_eq!(index.find(&id(10)).unwrap().pack, 0);
        assert_eq!(index.find(&id(12)).unwrap().pack, 1);
        assert!(!index.contains(&id(13)));
        assert_eq!(index.len(), 3);
        let mut moves = Vec::new();
        let gone = Index::among(&[(pack(1).hash, ObjectKind::DataPack)]);
        index
            .remove_packs(&gone, &mut |from, to| moves.push((from, to)))
            .unwrap();
        assert_eq!(index.packs(), [pack(2), pack(3)]);
        assert_eq!(rows(&index), [record(11, 0), record(12, 0)]);
        assert_eq!(moves, [(1, 0), (2, 1)]);
        assert!(index.contains(&id(12)) && !index.contains(&id(10)));
        assert!(!index.has_pack(&pack(1).hash));
    }
}

#[test]
fn an_index_in_scratch_files_answers_as_one_in_memory() {
    let mut small = Index::with_limit(None, 1);
    let mut large = Index::with_limit(Some(Arc::new(MemoryScratch)), 700);
    for index in [&mut small, &mut large] {
        for part in 0..3_u32 {
            let packs = (0..20).map(|number| pack(u8::try_from(part * 7).unwrap() + number));
            // Every part repeats some chunks of the one before.
            let numbers = part * 2_000..part * 2_000 + 3_000;
            let records = numbers
                .clone()
                .map(|number| Record::new(prefix(number), number % 20, 0, (number, 1)));
            index.add(packs.collect(), records).unwrap();
            index.sort().unwrap();
            assert!(
                numbers
                    .into_iter()
                    .all(|number| index.contains(&id(number)))
            );
        }
    }
    assert!(matches!(large.table, Table::File(_)));
    assert!(matches!(small.table, Table::Memory(_)));
    assert_eq!(small.len(), 7_000);
    assert_eq!(rows(&small), rows(&large));
    for number in 0..8_000 {
        assert_eq!(small.locate(&id(number)), large.locate(&id(number)));
    }
    let mut copy = Index::with_limit(Some(Arc::new(MemoryScratch)), 700);
    copy.add_from(&large, &|record| record.offset() % 2 == 0)
        .unwrap();
    copy.sort().unwrap();
    assert_eq!(copy.len(), 3_500);
    assert!(copy.contains(&id(0)) && !copy.contains(&id(1)));
}

/// Says nothing of its files any more after some reads.
#[derive(Debug)]
struct FailingScratch;

#[derive(Debug)]
struct FailingScratchFile;

impl Scratch for FailingScratch {
    fn create(&self) -> io::Result<Box<dyn ScratchFile>> {
        Ok(Box::new(FailingScratchFile))
    }
}

impl ScratchFile for FailingScratchFile {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("the disk is gone"))
    }
}

#[test]
fn an_answer_that_a_lost_scratch_file_gave_is_not_trusted() {
    let mut index = Index::with_limit(Some(Arc::new(FailingScratch)), 4);
    let record = |number| Record::new(prefix(number), 0, 0, (0, 1));
    index.add(vec![pack(1)], (0..4).map(record)).unwrap();
    index.sort().unwrap();
    index.verify().unwrap();
    assert!(!index.contains(&id(1)), "as if it were not there");
    let error = index.verify().unwrap_err();
    assert!(matches!(error, RepositoryError::Scratch(_)), "{error}");
}

#[test]
fn doomed_packs_are_a_last_resort() {
    let id = |byte: u8| ChunkId::from_bytes([byte; 32]);
    let record = |byte: u8, pack| Record::new([byte; 20], pack, 0, (0, 1));
    let doomed = Doomed::from([1, 3].map(|byte| pack(byte).hash));
    let mut index = Index::new(None).leaving_out(doomed);
    let first = vec![record(10, 0), record(11, 0)];
    index.add(vec![pack(1)], first).unwrap();
    let second = vec![record(10, 1), record(12, 0), record(13, 1)];
    index.add(vec![pack(3), pack(2)], second).unwrap();
    index.sort().unwrap();
    assert!(index.is_doomed(&pack(3).hash) && index.has_pack(&pack(1).hash));
    assert_eq!(index.find(&id(10)).unwrap().pack, 2);
    assert!(!index.contains(&id(11)) && !index.contains(&id(12)));

    // Who writes all of it anew keeps what only doomed packs hold, and of other chunks the place
    // that stays.
    let mut all = Index::default();
    all.add_from(&index, &|_| true).unwrap();
    all.sort().unwrap();
    assert_eq!((all.len(), all.find(&id(10)).unwrap().pack), (4, 2));
    assert_eq!(all.find(&id(11)).unwrap().pack, 0);

    let gone = [(pack(3).hash, ObjectKind::DataPack)];
    index
        .remove_packs(&Index::among(&gone), &mut |_, _| {})
        .unwrap();
    index.take_back().unwrap();
    assert_eq!(index.find(&id(10)).unwrap().pack, 1);
    assert_eq!(index.find(&id(11)).unwrap().pack, 0);
    assert!(!index.contains(&id(12)) && index.contains(&id(13)));
}
