//! What a lab made on this machine, and how it is removed: at the end of the lab, and also when its process dies.
//!
//! Everything carries the lab's id: the control groups hold every process, the network namespaces and the directory
//! bear it in their names, and mounts live in namespaces of those processes. So removal needs no list. The directory
//! holds a lock that its owner keeps; a guard process waits for that lock and removes the lab of an owner that died.

use std::fs::{self, File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::command;
use crate::fault::{Doing, Result};
use crate::{machine, process};

const REAP: &str = include_str!("assets/reap.sh");

/// One lab's directory and id. Dropping it removes everything the lab made.
#[derive(Debug)]
pub struct Record {
    id: String,
    directory: PathBuf,
    groups: Vec<PathBuf>,
    guard: Child,
    _lock: File,
}

impl Record {
    /// Makes the directory and the control groups of a new lab, and starts its guard.
    ///
    /// # Errors
    ///
    /// When this machine lets none of it be made.
    pub fn create() -> Result<Self> {
        let parent = runs_directory()?;
        let directory = tempfile::Builder::new()
            .prefix("")
            .rand_bytes(6)
            .tempdir_in(&parent)
            .doing(|| format!("making a lab below {}", parent.display()))?
            .keep();
        let id = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let lock = File::create(directory.join("owner"))
            .and_then(|file| file.lock().map(|()| file))
            .doing(|| format!("locking the lab {id}"))?;
        let guard = start_guard(&id, &directory)?;
        let groups = machine::group_roots()
            .into_iter()
            .map(|root| root.join(group_name(&id)))
            .collect();
        let record = Self {
            id,
            directory,
            groups,
            guard,
            _lock: lock,
        };
        record.group("shell")?;
        Ok(record)
    }

    /// Gives the short name that everything of this lab carries.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives the file with the names of all hosts, which every host sees as `/etc/hosts`.
    #[must_use]
    pub fn names_file(&self) -> PathBuf {
        self.directory.join("names")
    }

    /// Gives the directory of one host.
    #[must_use]
    pub fn host_directory(&self, host: &str) -> PathBuf {
        self.directory.join("hosts").join(host)
    }

    /// Gives the control groups called `name`, one for each hierarchy; makes them when they are missing.
    ///
    /// # Errors
    ///
    /// When a group cannot be made.
    pub fn group(&self, name: &str) -> Result<Vec<PathBuf>> {
        self.groups
            .iter()
            .map(|root| {
                let group = root.join(name);
                fs::create_dir_all(&group)
                    .doing(|| format!("making the control group {}", group.display()))?;
                Ok(group)
            })
            .collect()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The guard first, so that only one of the two removes. Its end is waited for: it is our child.
        self.guard.kill().ok();
        self.guard.wait().ok();
        if let Err(fault) = reap(&self.id, &self.directory) {
            machine::complain(&fault);
        }
    }
}

/// A host that runs now, in any lab of this machine.
#[derive(Debug)]
pub struct RunningHost {
    /// The lab's id.
    pub lab: String,
    /// The host's name.
    pub name: String,
    /// Its first process, as this machine numbers it.
    pub leader: u32,
}

impl RunningHost {
    /// Gives the name of its network namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        namespace_name(&self.lab, &self.name)
    }
}

/// Lists the hosts that run now, in every lab of this machine.
///
/// # Errors
///
/// When the control groups cannot be read.
pub fn running_hosts() -> Result<Vec<RunningHost>> {
    let mut hosts = Vec::new();
    for lab in entries(&runs_directory()?)? {
        let root = machine::group_roots().into_iter().next();
        let Some(group) = root.map(|root| root.join(group_name(&lab))) else {
            continue;
        };
        for name in entries(&runs_directory()?.join(&lab).join("hosts")).unwrap_or_default() {
            if let Some(leader) = process::first_of_group(&group.join(&name)) {
                let lab = lab.clone();
                hosts.push(RunningHost { lab, name, leader });
            }
        }
    }
    Ok(hosts)
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().doing(|| format!("listing {}", directory.display()))
}

/// Removes the labs whose owner is dead; gives their ids.
///
/// # Errors
///
/// When the list of labs cannot be read or one of them resists.
pub fn reap_dead() -> Result<Vec<String>> {
    let parent = runs_directory()?;
    let mut removed = Vec::new();
    for id in entries(&parent)? {
        let directory = parent.join(&id);
        let Ok(owner) = File::open(directory.join("owner")) else {
            // Not locked yet, or just being removed.
            continue;
        };
        match owner.try_lock() {
            Ok(()) => {
                reap(&id, &directory)?;
                removed.push(id);
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).doing(|| format!("locking the lab {id}"));
            }
        }
    }
    Ok(removed)
}

/// Gives the name of a lab's network namespace for one host.
#[must_use]
pub fn namespace_name(id: &str, host: &str) -> String {
    format!("backstay-{id}-{host}")
}

fn group_name(id: &str) -> String {
    format!("backstay-lab-{id}")
}

fn runs_directory() -> Result<PathBuf> {
    let directory = machine::cache_directory().join("lab/runs");
    fs::create_dir_all(&directory).doing(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

fn start_guard(id: &str, directory: &Path) -> Result<Child> {
    Command::new("flock")
        .arg(directory.join("owner"))
        .args(["bash", "-c", REAP, "reap", &group_name(id)])
        .arg(namespace_name(id, ""))
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .doing(|| format!("starting the guard of the lab {id}"))
}

fn reap(id: &str, directory: &Path) -> Result<()> {
    let mut command = Command::new("bash");
    command
        .args(["-c", REAP, "reap", &group_name(id)])
        .arg(namespace_name(id, ""))
        .arg(directory);
    command::finish(&mut command)
        .map(drop)
        .doing(|| format!("removing the lab {id}"))
}
