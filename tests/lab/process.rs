//! Processes of this machine, as `/proc` shows them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::fault::{Doing, Result};

/// How many generations lie between the process that launches a host and the host's first process, at most.
const GENERATIONS_MAX: u32 = 4;

/// Finds the first process of a process namespace among the descendants of `ancestor`.
pub(crate) fn first_of_namespace(ancestor: u32) -> Option<u32> {
    let mut generation = vec![ancestor];
    for _ in 0..GENERATIONS_MAX {
        generation = generation.into_iter().flat_map(children).collect();
        if let Some(found) = generation.iter().find(|pid| is_first(**pid)) {
            return Some(*found);
        }
    }
    None
}

/// Finds the first process of a process namespace among those of a control group.
pub(crate) fn first_of_group(group: &Path) -> Option<u32> {
    processes_below(group)
        .into_iter()
        .filter_map(|pid| u32::try_from(pid.as_raw_pid()).ok())
        .find(|pid| is_first(*pid))
}

/// Gives where the root directory of a process is reached.
pub(crate) fn root(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("root")
}

/// Stops every process of a host where it stands; not those of this machine that hold its container.
pub(crate) fn stop_host(groups: &[PathBuf]) {
    for pid in groups.iter().flat_map(|group| processes_below(group)) {
        if namespace_numbers(pid.as_raw_pid()).len() > 1 {
            // One that has just ended needs no stopping.
            kill_process(pid, Signal::STOP).ok();
        }
    }
}

fn processes_below(group: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?));
    let mut found: Vec<Pid> = own.collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(processes_below(&entry.path()));
        }
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// Tells whether a process is number 1 of a namespace below ours.
fn is_first(pid: u32) -> bool {
    let numbers = namespace_numbers(pid);
    numbers.len() > 1 && numbers.last().is_some_and(|number| number == "1")
}

/// Gives the numbers of a process, from our namespace down to its own; none when it has ended.
fn namespace_numbers(pid: impl std::fmt::Display) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(ToOwned::to_owned)
        .collect()
}

/// Reads a number that systemd or `/proc` gives as text.
///
/// # Errors
///
/// When it is not a number.
pub fn number(text: &str) -> Result<u64> {
    text.trim()
        .parse()
        .doing(|| format!("reading the number {text:?}"))
}
