//! This machine: where the lab keeps things, what it offers, and what it lacks.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// The programs that the lab calls, each with the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("apt-get", "apt"),
    ("bash", "bash"),
    ("flock", "util-linux"),
    ("gcc", "gcc"),
    ("ip", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("systemd-nspawn", "systemd-container"),
    ("tc", "iproute2"),
    ("timeout", "coreutils"),
    ("unshare", "util-linux"),
];

/// Gives the directory of everything that outlives a lab: `BACKSTAY_CACHE`, or `/var/cache/backstay`.
#[must_use]
pub fn cache_directory() -> PathBuf {
    env::var_os("BACKSTAY_CACHE")
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from("/var/cache/backstay"), PathBuf::from)
}

/// Says what this machine lacks for the lab; empty when the lab can run.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root: containers and networks can only be made by root".to_owned());
    }
    for (program, package) in PROGRAMS {
        if !is_on_path(program) {
            missing.push(format!("{program}: apt-get install {package}"));
        }
    }
    if group_roots().is_empty() {
        missing.push("control groups: no cgroup hierarchy at /sys/fs/cgroup".to_owned());
    }
    missing
}

/// Gives the roots of the control-group hierarchies that a host needs a group in.
///
/// A machine with cgroup v2 alone has one. One with both has two, `unified` and `systemd`; a host that shared either
/// with another would have its units mixed up with those of the other.
pub(crate) fn group_roots() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    ["unified", "systemd"]
        .iter()
        .map(|name| root.join(name))
        .filter(|path| path.is_dir())
        .collect()
}

/// Tells people about a fault where no caller can be told.
pub(crate) fn complain(fault: &Fault) {
    // Nothing is left to do when standard error is closed too.
    writeln!(io::stderr(), "lab: {fault:?}").ok();
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|directory| directory.join(program).is_file())
}
