//! The command line as people and programs see it: text, JSON and exit codes.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::path::Path;

use model::{
    ByteCount, Copy, CopyState, DestinationName, Instant, RunCounts, RunId, RunRecord, RunState,
    ScheduleName, Scope, SnapshotId, Trigger,
};
use protocol::control::{
    ApplyOutcome, ControlReply, ControlRequest, Drift, DriftKind, SystemStatus, TimerStatus,
};
use support::Host;

fn record(number: u8, state: RunState) -> RunRecord {
    let started_at = Instant::from_secs(1_700_000_000 + 3_600 * i64::from(number));
    let ok = state == RunState::Ok;
    RunRecord {
        id: RunId::from_bytes([number; 16]),
        schedule: ScheduleName::new("nightly").unwrap(),
        scope: Scope::Full,
        trigger: Trigger::Timer,
        due_at: Some(started_at),
        started_at,
        finished_at: Some(started_at.plus_secs(95)),
        state,
        summary: if ok {
            "3 entries"
        } else {
            "destination \u{1b}[31moffsite is away"
        }
        .into(),
        counts: RunCounts {
            entries: 3,
            total_bytes: ByteCount::new(4_096),
            read_bytes: ByteCount::new(2_048),
            ..RunCounts::default()
        },
        copies: vec![Copy {
            destination: DestinationName::new("offsite").unwrap(),
            state: if ok {
                CopyState::Stored
            } else {
                CopyState::Failed
            },
            snapshot: ok.then(|| SnapshotId::from_bytes([7; 16])),
            stored_bytes: ByteCount::new(if ok { 1_536 } else { 0 }),
            error: (!ok).then(|| "no route to host".to_owned()),
        }],
        log: vec!["began".into(), "ended".into()],
    }
}

#[test]
fn history_is_a_table_of_runs_with_nothing_that_moves_the_cursor() {
    let host = Host::with_agent();
    host.add_runs(&[record(1, RunState::Ok), record(2, RunState::Failed)]);
    insta::assert_snapshot!(host.run(&["history"]));
    insta::assert_snapshot!(host.run(&["history", "--failed", "--schedule", "weekly"]));
}

#[test]
fn one_run_is_shown_whole() {
    let host = Host::with_agent();
    host.add_runs(&[record(1, RunState::Ok), record(2, RunState::Failed)]);
    insta::assert_snapshot!(host.run(&["history", "0202"]));
    insta::assert_snapshot!(host.run(&["history", "0"]));
    insta::assert_snapshot!(host.run(&["history", "ff"]));
}

#[test]
fn programs_read_the_records_as_they_are() {
    let host = Host::with_agent();
    let kept = record(1, RunState::Ok);
    host.add_runs(std::slice::from_ref(&kept));
    let shown = host.command(&["history", "--json"]).output().unwrap();
    let read: Vec<RunRecord> = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(read, [kept]);
}

#[test]
fn without_an_agent_history_says_what_to_install() {
    let host = Host::empty();
    insta::assert_snapshot!(host.run(&["history"]));
    insta::assert_snapshot!(host.run(&["history", "--json"]));
}

#[test]
fn a_damaged_join_code_is_refused_before_anything_is_sent() {
    let host = Host::with_agent();
    insta::assert_snapshot!(host.run(&["join", "bsj1-abc"]));
    insta::assert_snapshot!(host.run(&["join", "hello"]));
}

#[test]
fn every_verb_explains_itself() {
    let host = Host::empty();
    insta::assert_snapshot!(host.run(&["--help"]));
}

const NIGHTLY: &str = r#"
[schedule.nightly]
scope = "full"
when = "daily 02:00 Europe/Berlin"
destinations = ["local"]
enabled = false
"#;

const LOCAL: &str = r#"
[destination.local]
kind = "local"
path = "/srv/backup"
"#;

fn configured() -> Host {
    let host = Host::with_agent();
    host.write("etc/backstay/schedules.d/nightly.toml", NIGHTLY);
    host.write("etc/backstay/destinations.d/local.toml", LOCAL);
    host
}

