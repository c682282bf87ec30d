//! What is there: our files, links, masks, and what administrators put beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use model::ScheduleName;
use serde::{Deserialize, Serialize};
use settings::units::{drop_in, is_our_place, schedule_of, timer_unit};

use super::error::ApplyError;
use super::files;
use super::host::UnitState;
use super::paths::Paths;

/// What was applied last, completely. Files that differ from it were changed by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// The generation that was merged in.
    pub(crate) generation: Option<u64>,
    /// Hashes of bodies by path below the unit directory.
    pub(crate) files: BTreeMap<String, String>,
    /// Timers that were armed.
    pub(crate) timers: BTreeSet<ScheduleName>,
    /// All schedules.
    pub(crate) schedules: BTreeSet<ScheduleName>,
}

/// What is written down before the first change, so that a cut apply is finished, and so that
/// what it had stopped or disabled is not taken for an administrator's will.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// Timers that it disables.
    pub(crate) disabled: BTreeSet<ScheduleName>,
    /// Timers that it stops, starts or restarts.
    pub(crate) stopped: BTreeSet<ScheduleName>,
}

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Texts by path below the unit directory.
    pub(crate) files: BTreeMap<String, String>,
    /// Timers with a link in the target.
    pub(crate) linked: BTreeSet<ScheduleName>,
    /// Timers that are masked, with the path that does it.
    pub(crate) masked: BTreeMap<ScheduleName, PathBuf>,
    /// Units of ours that have another's drop-in or definition: unit and path.
    pub(crate) foreign: Vec<(String, PathBuf)>,
    /// What systemd has loaded.
    pub(crate) units: BTreeMap<ScheduleName, UnitState>,
}

impl Observed {
    /// True when an administrator changed what a unit does.
    pub(crate) fn is_overridden(&self, unit: &str) -> bool {
        self.foreign.iter().any(|(name, _)| name == unit)
    }
}

/// Looks at the unit directories.
pub(crate) fn observe(paths: &Paths) -> Result<Observed, ApplyError> {
    let mut observed = Observed::default();
    for directory in [paths.units(), paths.volatile_units()] {
        for name in names_in(&directory)? {
            if name.starts_with("backstay-") && name.contains('@') {
                look_at(&directory, &name, paths, &mut observed)?;
            }
        }
    }
    for name in names_in(&paths.wants())? {
        if let Some(schedule) = timer_schedule(&name) {
            observed.linked.insert(schedule);
        }
    }
    Ok(observed)
}

fn look_at(
    directory: &Path,
    name: &str,
    paths: &Paths,
    observed: &mut Observed,
) -> Result<(), ApplyError> {
    let path = directory.join(name);
    let Some(unit) = name.strip_suffix(".d") else {
        return look_at_unit(path, name, observed);
    };
    // Only units of schedules: drop-ins for backstay-dump@ and others are nobody's drift.
    if !is_our_place(&drop_in(unit)) {
        return Ok(());
    }
    for file in names_in(&path)? {
        let full = path.join(&file);
        if drop_in(unit) == format!("{name}/{file}") && directory == paths.units() {
            if let Some(text) = files::read_text(&full)? {
                observed.files.insert(drop_in(unit), text);
            }
        } else if Path::new(&file).extension().is_some_and(|e| e == "conf") {
            observed.foreign.push((unit.to_owned(), full));
        }
    }
    Ok(())
}

/// A unit file of ours in `/etc` or `/run` is a mask or replaces the template.
fn look_at_unit(path: PathBuf, name: &str, observed: &mut Observed) -> Result<(), ApplyError> {
    let Some(schedule) = schedule_of(&drop_in(name)) else {
        return Ok(());
    };
    let meta = match fs::symlink_metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ApplyError::file("look at", &path)(error)),
    };
    let to_null = meta.is_symlink()
        && fs::read_link(&path).is_ok_and(|target| target == Path::new("/dev/null"));
    let masks = to_null || (meta.is_file() && meta.len() == 0);
    if masks && timer_schedule(name).is_some() {
        observed.masked.insert(schedule, path);
    } else {
        observed.foreign.push((name.to_owned(), path));
    }
    Ok(())
}

fn timer_schedule(unit: &str) -> Option<ScheduleName> {
    let schedule = schedule_of(&drop_in(unit))?;
    (timer_unit(&schedule) == unit).then_some(schedule)
}

fn names_in(directory: &Path) -> Result<Vec<String>, ApplyError> {
    let listed = match fs::read_dir(directory) {
        Ok(listed) => listed,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(ApplyError::file("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.map_err(ApplyError::file("list", directory))?;
        // Names of ours are plain; others are not ours.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
