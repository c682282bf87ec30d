//! Snapshots: what a run leaves (`docs/format.md`, "Snapshots").

use edge::TreePath;
use model::{ByteCount, Instant, RunId, SessionId, SnapshotId};
use sealing::ChunkId;
use serde::{Deserialize, Serialize};

use crate::layout::ObjectHash;
use crate::tree::TreeRoot;

/// The longest snapshot object.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 1024 * 1024 + 4096;
/// The most failures that a snapshot names.
pub(crate) const FAILURE_COUNT_MAX: usize = 100;
/// The longest text of one failure.
const FAILURE_TEXT_MAX: usize = 1024;
/// The longest texts of all trees together.
const ROOTS_BYTES_MAX: usize = 256 * 1024;
/// The most accounts that a snapshot names.
const ACCOUNT_COUNT_MAX: usize = 4096;

/// Whether a snapshot holds all that it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// Everything.
    Complete,
    /// An object is missing.
    Partial,
}

/// One object that a snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFailure {
    /// Which object, escaped.
    pub object: String,
    /// Why, causes outermost first.
    pub error: String,
}

/// A stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What it says.
    pub body: SnapshotBody,
    pub(crate) hash: ObjectHash,
    pub(crate) root: ChunkId,
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBody {
    /// The schedule that made it.
    pub schedule: String,
    /// The server that it was made on.
    pub host: String,
    /// The run that made it.
    #[serde(default)]
    pub run: Option<RunId>,
    /// The session in which it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// When the walk began.
    pub started_at: Instant,
    /// When the walk ended.
    pub finished_at: Instant,
    /// Whether it holds everything.
    pub status: SnapshotStatus,
    /// The snapshot that unchanged entries were taken from.
    #[serde(default)]
    pub parent: Option<SnapshotId>,
    /// Under which id it was first stored, when it was stored again with a newer key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<SnapshotId>,
    root: String,
    /// Number of entries.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: ByteCount,
    /// Number of objects that could not be backed up.
    #[serde(default)]
    pub failed: u64,
    /// The first of them.
    #[serde(default)]
    pub failures: Vec<SnapshotFailure>,
    /// Names of the top-level directories, escaped.
    #[serde(default)]
    pub accounts: Vec<String>,
    #[serde(default)]
    roots: Vec<String>,
    /// What a person asked for, written as the roots are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    paths: Vec<String>,
    /// How many runs read a share of the unchanged files again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) reread_round: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for this type"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Snapshots that succeed each other, so that rules of retention and what is usual are those of each
/// series alone: all of schedules together, or what one host backed up of the same paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series<'s>(Option<(&'s str, &'s [String])>);

impl SnapshotBody {
    /// Gives the series that the snapshot is of.
    pub(crate) fn series(&self) -> Series<'_> {
        let by_hand = !self.paths.is_empty();
        Series(by_hand.then_some((&self.host, &self.paths)))
    }

    /// Gives the paths that a person asked for, in order; none in a run of a schedule.
    #[must_use]
    pub fn paths(&self) -> Vec<TreePath> {
        let paths = self.paths.iter();
        paths.filter_map(|text| root_from_text(text)).collect()
    }

    /// Gives the trees that the source walked, as paths in the snapshot: what a restore in place
    /// replaces as a whole.
    #[must_use]
    pub fn roots(&self) -> Vec<TreePath> {
        self.roots
            .iter()
            .filter_map(|text| root_from_text(text))
            .collect()
    }
}

/// Gives the texts of as many paths as there is room for.
fn texts(paths: &[TreePath]) -> Vec<String> {
    let texts = paths.iter().map(root_to_text);
    texts.take_while(fits(ROOTS_BYTES_MAX)).collect()
}

