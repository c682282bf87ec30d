//! Which controller this server obeys: a file that only root can change. Joining writes it; the
//! root halves of the agent believe it, not what the daemon keeps of the joining.

use std::io;
use std::path::{Path, PathBuf};

use model::AgentId;
use protocol::PublicKey;
use serde::{Deserialize, Serialize};

/// A controller's key holds less, by far.
const BYTES_MAX: u64 = 64 * 1024;

/// The controller that this server obeys, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    pub(crate) agent: AgentId,
    pub(crate) controller: PublicKey,
}

/// Names the file below `root`.
pub(crate) fn path(root: &Path) -> PathBuf {
    root.join("var/lib/backstay/generations/controller.json")
}

/// Reads the pin; `None` when no controller was ever obeyed.
pub(crate) fn read(root: &Path) -> io::Result<Option<Pin>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    match std::fs::File::open(path(root)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?.take(BYTES_MAX).read_to_end(&mut text)?,
    };
    Ok(Some(serde_json::from_slice(&text)?))
}
