//! Condemned packs: a decision to delete them, which stands until they are gone
//! (`docs/format.md`, "Deletion").

use std::collections::BTreeSet;

use edge::Entropy;
use model::Instant;
use sealing::{ObjectKind, open_single, seal_single};
use serde::{Deserialize, Serialize};

use crate::domain::Domain;
use crate::error::RepositoryError;
use crate::layout::ObjectHash;

/// The longest object of condemned packs.
const CONDEMNED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The most packs that one object names; the rest is condemned by the next prune.
pub(crate) const CONDEMNED_COUNT_MAX: usize = 50_000;

/// A pack by name and kind.
pub(crate) type PackName = (ObjectHash, ObjectKind);

/// One decision.
#[derive(Debug, Clone)]
pub(crate) struct Condemned {
    /// Names the object.
    pub(crate) hash: ObjectHash,
    /// When it was made, by the clock of who made it.
    pub(crate) at: Instant,
    /// The packs, those that are gone among them.
    pub(crate) packs: Vec<PackName>,
}

/// A decision as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct CondemnedText {
    at: Instant,
    packs: Vec<String>,
}

impl Domain {
    /// Decides that packs are to be deleted. From now on nobody may begin to rely on them.
    pub(crate) fn condemn(
        &self,
        packs: &[PackName],
        at: Instant,
        entropy: &dyn Entropy,
    ) -> Result<ObjectHash, RepositoryError> {
        let kind = ObjectKind::Condemned;
        let text = CondemnedText {
            at,
            packs: packs.iter().map(pack_text).collect(),
        };
        let plaintext = serde_json::to_vec(&text)
            .map_err(|error| self.damaged(kind, &ObjectHash::of(b""), error))?;
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let sealed = seal_single(self.keyring(), kind, &salt, &plaintext)
            .map_err(RepositoryError::Sealing)?;
        let hash = ObjectHash::of(&sealed);
        self.store().put(&self.name(kind, &hash), &sealed)?;
        Ok(hash)
    }

    /// Reads a decision; `None` when it was carried out since it was listed.
    pub(crate) fn read_condemned(
        &self,
        hash: &ObjectHash,
    ) -> Result<Option<Condemned>, RepositoryError> {
        let kind = ObjectKind::Condemned;
        let name = self.name(kind, hash);
        let Some(stored) = self.read_beside(&name, Some(hash), CONDEMNED_BYTES_MAX)? else {
            return Ok(None);
        };
        let plaintext = open_single(self.keyring(), kind, &stored)
            .map_err(|error| self.damaged(kind, hash, error))?;
        let text: CondemnedText =
            serde_json::from_slice(&plaintext).map_err(|error| self.damaged(kind, hash, error))?;
        Ok(Some(Condemned {
            hash: *hash,
            at: text.at,
            packs: text.packs.iter().filter_map(|text| parse(text)).collect(),
        }))
    }

    /// Gives all packs that are condemned, as far as decisions can be read.
    pub(crate) fn known_condemned_packs(&self) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
        let mut packs = BTreeSet::new();
        for (hash, _) in self.list(ObjectKind::Condemned)? {
            match self.read_condemned(&hash) {
                Ok(one) => {
                    let named = one.into_iter().flat_map(|one| one.packs);
                    packs.extend(named.map(|(pack, _)| pack));
                }
                Err(error) if error.is_wreck() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    /// Gives all packs that are condemned.
    pub(crate) fn condemned_packs(&self) -> Result<BTreeSet<ObjectHash>, RepositoryError> {
        let mut packs = BTreeSet::new();
        for (hash, _) in self.list(ObjectKind::Condemned)? {
            let condemned = self.read_condemned(&hash)?;
            let named = condemned.into_iter().flat_map(|one| one.packs);
            packs.extend(named.map(|(pack, _)| pack));
        }
        Ok(packs)
    }
}

fn pack_text((hash, kind): &PackName) -> String {
    let letter = match kind {
        ObjectKind::DataPack => 'p',
        _ => 'm',
    };
    format!("{letter}/{hash}")
}

fn parse(text: &str) -> Option<PackName> {
    let (letter, hash) = text.split_once('/')?;
    let kind = match letter {
        "p" => ObjectKind::DataPack,
        "m" => ObjectKind::MetadataPack,
        _ => return None,
    };
    Some((ObjectHash::parse(hash)?, kind))
}
