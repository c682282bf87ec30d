//! This server's files, as `docs/ARCHITECTURE.md` names them, below a root that is `/` unless a
//! rescued disk is looked at.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ledger::{Ledger, LedgerError};
use model::Exit;
use protocol::JoinRecord;

use crate::problem::Problem;

/// Where the agent's program lies.
pub const AGENT: &str = "usr/lib/backstay/backstay-agentd";

/// The longest generation that is read, in bytes.
const GENERATION_BYTES_MAX: u64 = 1 << 20;

/// The longest join record that is read, in bytes.
const JOIN_RECORD_BYTES_MAX: u64 = 64 * 1024;

/// A server's file system.
#[derive(Debug, Clone)]
pub struct Server {
    root: PathBuf,
}

impl Server {
    /// Takes the directory that holds `etc`, `var` and `run`.
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// True when this is the running system, not a mounted disk.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The agent's program.
    pub fn agent(&self) -> PathBuf {
        self.root.join(AGENT)
    }

    /// `/etc/backstay`.
    pub fn configuration(&self) -> PathBuf {
        self.root.join("etc/backstay")
    }

    /// `/var/lib/backstay/credstore`.
    pub fn credential_store(&self) -> PathBuf {
        self.root.join("var/lib/backstay/credstore")
    }

    /// `/var/lib/backstay/generations`.
    pub fn generations(&self) -> PathBuf {
        self.root.join("var/lib/backstay/generations")
    }

    /// `/var/lib/backstay/identity`.
    pub fn identity(&self) -> PathBuf {
        self.root.join("var/lib/backstay/identity")
    }

    /// `/var/lib/backstay/orders`.
    pub fn orders(&self) -> PathBuf {
        self.root.join("var/lib/backstay/orders")
    }

    /// `/run/backstay/apply.sock`.
    pub fn apply_socket(&self) -> PathBuf {
        self.root.join("run/backstay/apply.sock")
    }

    /// Reads the accepted generation: its number and text. None when no controller sent one.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn generation(&self) -> Result<Option<(u64, String)>, Problem> {
        let current = self.generations().join("current");
        let unreadable = |error: &std::io::Error| {
            if error.kind() == ErrorKind::PermissionDenied {
                return not_allowed(&format!("reading {}", current.display()));
            }
            Problem::new(Exit::Failed, "cannot read the accepted generation")
                .cause(format!("reading {}", current.display()))
                .because(error)
                .hint("journalctl -u backstay-apply -n 50")
        };
        let target = match std::fs::read_link(&current) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&error)),
        };
        let number = target
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok());
        let Some(number) = number else {
            return Err(unreadable(&ErrorKind::InvalidData.into()));
        };
        let mut text = String::new();
        File::open(&current)
            .and_then(|file| file.take(GENERATION_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| unreadable(&error))?;
        Ok(Some((number, text)))
    }

    /// Reads which controller this server joined. None when it stands alone.
    pub fn joined(&self) -> Option<JoinRecord> {
        let file = File::open(self.identity().join("join.json")).ok()?;
        serde_json::from_reader(file.take(JOIN_RECORD_BYTES_MAX)).ok()
    }

    fn ledger_path(&self) -> PathBuf {
        self.root.join("var/lib/backstay/ledger/ledger.db")
    }

    /// Opens the ledger for reading. None when nothing has run here yet.
    ///
    /// # Errors
    ///
    /// When the agent is not installed, the caller is not root, or the file is damaged.
    pub fn ledger(&self) -> Result<Option<Ledger>, Problem> {
        let path = self.ledger_path();
        match std::fs::metadata(&path) {
            Ok(_) => open_begun(&path),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(not_allowed(&path.display().to_string()))
            }
            Err(_) => self.installed().map(|()| None),
        }
    }

    /// Checks that jobs can write to the ledger; without its row no run begins. A server where
    /// nothing has run has none yet.
    ///
    /// # Errors
    ///
    /// When the file or its file system does not take anything.
    pub fn writable_ledger(&self) -> Result<(), Problem> {
        let path = self.ledger_path();
        match look_writable(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let source = error;
                let path = path.display().to_string();
                Err(ledger_problem(&LedgerError::Unwritable { path, source }))
            }
            _ => Ok(()),
        }
    }

    /// Opens the ledger for writing.
    ///
    /// # Errors
    ///
    /// As [`Server::ledger`].
    pub fn ledger_for_writing(&self) -> Result<Ledger, Problem> {
        self.installed()?;
        let path = self.ledger_path();
        if let Err(error) = std::fs::metadata(&path)
            && error.kind() == ErrorKind::PermissionDenied
        {
            return Err(not_allowed(&path.display().to_string()));
        }
        Ledger::open(&path).map_err(|error| ledger_problem(&error))
    }

    /// Checks that the agent is installed here.
    ///
    /// # Errors
    ///
    /// When its program is not there.
    pub fn installed(&self) -> Result<(), Problem> {
        let agent = self.agent();
        if agent.exists() {
            return Ok(());
        }
        Err(
            Problem::new(Exit::Failed, "the Backstay agent is not installed here")
                .cause(format!("{} does not exist", agent.display()))
                .hint("apt install backstay-agent")
                .hint(
                    "to read backups from here without an agent: backstayctl snapshots --repo DIR --key-file FILE",
                ),
        )
    }

    /// Checks that the caller is root.
    ///
    /// # Errors
    ///
    /// When it is not; the hint repeats the command with sudo.
    pub fn as_root(&self, doing: &str) -> Result<(), Problem> {
        if !self.is_live() || rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(not_allowed(doing))
    }
}

fn look_writable(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().append(true).open(path)?;
    // Root may write anything; jobs are members of the file's group.
    if file.metadata()?.mode() & 0o020 == 0 {
        return Err(std::io::Error::new(
            ErrorKind::PermissionDenied,
            "its group, which jobs belong to, may not write it (chmod 0660)",
        ));
    }
    if rustix::fs::fstatvfs(&file)?.f_bavail == 0 {
        return Err(ErrorKind::StorageFull.into());
    }
    Ok(())
}

/// Opens the ledger for reading. None while the first job has made the file and not its tables.
fn open_begun(path: &Path) -> Result<Option<Ledger>, Problem> {
    let opened = Ledger::open_read_only(path).and_then(|ledger| {
        ledger.outbox_len()?;
        Ok(ledger)
    });
    match opened {
        Ok(ledger) => Ok(Some(ledger)),
        Err(error) => {
            let problem = ledger_problem(&error);
            if problem.summary().contains("no such table") {
                Ok(None)
            } else {
                Err(problem)
            }
        }
    }
}

/// Says that only root may do this, and how to.
pub fn not_allowed(what: &str) -> Problem {
    let typed: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|word| model::escape(word.as_encoded_bytes()))
        .collect();
    Problem::new(Exit::Failed, format!("{what}: only root may do this"))
        .hint(format!("sudo backstayctl {}", typed.join(" ")))
}

/// Gives the problem that an error of the ledger is.
pub fn ledger_problem(error: &LedgerError) -> Problem {
    let problem = Problem::new(Exit::Failed, "cannot use the ledger of this server").because(error);
    match error {
        LedgerError::Newer { .. } => problem.hint("apt install --only-upgrade backstay-ctl"),
        LedgerError::Open { .. }
        | LedgerError::Unwritable { .. }
        | LedgerError::Statement { .. } => {
            problem.hint("df -h /var/lib/backstay; journalctl -u 'backstay-*' -n 50")
        }
        LedgerError::Record { .. } | LedgerError::Absent { .. } => {
            problem.hint("journalctl -u 'backstay-*' -n 50")
        }
    }
}
