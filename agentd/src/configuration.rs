//! The configuration in force: a copy of the files that were last applied with success.
//!
//! Jobs run by this copy, not by the files that people edit: an edit takes effect when it is
//! applied, and a bad one never stops a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use model::{Instant, ScheduleName, Scope};
use serde::{Deserialize, Serialize};
use settings::{Folders, Problems, Schedule, Settings};

/// The copy in force, a link to one of `in-force-a` and `in-force-b`.
const IN_FORCE: &str = "var/lib/backstay/generations/in-force";

/// The file of the copy that holds the generation's number on its first line, then its text.
const GENERATION: &str = "generation";

/// The file of the copy that says since when each schedule is armed under its calendar.
const ARMED: &str = "armed.json";

/// The file of the copy that lists the accounts that ended.
const ENDED: &str = "ended.json";

/// The most ended accounts kept; jobs and the daemon settle them much sooner.
const ENDED_COUNT_MAX: usize = 2000;

/// Since when a schedule is armed. What was due before is nobody's to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Armed {
    /// The canonical text of its calendar.
    when: String,
    since: Instant,
    scope: Scope,
}

/// The account of a schedule that was removed, disabled or given another calendar. What was due
/// until then is still to be settled, by whoever may write to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Rises with each account that ends.
    pub number: u64,
    /// Which schedule.
    pub schedule: ScheduleName,
    /// What it backed up.
    pub scope: Scope,
    /// The canonical text of its calendar.
    pub when: String,
    /// Since when it was armed.
    pub since: Instant,
    /// When it ended.
    pub until: Instant,
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
    (found.when == schedule.when.canonical()).then_some(found.since)
}

/// Gives the accounts that ended, oldest first.
#[must_use]
pub fn ended(root: &Path) -> Vec<Ended> {
    read_ended(&root.join(IN_FORCE))
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
            let when = schedule.when.canonical();
            let before = former.get(schedule.name.as_str());
            let since = before
                .filter(|armed| armed.when == when)
                .map_or(now, |armed| armed.since);
            let scope = schedule.scope;
            let armed = Armed { when, since, scope };
            (schedule.name.to_string(), armed)
        })
        .collect();
    let mut files = files_of(folders)?;
    let ended = end(read_ended(&link), &former, &armed, now);
    files.insert(ARMED.into(), serde_json::to_vec(&armed)?);
    files.insert(ENDED.into(), serde_json::to_vec(&ended)?);
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

/// Adds the accounts that are armed no more to those that ended.
fn end(
    mut ended: Vec<Ended>,
    former: &BTreeMap<String, Armed>,
    armed: &BTreeMap<String, Armed>,
    now: Instant,
) -> Vec<Ended> {
    let mut number = ended.last().map_or(0, |last| last.number);
    for (name, before) in former {
        let goes_on = armed.get(name).is_some_and(|now| now.when == before.when);
        let Ok(schedule) = ScheduleName::new(name.as_str()) else {
            continue;
        };
        if !goes_on {
            number = number.saturating_add(1);
            ended.push(Ended {
                number,
                schedule,
                scope: before.scope,
                when: before.when.clone(),
                since: before.since,
                until: now,
            });
        }
    }
    let surplus = ended.len().saturating_sub(ENDED_COUNT_MAX);
    ended.drain(..surplus);
    ended
}

fn read_ended(copy: &Path) -> Vec<Ended> {
    let text = fs::read(copy.join(ENDED)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn read_armed(copy: &Path) -> BTreeMap<String, Armed> {
    let text = fs::read(copy.join(ARMED)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Gives what the copy of these folders holds, by path.
fn files_of(folders: &Folders) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = files_in(&folders.etc)?;
    let is_ours = |path: &Path| [ARMED, ENDED, GENERATION].map(Path::new).contains(&path);
    files.retain(|path, _| !is_ours(path));
    if let Some((number, text)) = &folders.generation {
        files.insert(GENERATION.into(), format!("{number}\n{text}").into_bytes());
    }
    Ok(files)
}

/// Reads the files that matter below a directory.
fn files_in(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut paths: Vec<PathBuf> = ["agent.toml", "guard.toml", GENERATION, ARMED, ENDED]
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
        // Another zone is another calendar, whatever the text.
        let agent = root.path().join("etc/backstay/agent.toml");
        fs::write(agent, "zone = \"Europe/Berlin\"\n").unwrap();
        apply(root.path(), None, 35);
        assert_eq!(since(root.path()), Some(35));
        fs::write(
            &edited,
            SCHEDULE.replace("02:00", "03:00") + "enabled = false\n",
        )
        .unwrap();
        apply(root.path(), None, 40);
        assert_eq!(since(root.path()), None);
        let spans: Vec<_> = ended(root.path())
            .iter()
            .map(|ended| (ended.number, ended.since.secs(), ended.until.secs()))
            .collect();
        assert_eq!(spans, [(1, 10, 30), (2, 30, 35), (3, 35, 40)]);
    }
}