#[test]
fn schedules_are_listed_with_their_last_run() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["schedule", "list"]));
    host.add_runs(&[record(1, RunState::Ok)]);
    insta::assert_snapshot!(host.run(&["schedule", "list"]));
    insta::assert_snapshot!(host.run(&["schedule", "show", "nightly"]));
}

#[test]
fn an_enabled_schedule_says_when_it_is_due() {
    let host = configured();
    let enabled = NIGHTLY.replace("enabled = false", "");
    host.write("etc/backstay/schedules.d/nightly.toml", &enabled);
    let shown = host
        .command(&["schedule", "list", "--json"])
        .output()
        .unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let due: Instant = rows[0]["next_due_at"].as_str().unwrap().parse().unwrap();
    assert!(due > Instant::from_secs(1_700_000_000));
    let table = host.run(&["schedule", "list"]);
    assert!(table.contains(" (in "), "{table}");
}

#[test]
fn an_unknown_schedule_is_named_with_those_there_are() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["schedule", "show", "nigthly"]));
    insta::assert_snapshot!(host.run(&["schedule", "show", "../etc"]));
}

#[test]
fn bad_toml_is_shown_with_file_and_line_and_changes_nothing() {
    let host = configured();
    host.write(
        "etc/backstay/schedules.d/broken.toml",
        "[schedule.x]\nscope = full\n",
    );
    host.write(
        "etc/backstay/schedules.d/odd.toml",
        &NIGHTLY.replace("nightly", "odd").replace("when", "wehn"),
    );
    insta::assert_snapshot!(host.run(&["schedule", "list"]));
    insta::assert_snapshot!(host.run(&["validate"]));
}

#[test]
fn files_are_checked_where_they_lie() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["validate"]));
    let good = host.path("etc/backstay/destinations.d/local.toml");
    insta::assert_snapshot!(host.run(&["validate", &good]));
    let folder = host.path("etc/backstay");
    insta::assert_snapshot!(host.run(&["validate", "--json", &folder]));
    let absent = host.path("absent.toml");
    insta::assert_snapshot!(host.run(&["validate", &absent]));
}

fn nightly() -> ScheduleName {
    ScheduleName::new("nightly").unwrap()
}

fn drift(kind: DriftKind, detail: &str) -> Drift {
    Drift {
        unit: "backstay-job@nightly.timer".into(),
        kind,
        path: None,
        detail: detail.into(),
    }
}

#[test]
fn a_plan_says_what_would_change() {
    let host = configured();
    let served = host.answer(|request| {
        assert_eq!(request, ControlRequest::Apply { dry_run: true });
        ControlReply::Applied(ApplyOutcome {
            dry_run: true,
            created: vec![nightly()],
            unchanged: 3,
            diff: vec!["+ schedule nightly: daily 02:00".into()],
            ..ApplyOutcome::default()
        })
    });
    insta::assert_snapshot!(host.run(&["plan"]));
    served.join().unwrap();
}

#[test]
fn an_apply_tells_what_was_done_and_to_keep_new_keys() {
    let host = configured();
    let served = host.answer(|request| {
        assert_eq!(request, ControlRequest::Apply { dry_run: false });
        ControlReply::Applied(ApplyOutcome {
            created: vec![nightly()],
            keys_made: vec![nightly()],
            repaired: vec![drift(DriftKind::Edited, "was edited by hand")],
            held: vec![drift(DriftKind::Masked, "is masked")],
            diff: vec!["+ schedule nightly: daily 02:00".into()],
            warnings: vec!["the clock is not synchronised".into()],
            reloaded: true,
            ..ApplyOutcome::default()
        })
    });
    insta::assert_snapshot!(host.run(&["apply"]));
    served.join().unwrap();
    let served = host.answer(|_| ControlReply::Applied(ApplyOutcome::default()));
    insta::assert_snapshot!(host.run(&["apply"]));
    served.join().unwrap();
}

