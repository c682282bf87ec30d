//! The examples that people start from are whole and right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use settings::{Folders, HostingLayout, Settings};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config-examples")
}

#[test]
fn examples_are_accepted_together() {
    let folders = Folders {
        etc: examples(),
        generation: None,
    };
    let settings = Settings::load(&folders).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(settings.schedules.len(), 1);
    assert_eq!(settings.destinations.len(), 2);
    assert_eq!(settings.agent.hosting, HostingLayout::default());
}

/// Asks the parser for the keys it knows, by writing one that it does not.
fn known_keys(etc: &Path, file: &str, text: &str) -> Vec<String> {
    let path = etc.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let folders = Folders {
        etc: etc.to_owned(),
        generation: None,
    };
    let problems = Settings::load(&folders).unwrap_err().to_string();
    fs::remove_file(path).unwrap();
    let lists = problems.lines().filter_map(|line| {
        line.contains(".zzz9: ")
            .then(|| line.split_once("known are ").unwrap().1)
            .or_else(|| {
                line.split_once(" zzz9: unknown key; known are ")
                    .map(|l| l.1)
            })
    });
    lists
        .flat_map(|list| list.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn examples_name_every_key() {
    let etc = tempfile::tempdir().unwrap();
    let s3 = "[destination.x]\nkind = \"s3\"\nzzz9 = 1\n";
    for (example, probe_file, probe) in [
        (
            "agent.toml",
            "agent.toml",
            "zzz9 = 1\n[controller]\nzzz9 = 1\n[hosting]\nzzz9 = 1\n[limits]\nzzz9 = 1\n",
        ),
        (
            "guard.toml",
            "guard.toml",
            "zzz9 = 1\n[keep_min]\nzzz9 = 1\n",
        ),
        (
            "schedules.d/nightly.toml",
            "schedules.d/x.toml",
            "[schedule.x]\nzzz9 = 1\nkeep = { zzz9 = 1 }\nlimits = { zzz9 = 1 }\n",
        ),
        ("destinations.d/places.toml", "destinations.d/x.toml", s3),
    ] {
        let text = fs::read_to_string(examples().join(example)).unwrap();
        let keys = known_keys(etc.path(), probe_file, probe);
        assert!(keys.len() > 5, "{example}: {keys:?}");
        for key in keys {
            let written = text.contains(&format!("{key} = ")) || text.contains(&format!("[{key}]"));
            assert!(written, "{example} does not show {key}");
        }
    }
}
