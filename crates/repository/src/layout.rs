//! Names of stored objects (`docs/format.md`, "Objects").

use std::fmt;

use edge::ObjectName;
use model::{DomainId, SessionId};
use sealing::{ObjectKind, SlotName};

/// The longest `repository` object.
pub(crate) const CONFIG_BYTES_MAX: u64 = 4096;

/// The BLAKE3-256 hash of a stored object, which names it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectHash([u8; 32]);

impl ObjectHash {
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        blake3::Hash::from_hex(text)
            .ok()
            .map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ObjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ObjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectHash({self})")
    }
}

pub(crate) fn config() -> ObjectName {
    name("repository".to_owned())
}

pub(crate) fn slot(domain: DomainId, slot: SlotName) -> ObjectName {
    name(format!("k/{domain}/{slot}"))
}

/// Gives the name, in a cache, of the key of the machine for what it keeps of a domain.
pub(crate) fn local_key(domain: DomainId) -> ObjectName {
    name(format!("w/{domain}/local-key"))
}

/// Gives the name, in a cache, of what the last run knew of the index at a place.
pub(crate) fn held(domain: DomainId, place: &str) -> ObjectName {
    let place = ObjectHash::of(place.as_bytes());
    name(format!("w/{domain}/held-{place}"))
}

/// Reads a listed name, or `None` when it is not that of a slot.
pub(crate) fn parse_slot(listed: &ObjectName) -> Option<(DomainId, SlotName)> {
    let (domain_text, slot_text) = listed.as_str().strip_prefix("k/")?.split_once('/')?;
    let (domain, name) = (domain_text.parse().ok()?, SlotName::parse(slot_text)?);
    (slot(domain, name) == *listed).then_some((domain, name))
}

/// Gives the name of a content-named object.
pub(crate) fn object(domain: DomainId, kind: ObjectKind, hash: &ObjectHash) -> ObjectName {
    match letter(kind) {
        Some(letter) => {
            let [first, ..] = hash.as_bytes();
            name(format!("d/{domain}/{letter}/{first:02x}/{hash}"))
        }
        None => name(format!("w/{domain}/{}-{hash}", word(kind))),
    }
}

/// Gives the prefix of all objects of a kind.
pub(crate) fn prefix(domain: DomainId, kind: ObjectKind) -> String {
    letter(kind).map_or_else(
        || format!("w/{domain}/"),
        |letter| format!("d/{domain}/{letter}/"),
    )
}

/// Reads a listed name, or `None` when it is not one of that kind and domain.
pub(crate) fn parse(domain: DomainId, kind: ObjectKind, listed: &ObjectName) -> Option<ObjectHash> {
    let rest = listed.as_str().strip_prefix(&prefix(domain, kind))?;
    let hash = match letter(kind) {
        Some(_) => rest.split_once('/')?.1,
        None => rest.strip_prefix(word(kind))?.strip_prefix('-')?,
    };
    let hash = ObjectHash::parse(hash)?;
    (object(domain, kind, &hash) == *listed).then_some(hash)
}

const fn letter(kind: ObjectKind) -> Option<char> {
    match kind {
        ObjectKind::DataPack => Some('p'),
        ObjectKind::MetadataPack => Some('m'),
        ObjectKind::IndexSegment => Some('i'),
        ObjectKind::Snapshot => Some('s'),
        ObjectKind::Condemned | ObjectKind::Pin | ObjectKind::Session | ObjectKind::Revoked => None,
    }
}

const fn word(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Pin => "pin",
        ObjectKind::Session => "session",
        ObjectKind::Revoked => "revoked",
        _ => "condemned",
    }
}

/// Gives the name of a snapshot that was let go at a second since 1970.
pub(crate) fn trash(domain: DomainId, secs: i64, hash: &ObjectHash) -> ObjectName {
    dated(domain, "trash", secs, hash)
}

/// Gives the name of a checkpoint that was written at a second since 1970.
pub(crate) fn checkpoint(domain: DomainId, secs: i64, hash: &ObjectHash) -> ObjectName {
    dated(domain, "checkpoint", secs, hash)
}

/// Gives the prefix of what is beside the data, each kind of it told by its name. Stores list whole
/// folders only.
pub(crate) fn beside_prefix(domain: DomainId) -> String {
    format!("w/{domain}/")
}

/// Reads a listed name, or `None` when it is not that of a checkpoint of the domain.
pub(crate) fn parse_checkpoint(domain: DomainId, listed: &ObjectName) -> Option<(i64, ObjectHash)> {
    parse_dated(domain, "checkpoint", listed)
}