#[test]
fn a_refused_apply_ends_with_the_code_of_its_reason() {
    let host = configured();
    let refusals = [
        ("bad_configuration", "the configuration has 1 fault"),
        ("busy", "another apply is under way"),
        (
            "rolled_back",
            "starting backstay-job@nightly.timer\nUnit is masked",
        ),
    ];
    for (code, message) in refusals {
        let served = host.answer(move |_| ControlReply::Failed {
            code: code.into(),
            message: message.into(),
            problems: (code == "bad_configuration")
                .then(|| "/etc/backstay/x.toml:1: unknown key".to_owned())
                .into_iter()
                .collect(),
        });
        insta::assert_snapshot!(format!("refused_{code}"), host.run(&["apply"]));
        served.join().unwrap();
    }
}

#[test]
fn without_its_socket_the_apply_service_is_unreachable() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["apply"]));
}

#[test]
fn a_started_run_is_watched_to_its_end() {
    for (state, exit) in [
        (RunState::Ok, 0),
        (RunState::Partial, 3),
        (RunState::Failed, 1),
    ] {
        let host = configured();
        let root = host.path("");
        let served = host.answer(move |request| {
            assert_eq!(request, ControlRequest::StartJob { name: nightly() });
            let mut run = record(1, state);
            // The run begins after the question.
            run.started_at = Instant::from_secs(4_000_000_000);
            run.finished_at = Some(run.started_at.plus_secs(1));
            support::add_runs(root.as_ref(), &[run]);
            ControlReply::Started {
                unit: "backstay-job@nightly.service".into(),
            }
        });
        let shown = host.run(&["schedule", "run", "nightly"]);
        assert!(shown.ends_with(&format!("--- exit {exit}\n")), "{shown}");
        assert!(shown.contains("Started   2096-10-02 07:06:40"), "{shown}");
        served.join().unwrap();
    }
}

#[test]
fn status_is_one_page_with_everything_dead() {
    let host = configured();
    host.add_runs(&[record(1, RunState::Ok)]);
    insta::assert_snapshot!(host.run(&["status"]));
    assert!(host.run(&["status", "--check"]).ends_with("--- exit 3\n"));
}

#[test]
fn ledger_that_jobs_cannot_write_is_said_at_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = configured();
    host.add_runs(&[record(1, RunState::Ok)]);
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(host.path("var/lib/backstay/ledger/ledger.db"), mode).unwrap();
    let shown = host.run(&["status"]);
    assert!(shown.contains("no run can begin: "), "{shown}");
    // Before anything is started: nobody answers at the apply socket here.
    let began = std::time::Instant::now();
    let shown = host.run(&["schedule", "run", "nightly"]);
    insta::assert_snapshot!(shown, @"
    --- stderr
    Error: cannot use the ledger of this server
      1. the ledger /var/lib/backstay/ledger/ledger.db cannot be written
      2. its group, which jobs belong to, may not write it (chmod 0660)
    Hint: df -h /var/lib/backstay; journalctl -u 'backstay-*' -n 50
    --- exit 1
    ");
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn status_shows_what_systemd_has() {
    let host = configured();
    host.write(
        "etc/backstay/schedules.d/nightly.toml",
        &NIGHTLY.replace("enabled = false", ""),
    );
    host.add_runs(&[record(1, RunState::Ok)]);
    let system = |armed: bool| SystemStatus {
        at: Instant::from_secs(1_700_000_000),
        generation: Some(4),
        generation_hash: None,
        refused: None,
        problems: Vec::new(),
        timers: vec![TimerStatus {
            schedule: nightly(),
            enabled: true,
            armed,
            next_at: armed.then(|| Instant::from_secs(4_000_000_000)),
            last_at: None,
            state: "waiting".into(),
        }],
        drift: if armed {
            Vec::new()
        } else {
            vec![drift(DriftKind::Disarmed, "waits for nothing")]
        },
        repaired: Vec::new(),
    };
    let served = host.answer(move |_| ControlReply::Status(system(false)));
    insta::assert_snapshot!(host.run(&["status", "--check"]));
    served.join().unwrap();
    let served = host.answer(move |_| ControlReply::Status(system(true)));
    let shown = host.run(&["status", "--check"]);
    assert!(shown.contains("2096-10-02 07:06:40"), "{shown}");
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    served.join().unwrap();
}

#[test]
fn what_a_controller_sent_is_listed_with_the_rest() {
    let host = configured();
    let sent = NIGHTLY.replace("schedule.nightly", "schedule.weekly");
    host.write("var/lib/backstay/generations/7.toml", &sent);
    let current = host.path("var/lib/backstay/generations/current");
    std::os::unix::fs::symlink("7.toml", current).unwrap();
    let shown = host.run(&["schedule", "show", "weekly"]);
    assert!(
        shown.contains("# generation 7:2\n[schedule.weekly]"),
        "{shown}"
    );
}

#[test]
fn a_key_that_was_never_made_is_said_to_be_missing() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["key", "export", "nightly"]));
    insta::assert_snapshot!(host.run(&["snapshots", "nightly"]));
    insta::assert_snapshot!(host.run(&["restore", "nightly", "--to", "/nowhere"]));
    insta::assert_snapshot!(host.run(&["restore", "nightly"]));
}

