//! Where content is cut: keyed FastCDC in classes of sizes (`docs/format.md`, "Chunks").
//!
//! Cut points are part of the format: change them and nothing deduplicates any more.

use std::fmt;

use edge::{Entry, EntryKind};

/// The longest chunk of any class.
pub(crate) const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Files up to this size are one chunk.
pub(crate) const WHOLE_BYTES_MAX: usize = 128 * 1024;

/// How content is cut; recorded with each file so that later runs cut alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Class {
    /// One chunk.
    Whole = 0,
    /// Most files.
    General = 1,
    /// Dumps, streams, logs: what changes a little everywhere.
    Dump = 2,
    /// Media and archives: what changes as a whole.
    Media = 3,
}

/// Bytes that the hash depends on: each shift takes it one bit nearer to the end of its 64.
const HASH_WINDOW_BYTES: usize = 64;
/// Bytes that are looked at in one go.
const STRIP_BYTES: usize = 1024;

/// Sizes of one class in bytes; the normal size is a power of two.
struct Sizes {
    min: usize,
    normal: usize,
    max: usize,
}

const DUMP_ENDINGS: [&[u8]; 8] = [
    b"sql", b"dump", b"log", b"csv", b"mbox", b"tar", b"json", b"xml",
];
const MEDIA_ENDINGS: [&[u8]; 30] = [
    b"jpg", b"jpeg", b"png", b"gif", b"webp", b"avif", b"heic", b"mp3", b"mp4", b"m4a", b"m4v",
    b"mov", b"avi", b"mkv", b"webm", b"ogg", b"flac", b"wav", b"zip", b"gz", b"tgz", b"bz2", b"xz",
    b"zst", b"7z", b"rar", b"iso", b"img", b"qcow2", b"pdf",
];

impl Class {
    /// Gives the class of an entry that has none yet.
    pub(crate) fn of(entry: &Entry) -> Self {
        if entry.kind == EntryKind::Stream {
            return Self::Dump;
        }
        if entry.size_bytes <= WHOLE_BYTES_MAX as u64 {
            return Self::Whole;
        }
        let name = entry.path.name().unwrap_or_default();
        let ending = name
            .rsplit(|b| *b == b'.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if DUMP_ENDINGS.contains(&ending.as_slice()) {
            Self::Dump
        } else if MEDIA_ENDINGS.contains(&ending.as_slice()) {
            Self::Media
        } else {
            Self::General
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Whole),
            1 => Some(Self::General),
            2 => Some(Self::Dump),
            3 => Some(Self::Media),
            _ => None,
        }
    }

    /// Gives the longest chunk of the class.
    pub(crate) const fn chunk_bytes_max(self) -> usize {
        self.sizes().max
    }

    /// Tells how many chunks so many bytes are about cut into.
    pub(crate) const fn chunk_count(self, bytes: u64) -> u64 {
        bytes / self.sizes().normal as u64
    }

    /// Says whether a chunk of the class, but the last one of a content, may have this length.
    pub(crate) const fn may_be(self, length: usize) -> bool {
        let sizes = self.sizes();
        sizes.min < length && length <= sizes.max
    }

    const fn sizes(self) -> Sizes {
        const KIB: usize = 1024;
        let (min, normal, max) = match self {
            Self::Whole => (WHOLE_BYTES_MAX, WHOLE_BYTES_MAX, WHOLE_BYTES_MAX),
            Self::General => (128 * KIB, 512 * KIB, 2048 * KIB),
            Self::Dump => (16 * KIB, 64 * KIB, 256 * KIB),
            Self::Media => (512 * KIB, 2048 * KIB, CHUNK_BYTES_MAX),
        };
        Sizes { min, normal, max }
    }
}

/// Cuts content with the gear table of one domain.
pub(crate) struct Chunker {
    gear: Box<[u64; 256]>,
}

impl Chunker {
    pub(crate) const fn new(gear: Box<[u64; 256]>) -> Self {
        Self { gear }
    }

    /// Looks for the end of the first chunk of `bytes`, from where `scan` stands, and gives its
    /// length; `None` when more bytes are needed. `is_all` says that no more will come.
    pub(crate) fn cut(
        &self,
        class: Class,
        bytes: &[u8],
        is_all: bool,
        scan: &mut Scan,
    ) -> Option<usize> {
        let sizes = class.sizes();
        let end = bytes.len().min(sizes.max);
        let is_last = end == sizes.max || is_all;
        if class == Class::Whole {
            return is_last.then_some(end);
        }
        let bits = sizes.normal.ilog2();
        for (border, zeros) in [(sizes.normal, bits + 2), (sizes.max, bits - 2)] {
            let from = scan.at.max(sizes.min);
            let to = border.min(end);
            let Some(piece) = bytes.get(from..to) else {
                continue;
            };
            match self.find(piece, &mut scan.hash, 1 << (64 - zeros)) {
                Some(at) => return Some(from + at + 1),
                None => scan.at = to,
            }
        }
        is_last.then_some(end)
    }

    /// Gives the length of the first chunk of `bytes`, which are all that is left.
    pub(crate) fn cut_all(&self, class: Class, bytes: &[u8]) -> usize {
        let end = self.cut(class, bytes, true, &mut Scan::default());
        end.unwrap_or(bytes.len())
    }