/// Writes a path as hexadecimal digits: its bytes need not be text.
fn root_to_text(path: &TreePath) -> String {
    path.parts()
        .join(&b'/')
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn root_from_text(text: &str) -> Option<TreePath> {
    let digits = text.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    TreePath::parse(&bytes?).ok()
}

/// What a run knows when its walk has ended.
pub(crate) struct NewSnapshot {
    pub(crate) schedule: String,
    pub(crate) host: String,
    pub(crate) run: Option<RunId>,
    pub(crate) session: Option<SessionId>,
    pub(crate) started_at: Instant,
    pub(crate) finished_at: Instant,
    /// The walk did not come to its end.
    pub(crate) is_cut: bool,
    pub(crate) parent: Option<SnapshotId>,
    pub(crate) root: TreeRoot,
    pub(crate) failed: u64,
    pub(crate) failures: Vec<SnapshotFailure>,
    pub(crate) accounts: Vec<String>,
    pub(crate) roots: Vec<TreePath>,
    pub(crate) paths: Vec<TreePath>,
    pub(crate) reread_round: u64,
}

impl NewSnapshot {
    /// Gives the plaintext of the snapshot object.
    pub(crate) fn encode(self) -> Result<Vec<u8>, serde_json::Error> {
        let mut failures = self.failures;
        failures.truncate(FAILURE_COUNT_MAX);
        for failure in &mut failures {
            cut(&mut failure.object);
            cut(&mut failure.error);
        }
        let mut accounts = self.accounts;
        accounts.truncate(ACCOUNT_COUNT_MAX);
        accounts.retain(|account| account.len() <= 200);
        let mut paths = self.paths;
        paths.sort();
        paths.dedup();
        serde_json::to_vec(&SnapshotBody {
            schedule: self.schedule,
            host: self.host,
            run: self.run,
            session: self.session,
            started_at: self.started_at,
            finished_at: self.finished_at,
            status: if self.failed == 0 && !self.is_cut {
                SnapshotStatus::Complete
            } else {
                SnapshotStatus::Partial
            },
            parent: self.parent,
            id: None,
            root: self.root.id.to_string(),
            entries: self.root.entries,
            bytes: ByteCount::new(self.root.bytes),
            failed: self.failed,
            failures,
            accounts,
            roots: texts(&self.roots),
            paths: texts(&paths),
            reread_round: self.reread_round,
        })
    }
}

/// Says why an opened snapshot object cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("it is not a snapshot")]
    Json(#[from] serde_json::Error),
    #[error("its root is not the id of a page")]
    Root,
}

impl Snapshot {
    /// Reads the plaintext of the object named by `hash`. Only of who may read it is believed that
    /// it stood under another id before.
    pub(crate) fn decode(
        hash: ObjectHash,
        plaintext: &[u8],
        is_by_reader: bool,
    ) -> Result<Self, SnapshotError> {
        let body: SnapshotBody = serde_json::from_slice(plaintext)?;
        let root = ObjectHash::parse(&body.root).ok_or(SnapshotError::Root)?;
        Ok(Self {
            id: body.id.filter(|_| is_by_reader).unwrap_or(id_of(&hash)),
            root: ChunkId::from_bytes(*root.as_bytes()),
            hash,
            body,
        })
    }
}

/// Writes the id under which a snapshot is known into its plaintext; all else stays as it is.
pub(crate) fn with_id(plaintext: &[u8], id: SnapshotId) -> Result<Vec<u8>, serde_json::Error> {
    let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(plaintext)?;
    body.insert("id".to_owned(), id.to_string().into());
    serde_json::to_vec(&body)
}

/// Gives the id of a snapshot that was stored only once.
pub(crate) fn id_of(hash: &ObjectHash) -> SnapshotId {
    let first = hash.as_bytes().first_chunk().copied();
    SnapshotId::from_bytes(first.unwrap_or_default())
}

/// True until the texts together are longer than `bytes_max`.
fn fits(bytes_max: usize) -> impl FnMut(&String) -> bool {
    let mut total = 0;
    move |text| {
        total += text.len();
        total <= bytes_max
    }
}

fn cut(text: &mut String) {
    while text.len() > FAILURE_TEXT_MAX {
        text.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_snapshot_is_bounded_and_reads_back() {
        let failure = SnapshotFailure {
            object: "\u{1}".repeat(9000),
            error: "\u{e4}".repeat(9000),
        };
        let new = NewSnapshot {
            schedule: "nightly".into(),
            host: "web1".into(),
            run: None,
            session: None,
            started_at: Instant::from_secs(1),
            finished_at: Instant::from_secs(2),
            is_cut: false,
            parent: None,
            root: TreeRoot {
                id: ChunkId::from_bytes([9; 32]),
                entries: 4,
                bytes: 5,
            },
            failed: 1000,
            failures: vec![failure; 1000],
            accounts: vec!["acme.1001".into(); 9000],
            roots: vec![TreePath::parse(b"acme.1001/files/home/\xff").unwrap()],
            paths: vec![
                TreePath::parse(b"srv/b").unwrap(),
                TreePath::parse(b"srv/a").unwrap(),
            ],
            reread_round: 3,
        };
        let plaintext = new.encode().unwrap();
        assert!((plaintext.len() as u64) < SNAPSHOT_BYTES_MAX);
        let hash = ObjectHash::of(&plaintext);
        let read = Snapshot::decode(hash, &plaintext, true).unwrap();
        assert_eq!(read.root, ChunkId::from_bytes([9; 32]));
        assert_eq!(read.body.status, SnapshotStatus::Partial);
        assert_eq!(read.body.failures.len(), FAILURE_COUNT_MAX);
        assert!(hash.to_string().starts_with(&read.id.to_string()));
        let sorted = ["srv/a", "srv/b"].map(|text| TreePath::parse(text.as_bytes()).unwrap());
        assert_eq!(read.body.paths(), sorted);
        let other = SnapshotId::from_bytes([3; 16]);
        let again = with_id(&plaintext, other).unwrap();
        let sealed_again = Snapshot::decode(hash, &again, true).unwrap();
        assert_eq!(sealed_again.body.series(), read.body.series());
        assert_eq!(Snapshot::decode(hash, &again, true).unwrap().id, other);
        assert_eq!(Snapshot::decode(hash, &again, false).unwrap().id, read.id);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            drop(Snapshot::decode(ObjectHash::of(b""), &bytes, true));
        }
    }
}
