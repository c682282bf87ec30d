//! Threads that read short files ahead: the work only stores what they read, in the order of the walk.
//!
//! Opening, reading and naming many short files takes longer than all else that the work does with them, and where the
//! disk is slow to answer they would wait for each one.

use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use edge::{ContentEnd, Entry, EntryKind, Opener, SourceItem};
use sealing::{ChunkId, ChunkKind, ChunkNamer, Keyring};

use super::ahead::Item;
use super::pipeline::Flow;
use crate::chunker::{Chunker, Class, Scan};
use crate::content::INLINE_BYTES_MAX;

/// Items of which the marked files are to be read, and where all go then.
pub(super) struct Job {
    pub(super) items: Vec<Item>,
    pub(super) wanted: Vec<usize>,
    pub(super) done: SyncSender<Vec<Item>>,
}

/// The content of a short file that stood still while it was read.
pub(super) struct Short {
    /// As it was when it was opened.
    pub(super) entry: Entry,
    pub(super) class: Class,
    /// Its chunks; none of what is kept in its entry.
    pub(super) chunks: Vec<(usize, ChunkId)>,
    place: Range<usize>,
    portion: Arc<Buffer>,
}

impl Short {
    pub(super) fn bytes(&self) -> &[u8] {
        let bytes = self.portion.bytes.get(self.place.clone());
        bytes.unwrap_or_default()
    }
}

/// What was read together. The buffer goes back when nobody needs it any more.
struct Buffer {
    bytes: Vec<u8>,
    spare: Arc<Spare>,
}

/// Buffers that are used again. There are as many as portions under way.
type Spare = Mutex<Vec<Vec<u8>>>;

impl Drop for Buffer {
    fn drop(&mut self) {
        lock(&self.spare).push(std::mem::take(&mut self.bytes));
    }
}

/// Starts the threads; they end when nobody can give them work any more.
pub(super) fn start_readers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    flow: &Arc<Flow>,
    keyring: &Keyring,
) -> Sender<Job> {
    let (sender, jobs) = channel();
    let jobs = Arc::new(Mutex::new(jobs));
    let spare = Arc::default();
    for _ in 0..flow.plan.readers {
        let mut reader = Reader {
            chunker: Chunker::new(keyring.gear_table()),
            namer: keyring.namer(),
            flow: Arc::clone(flow),
            spare: Arc::clone(&spare),
        };
        let jobs = Arc::clone(&jobs);
        scope.spawn(move || reader.run(&jobs));
    }
    sender
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reader {
    chunker: Chunker,
    namer: ChunkNamer,
    flow: Arc<Flow>,
    spare: Arc<Spare>,
}

/// A file that was read to a place in the buffer.
struct Read {
    entry: Entry,
    class: Class,
    chunks: Vec<(usize, ChunkId)>,
    place: Range<usize>,
}

impl Reader {
    fn run(&mut self, jobs: &Mutex<Receiver<Job>>) {
        let next = || lock(jobs).recv().ok();
        while let Some(job) = next() {
            self.read_portion(job);
        }
    }

    fn read_portion(&mut self, mut job: Job) {
        let spare = lock(&self.spare).pop();
        // One byte more shows that the last file ends there.
        let room = self.flow.plan.portion_bytes_max() + 1;
        let mut bytes = spare.unwrap_or_else(|| vec![0; room]);
        let mut found = Vec::with_capacity(job.wanted.len());
        let mut used = 0;
        for number in job.wanted {
            let item = job.items.get_mut(number).map(|item| &mut item.item);
            let Some(Ok(SourceItem::Entry(entry, Some(opener)))) = item else {
                continue;
            };
            if let Some(read) = self.read(entry, opener, (&mut bytes, used)) {
                used = read.place.end;
                found.push((number, read));
            }
            self.flow.keep_cpu_share();
        }
        let portion = Arc::new(Buffer {
            bytes,
            spare: Arc::clone(&self.spare),
        });
        for (number, read) in found {
            if let Some(item) = job.items.get_mut(number) {
                item.short = Some(Short {
                    entry: read.entry,
                    class: read.class,
                    chunks: read.chunks,
                    place: read.place,
                    portion: Arc::clone(&portion),
                });
            }
        }
        // Nobody waits for it where the run ended.
        job.done.send(job.items).unwrap_or_default();
    }

    /// Reads a file to a place in the buffer; `None` where there is more to it: then the work does so itself, and says
    /// what is wrong.
    fn read(
        &self,
        walked: &Entry,
        opener: &mut Opener,
        (buffer, start): (&mut [u8], usize),
    ) -> Option<Read> {
        let (mut entry, mut content) = opener().ok()?;
        if entry.kind != EntryKind::File || content.extents().is_some() {
            return None;
        }
        let length = usize::try_from(entry.size_bytes).ok()?;
        let end = start.checked_add(length)?;
        let filled = fill(&mut *content, buffer.get_mut(start..end.checked_add(1)?)?).ok()?;
        if filled != length || content.finish().ok()? != ContentEnd::Steady {
            return None;
        }
        entry.path = walked.path.clone();
        let class = Class::of(&entry);
        Some(Read {
            chunks: self.cut(class, buffer.get(start..end)?)?,
            entry,
            class,
            place: start..end,
        })
    }

    /// Cuts and names content, unless it is so short that it has no chunks.
    fn cut(&self, class: Class, mut rest: &[u8]) -> Option<Vec<(usize, ChunkId)>> {
        let mut chunks = Vec::new();
        if rest.len() <= INLINE_BYTES_MAX {
            return Some(chunks);
        }
        while !rest.is_empty() {
            let length = self.chunker.cut(class, rest, true, &mut Scan::default())?;
            let (chunk, after) = rest.split_at_checked(length)?;
            chunks.push((length, self.namer.name(ChunkKind::Data, chunk)));
            rest = after;
        }
        Some(chunks)
    }
}

/// Reads until the buffer is full or the content ends; gives the number of bytes.
fn fill(content: &mut dyn edge::Content, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match content.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count.min(room.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
