//! The configuration in force: a copy of the files that were last applied with success.
//!
//! Jobs run by this copy, not by the files that people edit: an edit takes effect when it is
//! applied, and a bad one never stops a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use model::Instant;
use serde::{Deserialize, Serialize};
use settings::{Folders, Problems, Schedule, Settings};

/// The copy in force, a link to one of `in-force-a` and `in-force-b`.
const IN_FORCE: &str = "var/lib/backstay/generations/in-force";

/// The file of the copy that holds the generation's number on its first line, then its text.
const GENERATION: &str = "generation";

/// The file of the copy that says since when each schedule is armed under its calendar.
const ARMED: &str = "armed.json";

/// Since when a schedule is armed. What was due before is nobody's to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Armed {
    when: String,
    since: Instant,
}

/// Reads the configuration in force; before the first apply, what people wrote.
///
/// # Errors
///
/// Every fault of every file.
pub fn load(root: &Path) -> Result<Settings, Problems> {
    let copy = root.join(IN_FORCE);
    if !copy.is_dir() {
        return Settings::load(&Folders::below(root));
    }
    let generation = fs::read_to_string(copy.join(GENERATION)).ok();
    let generation = generation.as_deref().and_then(|text| {
        let (number, text) = text.split_once('\n')?;
        Some((number.parse().ok()?, text.to_owned()))
    });
    Settings::load(&Folders {
        etc: copy,
        generation,
    })
}

/// Gives the instant since which a schedule is armed under this calendar, when an apply noted it.
#[must_use]
pub fn armed_since(root: &Path, schedule: &Schedule) -> Option<Instant> {
    let mut armed = read_armed(&root.join(IN_FORCE));
    let found = armed.remove(schedule.name.as_str())?;
    (found.when == schedule.when.text()).then_some(found.since)
}

/// Makes what was just applied the configuration in force; does nothing when it is so already.
/// After a crash either the former or the new copy is in force.
///
/// # Errors
///
/// The cause; the former copy stays in force.
pub fn keep(root: &Path, folders: &Folders, settings: &Settings, now: Instant) -> io::Result<()> {
    let link = root.join(IN_FORCE);
    let former = read_armed(&link);
    let armed: BTreeMap<String, Armed> = settings
        .enabled()
        .map(|schedule| {
            let when = schedule.when.text().to_owned();
            let before = former.get(schedule.name.as_str());
            let since = before
                .filter(|armed| armed.when == when)
                .map_or(now, |armed| armed.since);
            (schedule.name.to_string(), Armed { when, since })
        })
        .collect();
    let mut files = files_of(folders)?;
    files.insert(ARMED.into(), serde_json::to_vec(&armed)?);
    if files == files_in(&link)? {
        return Ok(());
    }
    let current = fs::read_link(&link).unwrap_or_default();
    let name = if current.ends_with("in-force-a") {
        "in-force-b"
    } else {
        "in-force-a"
    };
    let copy = link.with_file_name(name);
    remove_tree(&copy)?;
    for directory in [
        &copy,
        &copy.join("schedules.d"),
        &copy.join("destinations.d"),
    ] {
        fs::create_dir(directory)?;
    }
    for (path, bytes) in &files {
        write(&copy.join(path), bytes)?;
    }
    for directory in [
        &copy.join("schedules.d"),
        &copy.join("destinations.d"),
        &copy,
    ] {
        sync(directory)?;
    }
    let fresh = link.with_file_name("in-force.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &fresh)?;
    fs::rename(&fresh, &link)?;
    link.parent().map_or(Ok(()), sync)
}

fn read_armed(copy: &Path) -> BTreeMap<String, Armed> {
    let text = fs::read(copy.join(ARMED)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Gives what the copy of these folders holds, by path.
fn files_of(folders: &Folders) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = files_in(&folders.etc)?;
    files.retain(|path, _| path != Path::new(ARMED) && path != Path::new(GENERATION));
    if let Some((number, text)) = &folders.generation {
        files.insert(GENERATION.into(), format!("{number}\n{text}").into_bytes());
    }
    Ok(files)
}

/// Reads the files that matter below a directory.
fn files_in(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut paths: Vec<PathBuf> = ["agent.toml", "guard.toml", GENERATION, ARMED]
        .map(PathBuf::from)
        .into();
    for part in ["schedules.d", "destinations.d"] {
        let entries = match fs::read_dir(directory.join(part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = Path::new(part).join(entry?.file_name());
            if path
                .extension()
                .is_some_and(|extension| extension == "toml")
            {
                paths.push(path);
            }
        }
    }
    let mut files = BTreeMap::new();
    for path in paths {
        match fs::read(directory.join(&path)) {
            Ok(bytes) => drop(files.insert(path, bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: &str = "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 02:00\"\n\
                            destinations = [\"local\"]\n";
    const DESTINATION: &str = "[destination.local]\nkind = \"local\"\npath = \"/srv/backups\"\n";

    fn server() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "etc/backstay/schedules.d",
            "etc/backstay/destinations.d",
            "var/lib/backstay/generations",
        ] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(
            root.path().join("etc/backstay/schedules.d/a.toml"),
            SCHEDULE,
        )
        .unwrap();
        fs::write(
            root.path().join("etc/backstay/destinations.d/a.toml"),
            DESTINATION,
        )
        .unwrap();
        root
    }

    fn apply(root: &Path, generation: Option<(u64, String)>, secs: i64) {
        let mut folders = Folders::below(root);
        folders.generation = generation;
        let settings = Settings::load(&folders).unwrap();
        keep(root, &folders, &settings, Instant::from_secs(secs)).unwrap();
    }

    fn since(root: &Path) -> Option<i64> {
        let settings = load(root).unwrap();
        let schedule = settings.schedules.values().next().unwrap();
        armed_since(root, schedule).map(Instant::secs)
    }

    #[test]
    fn a_bad_edit_does_not_change_what_runs() {
        let root = server();
        apply(root.path(), None, 1);
        let edited = root.path().join("etc/backstay/schedules.d/a.toml");
        fs::write(edited, "broken [").unwrap();
        assert!(Settings::load(&Folders::below(root.path())).is_err());
        let settings = load(root.path()).unwrap();
        assert!(
            settings
                .schedules
                .keys()
                .any(|name| name.as_str() == "nightly")
        );
    }

    #[test]
    fn a_synced_generation_is_part_of_what_runs() {
        let root = server();
        let text = SCHEDULE.replace("nightly", "synced");
        for number in [7, 8] {
            apply(root.path(), Some((number, text.clone())), 1);
            let settings = load(root.path()).unwrap();
            assert_eq!(settings.generation, Some(number));
            assert_eq!(settings.schedules.len(), 2);
        }
    }

    #[test]
    fn a_schedule_is_armed_since_its_calendar_was_applied() {
        let root = server();
        apply(root.path(), None, 10);
        let link = root.path().join(IN_FORCE);
        let before = fs::read_link(&link).unwrap();
        apply(root.path(), None, 20);
        assert_eq!(
            fs::read_link(&link).unwrap(),
            before,
            "the same again changes nothing"
        );
        assert_eq!(since(root.path()), Some(10));
        let edited = root.path().join("etc/backstay/schedules.d/a.toml");
        fs::write(&edited, SCHEDULE.replace("02:00", "03:00")).unwrap();
        apply(root.path(), None, 30);
        assert_eq!(since(root.path()), Some(30));
        fs::write(
            &edited,
            SCHEDULE.replace("02:00", "03:00") + "enabled = false\n",
        )
        .unwrap();
        apply(root.path(), None, 40);
        assert_eq!(since(root.path()), None);
    }
}