#[test]
fn an_empty_credential_is_not_stored() {
    let host = configured();
    insta::assert_snapshot!(host.run(&["credential", "set", "local"]));
}

#[test]
fn a_key_that_is_none_is_not_given_to_a_schedule() {
    let host = configured();
    host.write("new.key", "bsk1-mistyped");
    let file = host.path("new.key");
    let give = |name: &str| host.run(&["key", "import", name, "--key-file", &file, "--yes"]);
    insta::assert_snapshot!(give("nightly"));
    insta::assert_snapshot!(give("absent"));
}

#[test]
fn who_is_not_root_is_told_what_to_type() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
    use std::os::unix::process::CommandExt as _;
    // The program may lie where only root can look, so that nobody gets a copy.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = folder.path().join("backstayctl");
    // Another process makes the copy: a file that this one had open for writing could be held busy
    // by what the other tests start meanwhile.
    let copied = std::process::Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_backstayctl")), &program])
        .status()
        .unwrap();
    assert!(copied.success());
    let mut command = std::process::Command::new(program);
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    let output = command
        .args(["schedule", "run", "nightly"])
        .current_dir("/")
        .output()
        .unwrap();
    insta::assert_snapshot!(Host::empty().shown(&output));
}

#[test]
fn a_ledger_that_is_being_made_is_one_without_runs() {
    let host = configured();
    host.write("var/lib/backstay/ledger/ledger.db", "");
    insta::assert_snapshot!(host.run(&["history"]), @r"
    --- stdout
    Nothing has run yet.
    --- exit 0
    ");
}

#[test]
fn a_credential_that_was_set_is_made_known_to_the_units() {
    use std::os::unix::fs::PermissionsExt;
    let host = configured();
    host.write("credential", "GK1\nsecret\n");
    host.write("var/lib/backstay/credstore/.here", "");
    // Stands in for the encryption, which needs the machine's own key.
    host.write("bin/systemd-creds", "#!/bin/sh\ncat\n");
    let tool = host.path("bin/systemd-creds");
    std::fs::set_permissions(tool, PermissionsExt::from_mode(0o755)).unwrap();
    let from = host.path("credential");
    let set = || {
        let mut command = host.command(&["credential", "set", "offsite", "--from", &from]);
        let path = format!("{}:/usr/bin:/bin", host.path("bin"));
        host.shown(&command.env("PATH", path).output().unwrap())
    };
    let served = host.answer(|request| {
        assert_eq!(request, ControlRequest::Apply { dry_run: false });
        ControlReply::Applied(ApplyOutcome::default())
    });
    let shown = set();
    assert!(shown.ends_with("--- exit 0\n"), "{shown}");
    served.join().unwrap();
    std::fs::remove_file(host.path("run/backstay/apply.sock")).unwrap();
    let shown = set();
    assert!(shown.contains("do not load it yet"), "{shown}");
    assert!(!shown.ends_with("--- exit 0\n"), "{shown}");
    let stored = host.path("var/lib/backstay/credstore/destination-offsite.cred");
    assert!(std::fs::read_to_string(stored).unwrap().contains("GK1"));
}
