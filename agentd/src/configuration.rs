//! The configuration in force: a copy of the files that were last applied with success.
//!
//! Jobs run by this copy, not by the files that people edit: an edit takes effect when it is
//! applied, and a bad one never stops a backup.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use settings::{Folders, Problems, Settings};

/// The copy in force, a link to one of `in-force-a` and `in-force-b`.
const IN_FORCE: &str = "var/lib/backstay/generations/in-force";

/// The file of the copy that holds the generation's number on its first line, then its text.
const GENERATION: &str = "generation";

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

/// Makes what was just applied the configuration in force. After a crash either the former or the
/// new copy is in force.
///
/// # Errors
///
/// The cause; the former copy stays in force.
pub fn keep(root: &Path, folders: &Folders) -> io::Result<()> {
    let link = root.join(IN_FORCE);
    let current = fs::read_link(&link).unwrap_or_default();
    let name = if current.ends_with("in-force-a") {
        "in-force-b"
    } else {
        "in-force-a"
    };
    let copy = link.with_file_name(name);
    match fs::remove_dir_all(&copy) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&copy)?;
    for file in ["agent.toml", "guard.toml"] {
        copy_file(&folders.etc.join(file), &copy.join(file))?;
    }
    for directory in ["schedules.d", "destinations.d"] {
        copy_fragments(&folders.etc.join(directory), &copy.join(directory))?;
    }
    if let Some((number, text)) = &folders.generation {
        write(
            &copy.join(GENERATION),
            format!("{number}\n{text}").as_bytes(),
        )?;
    }
    sync(&copy)?;
    let fresh = link.with_file_name("in-force.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(name, &fresh)?;
    fs::rename(&fresh, &link)?;
    link.parent().map_or(Ok(()), sync)
}

fn copy_fragments(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path: PathBuf = entry?.path();
        let is_fragment = path
            .extension()
            .is_some_and(|extension| extension == "toml");
        if let Some(name) = path.file_name().filter(|_| is_fragment) {
            copy_file(&path, &to.join(name))?;
        }
    }
    sync(to)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(bytes) => write(to, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
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

    #[test]
    fn a_bad_edit_does_not_change_what_runs() {
        let root = server();
        keep(root.path(), &Folders::below(root.path())).unwrap();
        fs::write(
            root.path().join("etc/backstay/schedules.d/a.toml"),
            "broken [",
        )
        .unwrap();
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
            let generation = Some((number, text.clone()));
            let folders = Folders {
                generation,
                ..Folders::below(root.path())
            };
            keep(root.path(), &folders).unwrap();
            let settings = load(root.path()).unwrap();
            assert_eq!(settings.generation, Some(number));
            assert_eq!(settings.schedules.len(), 2);
        }
    }
}
