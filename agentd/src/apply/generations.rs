//! Signed generations: from the inbox, verified, into force, the last five kept.
//!
//! The daemon that fills the inbox has a network and is not trusted: every rule is checked here
//! again. The controller that was joined first is pinned in a file that only root can change.

use std::fs;
use std::path::{Path, PathBuf};

use model::Instant;
use protocol::control::RefusedGeneration;
use protocol::{
    DOCUMENT_BYTES_MAX, Envelope, EnvelopeError, Generation, GenerationHash, JoinRecord,
    PayloadType,
};
use settings::Permission;

use super::error::ApplyError;
use super::files;
use super::host::Host;
use super::paths::Paths;
use crate::pin::Pin;

/// Generations that are kept for going back.
const KEPT_MAX: usize = 5;
/// Files that are looked at in the inbox.
const INBOX_MAX: usize = 64;

/// A generation that was verified and is not in force yet.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) generation: Generation,
    hash: GenerationHash,
    envelope: String,
    pin: Pin,
}

/// What the inbox holds.
#[derive(Debug)]
pub(crate) enum Incoming {
    Nothing,
    Refused(RefusedGeneration),
    Candidate(Box<Candidate>),
}

impl Candidate {
    /// Says that it is not taken although it was verified.
    pub(crate) fn refuse(&self, code: &str, message: String, at: Instant) -> RefusedGeneration {
        RefusedGeneration {
            number: Some(self.generation.number),
            code: code.to_owned(),
            message,
            at,
        }
    }
}

/// Gives number and text of the generation in force.
pub(crate) fn current(paths: &Paths) -> Result<Option<(u64, String)>, ApplyError> {
    let Some(number) = current_number(paths)? else {
        return Ok(None);
    };
    let path = paths.generations().join(format!("{number}.toml"));
    match files::read_text(&path)? {
        Some(text) => Ok(Some((number, text))),
        None => Err(ApplyError::Damaged {
            path,
            detail: "it is in force and gone".to_owned(),
        }),
    }
}

/// Gives the hash of the generation in force.
pub(crate) fn current_hash(paths: &Paths) -> Result<Option<GenerationHash>, ApplyError> {
    let Some(number) = current_number(paths)? else {
        return Ok(None);
    };
    let path = paths.generations().join(format!("{number}.hash"));
    let text = files::read_text(&path)?;
    Ok(text.and_then(|text| GenerationHash::try_from(text.trim().to_owned()).ok()))
}

fn current_number(paths: &Paths) -> Result<Option<u64>, ApplyError> {
    let link = paths.generations().join("current");
    match fs::read_link(&link) {
        Ok(target) => Ok(number_of(&target)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ApplyError::file("read the link", &link)(error)),
    }
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".toml")?.parse().ok()
}

/// Looks into the inbox: the newest generation that may be taken, or why the newest may not.
pub(crate) fn incoming(paths: &Paths, now: Instant) -> Result<Incoming, ApplyError> {
    let mut best: Option<Candidate> = None;
    let mut refused: Option<RefusedGeneration> = None;
    for path in inbox(paths)? {
        let length_max = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX) * 2;
        let read = match files::read(&path, length_max) {
            Ok(Some(bytes)) => verify(paths, &bytes),
            Ok(None) => continue,
            Err(error) => Err(Refused::new("malformed", error.chain())),
        };
        match read {
            Ok(found) => {
                let newer = best
                    .as_ref()
                    .is_none_or(|b| b.generation.number < found.generation.number);
                if newer {
                    best = Some(found);
                }
            }
            Err(why) => {
                refused = Some(RefusedGeneration {
                    number: None,
                    code: why.code,
                    message: why.message,
                    at: now,
                });
            }
        }
    }
    Ok(match (best, refused) {
        (Some(best), _) => Incoming::Candidate(Box::new(best)),
        (None, Some(refused)) => Incoming::Refused(refused),
        (None, None) => Incoming::Nothing,
    })
}