/// Gives the name of the note that a pack is damaged.
pub(crate) fn damaged(domain: DomainId, hash: &ObjectHash) -> ObjectName {
    name(format!("w/{domain}/damaged-{hash}"))
}

/// Reads a listed name, or `None` when it is no note on damage in the domain.
pub(crate) fn parse_damaged(domain: DomainId, listed: &ObjectName) -> Option<ObjectHash> {
    ObjectHash::parse(
        listed
            .as_str()
            .strip_prefix(&format!("w/{domain}/damaged-"))?,
    )
}

fn dated(domain: DomainId, word: &str, secs: i64, hash: &ObjectHash) -> ObjectName {
    name(format!("w/{domain}/{word}-{:016x}-{hash}", secs.max(0)))
}

fn parse_dated(domain: DomainId, word: &str, listed: &ObjectName) -> Option<(i64, ObjectHash)> {
    let rest = listed
        .as_str()
        .strip_prefix(&format!("w/{domain}/{word}-"))?;
    let (secs, hash) = rest.split_once('-')?;
    let (secs, hash) = (
        i64::from_str_radix(secs, 16).ok()?,
        ObjectHash::parse(hash)?,
    );
    (dated(domain, word, secs, &hash) == *listed).then_some((secs, hash))
}

/// Reads a listed name, or `None` when it is not that of a snapshot in the trash of the domain.
pub(crate) fn parse_trash(domain: DomainId, listed: &ObjectName) -> Option<(i64, ObjectHash)> {
    parse_dated(domain, "trash", listed)
}

/// Gives the name that says that a session is waited for no more.
pub(crate) fn revoked(domain: DomainId, session: SessionId) -> ObjectName {
    name(format!("w/{domain}/revoked-{session}"))
}

/// Reads a listed name, or `None` when it does not say so of a session of the domain.
pub(crate) fn parse_revoked(domain: DomainId, listed: &ObjectName) -> Option<SessionId> {
    let rest = listed
        .as_str()
        .strip_prefix(&format!("w/{domain}/revoked-"))?;
    rest.parse().ok()
}

#[expect(
    clippy::expect_used,
    reason = "all parts are lower-case letters, digits and dashes"
)]
fn name(text: String) -> ObjectName {
    ObjectName::new(text).expect("our own names are object names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_names_read_back_and_others_are_ignored() {
        let domain = DomainId::from_bytes([0xab; 16]);
        let hash = ObjectHash::of(b"x");
        for kind in [
            ObjectKind::DataPack,
            ObjectKind::MetadataPack,
            ObjectKind::IndexSegment,
            ObjectKind::Snapshot,
            ObjectKind::Condemned,
            ObjectKind::Pin,
            ObjectKind::Session,
        ] {
            let name = object(domain, kind, &hash);
            assert!(name.as_str().starts_with(&prefix(domain, kind)));
            assert_eq!(parse(domain, kind, &name), Some(hash));
            assert_eq!(parse(DomainId::from_bytes([1; 16]), kind, &name), None);
        }
        let thrown = trash(domain, 1_700_000_000, &hash);
        assert_eq!(parse_trash(domain, &thrown), Some((1_700_000_000, hash)));
        assert_eq!(parse(domain, ObjectKind::Pin, &thrown), None);
        let cut = checkpoint(domain, 1_700_000_000, &hash);
        assert!(cut.as_str().starts_with(&beside_prefix(domain)));
        assert_eq!(parse_checkpoint(domain, &cut), Some((1_700_000_000, hash)));
        assert_eq!(parse_checkpoint(domain, &thrown), None);
        assert_eq!(parse_trash(domain, &cut), None);
        let note = damaged(domain, &hash);
        assert!(note.as_str().starts_with(&beside_prefix(domain)));
        assert_eq!(parse_damaged(domain, &note), Some(hash));
        assert_eq!(parse_damaged(domain, &cut), None);
        assert_eq!(parse_trash(DomainId::from_bytes([1; 16]), &thrown), None);
        let session = SessionId::from_bytes([7; 16]);
        let gone = revoked(domain, session);
        assert_eq!(parse_revoked(domain, &gone), Some(session));
        assert_eq!(parse_revoked(DomainId::from_bytes([1; 16]), &gone), None);
        let astray = ObjectName::new(format!("d/{domain}/p/00/{hash}")).unwrap();
        assert_eq!(parse(domain, ObjectKind::DataPack, &astray), None);
    }
}