    /// Rolls the hash over `bytes` until it is below `border`; gives where.
    ///
    /// A byte leaves the hash after 64 others, so that strips of a block can be looked at side by
    /// side: one alone would mostly wait for its last sum.
    fn find(&self, bytes: &[u8], hash: &mut u64, border: u64) -> Option<usize> {
        let mut rest = bytes;
        while let Some((block, after)) = rest.split_first_chunk::<{ 4 * STRIP_BYTES }>() {
            match self.roll_strips(block, *hash, border) {
                Some(end) => *hash = end,
                None => break,
            }
            rest = after;
        }
        let start = bytes.len() - rest.len();
        for (at, byte) in rest.iter().enumerate() {
            *hash = self.roll(*hash, *byte);
            if *hash < border {
                return Some(start + at);
            }
        }
        None
    }

    /// Rolls the hash over a block; `None` when it is below `border` somewhere.
    fn roll_strips(&self, block: &[u8; 4 * STRIP_BYTES], hash: u64, border: u64) -> Option<u64> {
        let (strips, _) = block.as_chunks::<STRIP_BYTES>();
        let [a, b, c, d] = strips else {
            return None;
        };
        let after = |strip: &[u8; STRIP_BYTES]| {
            let (_, last) = strip.split_at(STRIP_BYTES - HASH_WINDOW_BYTES);
            last.iter().fold(0, |hash, byte| self.roll(hash, *byte))
        };
        let (mut at_a, mut at_b, mut at_c, mut at_d) = (hash, after(a), after(b), after(c));
        // The least hash of each strip costs fewer instructions than a comparison of each hash.
        let [mut least_a, mut least_b, mut least_c, mut least_d] = [u64::MAX; 4];
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            at_a = self.roll(at_a, *a);
            at_b = self.roll(at_b, *b);
            at_c = self.roll(at_c, *c);
            at_d = self.roll(at_d, *d);
            least_a = least_a.min(at_a);
            least_b = least_b.min(at_b);
            least_c = least_c.min(at_c);
            least_d = least_d.min(at_d);
        }
        let least = least_a.min(least_b).min(least_c.min(least_d));
        (least >= border).then_some(at_d)
    }

    fn roll(&self, hash: u64, byte: u8) -> u64 {
        let gear = self.gear.get(usize::from(byte)).copied().unwrap_or(0);
        (hash << 1).wrapping_add(gear)
    }
}

/// How far the search for the end of a chunk is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Scan {
    at: usize,
    hash: u64,
}

impl fmt::Debug for Chunker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunker(…)")
    }
}

#[cfg(test)]
mod tests {
    use sealing::{Keyring, ScheduleKey};

    use super::*;

    fn chunker() -> Chunker {
        Chunker::new(Keyring::first(&ScheduleKey::from_bytes([3; 32]), "").gear_table())
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut out);
        out
    }

    fn cuts(class: Class, mut bytes: &[u8]) -> Vec<usize> {
        let chunker = chunker();
        let mut lengths = Vec::new();
        while !bytes.is_empty() {
            let length = chunker.cut_all(class, bytes);
            lengths.push(length);
            bytes = &bytes[length..];
        }
        lengths
    }

    #[test]
    fn cut_points_are_frozen() {
        let bytes = noise(6 << 20);
        assert_eq!(cuts(Class::General, &bytes), GENERAL);
        assert_eq!(cuts(Class::Media, &bytes), MEDIA);
        assert_eq!(cuts(Class::Dump, &bytes[..600_000]), DUMP);
    }

    const GENERAL: &[usize] = &[
        539_612, 737_384, 255_459, 699_992, 526_607, 803_656, 590_760, 556_638, 556_263, 752_163,
        272_922,
    ];
    const MEDIA: &[usize] = &[1_532_455, 3_733_916, 1_025_085];
    const DUMP: &[usize] = &[
        20_690, 24_556, 39_934, 171_511, 69_260, 84_822, 86_846, 41_993, 60_388,
    ];

    #[test]
    fn cuts_do_not_depend_on_how_bytes_arrive() {
        let bytes = noise(3 << 20);
        let chunker = chunker();
        for class in [Class::General, Class::Dump, Class::Media] {
            for step in [1 << 20, 65_537, 7_919] {
                let (mut lengths, mut start, mut scan) = (Vec::new(), 0, Scan::default());
                let mut end = step;
                while start < bytes.len() {
                    let is_all = end == bytes.len();
                    match chunker.cut(class, &bytes[start..end], is_all, &mut scan) {
                        Some(length) => {
                            lengths.push(length);
                            start += length;
                            scan = Scan::default();
                        }
                        None => end = bytes.len().min(end + step),
                    }
                }
                assert_eq!(lengths, cuts(class, &bytes), "{class:?}, {step}");
            }
        }
    }

    #[test]
    fn chunks_keep_to_their_sizes() {
        let bytes = noise(8 << 20);
        for class in [Class::General, Class::Dump, Class::Media] {
            let sizes = class.sizes();
            let lengths = cuts(class, &bytes);
            assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
            let (_, all_but_last) = lengths.split_last().unwrap();
            assert!(
                all_but_last
                    .iter()
                    .all(|l| (sizes.min..=sizes.max).contains(l))
            );
        }
        assert_eq!(
            cuts(Class::General, &vec![0; 5 << 20]).first(),
            Some(&(2 << 20))
        );
    }

    #[test]
    fn an_insertion_moves_only_neighbouring_cuts() {
        let before = noise(4 << 20);
        let mut after = before.clone();
        after.splice(1_000_000..1_000_000, *b"inserted");
        let (before, after) = (cuts(Class::Dump, &before), cuts(Class::Dump, &after));
        let same_end = before.iter().rev().zip(after.iter().rev());
        let same = same_end.take_while(|(a, b)| a == b).count();
        assert!(same > before.len() / 2, "{same} of {}", before.len());
    }
}
