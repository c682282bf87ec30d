//! Retention and making room, on a real repository.

use std::fs;
use std::path::{Path, PathBuf};

use edge::Silent;
use model::{RunId, RunState};
use repository::ScheduleKey;
use settings::{Folders, HostingLayout, Settings};
use testkit::{CountingEntropy, FixedClock};

use super::*;
use crate::backup::back_up_schedule;
use crate::place::StorePlace;

const TOML: &str = "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 02:00\"\n\
                    destinations = [\"local\"]\nkeep = { last = 1 }\ncompression = 0\n\
                    [destination.local]\nkind = \"local\"\npath = \"/unused\"\n";

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;
const DAY: i64 = 24 * 3600;

struct Bench {
    top: tempfile::TempDir,
    settings: Settings,
    layout: HostingLayout,
    clock: FixedClock,
    entropy: CountingEntropy,
}

impl Bench {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        for directory in ["etc/schedules.d", "repository", "cache", "data"] {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        fs::write(top.path().join("etc/schedules.d/a.toml"), TOML).unwrap();
        let settings = Settings::load(&Folders {
            etc: top.path().join("etc"),
            generation: None,
        });
        let layout = HostingLayout {
            sites: Vec::new(),
            server_paths: vec![top.path().join("data")],
            mariadb_socket: None,
            ..HostingLayout::default()
        };
        Self {
            settings: settings.unwrap(),
            layout,
            clock: FixedClock::at_secs(START),
            entropy: CountingEntropy::default(),
            top,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn plan<'a>(&'a self, key: &'a ScheduleKey, paths: &'a [PathBuf; 2]) -> BackupPlan<'a> {
        let schedule = self.settings.schedules.values().next().unwrap();
        BackupPlan {
            schedule,
            limits: schedule.limits,
            layout: &self.layout,
            host: "web1",
            run: RunId::from_bytes([1; 16]),
            key,
            destinations: vec![RunDestination {
                name: "local".parse().unwrap(),
                required: true,
                place: Ok(StorePlace::Local(paths[0].clone())),
            }],
            cache: &paths[1],
            dump_socket: Path::new("/nonexistent"),
            clock: &self.clock,
            entropy: &self.entropy,
            monitor: &Silent,
        }
    }
}

#[test]
fn a_full_destination_is_freed_of_what_was_let_go() {
    let bench = Bench::new();
    let key = ScheduleKey::from_bytes([7; 32]);
    let paths = [bench.path("repository"), bench.path("cache")];
    let noise = |name: &str| {
        let mut bytes = vec![0; 2_000_000];
        edge::Entropy::fill(&bench.entropy, &mut bytes);
        fs::write(bench.path("data").join(name), bytes).unwrap();
    };
    noise("old");
    assert_eq!(
        back_up_schedule(bench.plan(&key, &paths)).state,
        RunState::Ok
    );
    fs::remove_file(bench.path("data/old")).unwrap();
    noise("new");
    bench.clock.advance_secs(DAY);
    assert_eq!(
        back_up_schedule(bench.plan(&key, &paths)).state,
        RunState::Ok
    );
    let plan = bench.plan(&key, &paths);
    let left = open_replica(&plan, &plan.destinations[0]).unwrap();
    assert_eq!(left.trash().unwrap().len(), 1, "it can be had back");
    let lock = DomainLock::take(&paths[1], &plan.schedule.name).unwrap();
    let full = [plan.destinations[0].name.clone()];
    assert_eq!(
        make_room(&plan, &full, &lock),
        [],
        "readers may need it yet"
    );
    bench.clock.advance_secs(DAY + 1);
    assert_eq!(make_room(&plan, &[], &lock), []);
    let freed = make_room(&plan, &full, &lock);
    assert!(
        freed[0].text.contains("it is full; 1.9 MiB freed"),
        "{freed:?}"
    );
    assert_eq!(left.trash().unwrap(), [], "its space was needed");
    assert_eq!(left.snapshots().unwrap().snapshots.len(), 1);
}

#[test]
fn a_wrong_clock_lets_nothing_go() {
    let bench = Bench::new();
    let key = ScheduleKey::from_bytes([7; 32]);
    let paths = [bench.path("repository"), bench.path("cache")];
    fs::write(bench.path("data/file"), "content").unwrap();
    bench.clock.advance_secs(9 * DAY);
    let run = || back_up_schedule(bench.plan(&key, &paths));
    assert_eq!(run().forgotten, []);
    bench.clock.advance_secs(-2 * DAY);
    let refused = run();
    assert_eq!(refused.state, RunState::Ok);
    let text = &refused.forgotten[0].text;
    assert!(
        text.contains("nothing was let go or deleted: the clock says"),
        "{text}"
    );
    bench.clock.advance_secs(3 * DAY);
    let text = run().forgotten[0].text.clone();
    assert!(
        text.starts_with("2 snapshots let go, to be had back"),
        "{text}"
    );
}

#[test]
fn only_a_lack_of_space_is_one() {
    let error = |fault| {
        RepositoryError::Store(edge::StoreError {
            operation: "writing",
            object: "a".into(),
            store: "test".into(),
            fault,
            source: "scripted".into(),
        })
    };
    assert!(is_full(&error(StoreFault::Full)));
    assert!(!is_full(&error(StoreFault::Unreachable)));
    assert!(!is_full(&RepositoryError::Exhausted));
}
