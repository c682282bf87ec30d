//! Checking without any key: do stored bytes hash to their names (`docs/format.md`, "Objects")?
//!
//! It finds what storage damaged, at a place where nobody has a key. It cannot find that something
//! is missing, or that who has a key stored nonsense.

use edge::{Event, Monitor, ObjectInfo, ObjectName, ObjectStore, Phase, StoreFault};
use model::ByteCount;
use sealing::{SLOT_BYTES_MAX, slot_lock};

use super::{Damage, REPORT_COUNT_MAX};
use crate::domain::{NameMismatch, check_config};
use crate::error::{RepositoryError, chain};
use crate::in_order::{cores_and, in_order};
use crate::layout::{self, ObjectHash};

/// The longest object that is read whole.
const OBJECT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Objects that are read at the same time, at most: each is in memory.
const WORKERS_MAX: usize = 4;

/// What a check of names found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameReport {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read.
    pub read_bytes: ByteCount,
    /// Number of damaged objects.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
    /// Objects with names that the format does not know.
    pub ignored: u64,
}

impl NameReport {
    /// True when nothing is damaged.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damaged == 0
    }
}

/// What became of one object.
enum Looked {
    Sound,
    Damaged(String),
    /// Deleted since it was listed.
    Gone,
}

/// Reads every object of a repository and compares its hash with its name.
///
/// # Errors
///
/// `NoRepository`, `Version`, `Store` when the place cannot be read, `Cancelled`. Damage is in the
/// report.
pub fn check_names(
    store: &dyn ObjectStore,
    monitor: &dyn Monitor,
) -> Result<NameReport, RepositoryError> {
    monitor.event(Event::Phase(Phase::Verifying));
    let mut report = NameReport::default();
    match check_config(store) {
        Err(RepositoryError::Damaged { object, source, .. }) => {
            report.damage(&object, chain(&*source));
        }
        other => other?,
    }
    let mut listed = Vec::new();
    for prefix in ["k/", "d/", "w/"] {
        store.list(prefix, &mut |info| listed.push(info))?;
    }
    report.ignored = listed.len() as u64;
    listed.retain(|info| is_ours(&info.name));
    report.ignored -= listed.len() as u64;
    let threads = cores_and(0).clamp(2, WORKERS_MAX);
    let work = |info: &ObjectInfo, (): &mut ()| look(store, info);
    in_order(&listed, threads, &work, &mut |info, looked| {
        if monitor.is_cancelled() {
            return Err(RepositoryError::Cancelled);
        }
        match looked? {
            Looked::Gone => return Ok(()),
            Looked::Sound => {}
            Looked::Damaged(error) => report.damage(&info.name, error),
        }
        report.objects += 1;
        report.read_bytes += ByteCount::new(info.size_bytes);
        monitor.event(Event::Progress {
            entries: report.objects,
            bytes: report.read_bytes,
            bytes_expected: None,
        });
        Ok(())
    })?;
    report.damage.sort_by(|a, b| a.object.cmp(&b.object));
    Ok(report)
}

impl NameReport {
    fn damage(&mut self, object: &ObjectName, error: String) {
        self.damaged += 1;
        if self.damage.len() < REPORT_COUNT_MAX {
            let object = object.to_string();
            self.damage.push(Damage { object, error });
        }
    }
}

fn is_ours(name: &ObjectName) -> bool {
    layout::parse_slot(name).is_some() || hash_in(name).is_some()
}

/// Gives the hash at the end of a name.
fn hash_in(name: &ObjectName) -> Option<ObjectHash> {
    let last = name.as_str().rsplit(['/', '-']).next()?;
    ObjectHash::parse(last)
}

fn look(store: &dyn ObjectStore, info: &ObjectInfo) -> Result<Looked, RepositoryError> {
    let bytes = match store.get(&info.name, OBJECT_BYTES_MAX) {
        Err(error) if error.fault == StoreFault::NotFound => return Ok(Looked::Gone),
        Err(error) if error.fault == StoreFault::Malformed => {
            return Ok(Looked::Damaged(chain(&error)));
        }
        other => other?,
    };
    Ok(match hash_in(&info.name) {
        Some(hash) if ObjectHash::of(&bytes) == hash => Looked::Sound,
        Some(_) => Looked::Damaged(NameMismatch.to_string()),
        None if bytes.len() > SLOT_BYTES_MAX => Looked::Damaged("it is no slot".to_owned()),
        // Its name does not come from its bytes; that it opens, only its key can tell.
        None => match slot_lock(&bytes) {
            Ok(_) => Looked::Sound,
            Err(error) => Looked::Damaged(error.to_string()),
        },
    })
}