fn inbox(paths: &Paths) -> Result<Vec<PathBuf>, ApplyError> {
    let directory = paths.inbox();
    let listed = match fs::read_dir(&directory) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ApplyError::file("list", &directory)(error)),
    };
    let mut found = Vec::new();
    for entry in listed.take(INBOX_MAX) {
        let entry = entry.map_err(ApplyError::file("list", &directory))?;
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let half_written = path.extension().is_some_and(|end| end == "tmp");
        // The inbox belongs to another user: nothing but plain files is opened.
        let plain = entry.file_type().is_ok_and(|kind| kind.is_file());
        if plain && !hidden && !half_written {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Refused {
    code: String,
    message: String,
}

impl Refused {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

fn verify(paths: &Paths, bytes: &[u8]) -> Result<Candidate, Refused> {
    let internal = |error: ApplyError| Refused::new("malformed", error.chain());
    let pin = joined(paths)?;
    let applied = match (
        current_number(paths).map_err(internal)?,
        current_hash(paths).map_err(internal)?,
    ) {
        // Another controller, joined before, counted by itself.
        (Some(number), Some(hash)) if !is_of_another(paths, number, &pin) => Some((number, hash)),
        _ => None,
    };
    let refusal = |error: protocol::Refusal| Refused::new(error.code(), error.to_string());
    let envelope = Envelope::parse(bytes).map_err(|error| refusal(error.into()))?;
    let (generation, hash) =
        Generation::accept(&envelope, &pin.controller, pin.agent, applied).map_err(refusal)?;
    if !guard_allows(paths) {
        return Err(Refused::new(
            "not_allowed",
            "guard.toml does not allow the controller to send generations",
        ));
    }
    Ok(Candidate {
        generation,
        hash,
        envelope: envelope.to_text(),
        pin,
    })
}

/// True when a generation in force was signed by a controller that is obeyed no more. One whose
/// signer cannot be told counts as this controller's, which refuses more.
fn is_of_another(paths: &Paths, number: u64, pin: &Pin) -> bool {
    let path = paths.generations().join(format!("{number}.envelope"));
    let envelope = files::read_text(&path)
        .ok()
        .flatten()
        .and_then(|text| Envelope::parse(text.as_bytes()).ok());
    let opened = envelope.map(|envelope| {
        envelope
            .open(PayloadType::Generation, &pin.controller)
            .map(drop)
    });
    matches!(opened, Some(Err(EnvelopeError::WrongKey { .. })))
}

/// Gives whom this server obeys: the pinned controller, which must be the joined one.
fn joined(paths: &Paths) -> Result<Pin, Refused> {
    let internal = |error: ApplyError| Refused::new("not_joined", error.chain());
    let record: Option<JoinRecord> = files::read_json(&paths.join_record()).map_err(internal)?;
    let Some(record) = record else {
        return Err(Refused::new(
            "not_joined",
            "this server has joined no controller",
        ));
    };
    let joined = Pin {
        agent: record.agent,
        controller: record.controller,
    };
    let pinned: Option<Pin> = files::read_json(&pin_path(paths)).map_err(internal)?;
    match pinned {
        Some(pinned) if pinned != joined => Err(Refused::new(
            "other_controller",
            "this server obeys another controller: join it again as root, with backstayctl join --anew",
        )),
        _ => Ok(joined),
    }
}

fn pin_path(paths: &Paths) -> PathBuf {
    crate::pin::path(paths.root())
}

/// A guard file with a fault allows nothing; the fault is reported with the configuration.
fn guard_allows(paths: &Paths) -> bool {
    let folders = settings::Folders::below(paths.root());
    settings::Guard::load(&folders).is_ok_and(|guard| guard.allows(Permission::Generations))
}

/// Puts a generation into force.
pub(crate) fn store(
    host: &impl Host,
    paths: &Paths,
    candidate: &Candidate,
) -> Result<(), ApplyError> {
    let directory = paths.generations();
    let number = candidate.generation.number;
    if current_hash(paths)? == Some(candidate.hash) {
        return Ok(());
    }
    for (end, text) in [
        ("envelope", candidate.envelope.clone()),
        ("hash", candidate.hash.to_string()),
        ("toml", candidate.generation.toml.clone()),
    ] {
        let path = directory.join(format!("{number}.{end}"));
        files::replace(host, &path, text.as_bytes(), 0o640)?;
    }
    if !pin_path(paths).exists() {
        files::write_json(host, &pin_path(paths), &candidate.pin)?;
    }
    files::relink(host, &directory.join("current"), &format!("{number}.toml"))?;
    drop_old(host, paths, number)
}

fn drop_old(host: &impl Host, paths: &Paths, current: u64) -> Result<(), ApplyError> {
    let directory = paths.generations();
    let listed = fs::read_dir(&directory).map_err(ApplyError::file("list", &directory))?;
    let mut numbers: Vec<u64> = listed
        .filter_map(|entry| number_of(&entry.ok()?.path()))
        .filter(|number| *number != current)
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for number in numbers.into_iter().skip(KEPT_MAX - 1) {
        for end in ["toml", "hash", "envelope"] {
            files::remove(host, &directory.join(format!("{number}.{end}")))?;
        }
    }
    Ok(())
}

fn refused_path(paths: &Paths) -> PathBuf {
    paths.generations().join("rejected.json")
}

/// Notes why the newest generation is not in force.
pub(crate) fn refuse(
    host: &impl Host,
    paths: &Paths,
    refused: &RefusedGeneration,
) -> Result<(), ApplyError> {
    tracing::warn!(
        code = refused.code,
        number = refused.number,
        "generation refused: {}",
        refused.message
    );
    files::write_json(host, &refused_path(paths), refused)
}

/// Forgets the note: a generation was accepted since.
pub(crate) fn forgive(host: &impl Host, paths: &Paths) -> Result<(), ApplyError> {
    files::remove(host, &refused_path(paths))
}

/// Gives the note.
pub(crate) fn refused(paths: &Paths) -> Result<Option<RefusedGeneration>, ApplyError> {
    match files::read_json(&refused_path(paths)) {
        Err(ApplyError::Damaged { .. }) => Ok(None),
        other => other,
    }
}

/// Removes what was looked at.
pub(crate) fn clear_inbox(host: &impl Host, paths: &Paths) -> Result<(), ApplyError> {
    for path in inbox(paths)? {
        files::remove(host, &path)?;
    }
    Ok(())
}
