//! Who this agent is, and which controller it joined: files that only it and root can read.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::{JoinRecord, SigningKey};
use thiserror::Error;

const KEY: &str = "signing.key";
/// `apply` reads it too: a [`JoinRecord`] as JSON.
const RECORD: &str = "join.json";

/// Says which file of the identity cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Reading or writing failed.
    #[error("using {path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold what belongs there: {message}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A joined agent.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) key: SigningKey,
    pub(super) record: JoinRecord,
}

impl Identity {
    /// Reads the identity; `None` when this server has joined no controller.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = dir.join(RECORD);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let content = |path: PathBuf, message: String| IdentityError::Content { path, message };
        let record: JoinRecord =
            serde_json::from_slice(&text).map_err(|e| content(path.clone(), e.to_string()))?;
        let Some(key) = read_key(dir)? else {
            return Err(content(dir.join(KEY), "it is absent".into()));
        };
        if key.public().agent_id() != record.agent {
            return Err(content(path, "it belongs to another agent's key".into()));
        }
        Ok(Some(Self { key, record }))
    }

    /// Keeps a join record.
    pub(super) fn keep(dir: &Path, record: &JoinRecord) -> Result<(), IdentityError> {
        let path = dir.join(RECORD);
        let text = serde_json::to_vec_pretty(record).map_err(|error| IdentityError::Content {
            path: path.clone(),
            message: error.to_string(),
        })?;
        write(dir, RECORD, &text).map_err(|source| IdentityError::File { path, source })
    }
}

/// Reads the signing key, and makes one when there is none.
pub(super) fn key(dir: &Path) -> Result<SigningKey, IdentityError> {
    if let Some(key) = read_key(dir)? {
        return Ok(key);
    }
    let file = |source| IdentityError::File {
        path: dir.join(KEY),
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(dir)
        .map_err(file)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(io::Error::other)
        .map_err(file)?;
    write(dir, KEY, &seed).map_err(file)?;
    Ok(SigningKey::from_seed(&seed))
}

fn read_key(dir: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let path = dir.join(KEY);
    let Some(bytes) = read(&path)? else {
        return Ok(None);
    };
    let seed: [u8; 32] = bytes.try_into().map_err(|_| IdentityError::Content {
        path,
        message: "32 bytes are expected".into(),
    })?;
    Ok(Some(SigningKey::from_seed(&seed)))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(IdentityError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file whole or not at all. `apply`, which is root without capabilities and in the
/// directory's group, reads all but the key. It gets the owner of its directory, because `join` runs as
/// root and the daemon does not.
pub(super) fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(format!(".{name}.new"));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if name == KEY { 0o600 } else { 0o640 })
        .open(&draft)?;
    let owner = std::fs::metadata(dir)?;
    if file.metadata()?.uid() != owner.uid() {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let identity = dir.path().join("identity");
        let first = key(&identity).unwrap();
        assert_eq!(first.public(), key(&identity).unwrap().public());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&identity.join(KEY)), 0o600);
        assert_eq!(mode(&identity), 0o750);
        assert!(Identity::read(&identity).unwrap().is_none());
    }
}
