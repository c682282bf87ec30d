//! The units of the package: systemd understands every line, and each stays within its bound of
//! exposure. Needs `systemd-analyze`, which every systemd host has.

use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../units")
}

/// Gives a command, or nothing on a machine without systemd.
fn analyze() -> Option<Command> {
    let mut command = Command::new("systemd-analyze");
    let there = Command::new("systemd-analyze").arg("--version").output();
    there.ok()?;
    command.env("LC_ALL", "C");
    Some(command)
}

#[test]
fn exposure_of_each_unit_stays_low() {
    // In tenths: systemd-analyze fails when the level is greater.
    for (unit, most) in [
        ("backstay-job@.service", 19),
        ("backstay-apply.service", 10),
        ("backstay-reconcile.service", 10),
        ("backstay-restore@.service", 30),
        ("backstay-browse@.service", 12),
        ("backstay-dump@.service", 10),
        ("backstay-load@.service", 10),
        ("backstay-agentd.service", 12),
        ("backstay-controller.service", 12),
    ] {
        let Some(mut command) = analyze() else { return };
        let out = command
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(format!("--threshold={most}"))
            .arg(units().join(unit))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        let last = text.lines().last().unwrap_or_default().to_owned();
        assert!(out.status.success(), "{unit}: {last}");
    }
}

#[test]
fn systemd_understands_every_line() {
    let Some(mut command) = analyze() else { return };
    let names = [
        "backstay-job@x.service",
        "backstay-restore@x.service",
        "backstay-browse@x.service",
        "backstay-apply.service",
        "backstay-apply.socket",
        "backstay-reconcile.timer",
        "backstay-agentd.service",
        "backstay-controller.service",
        "backstay-dump.socket",
        "backstay-dump@1.service",
        "backstay-load.socket",
        "backstay-load@1.service",
        "backstay-schedules.target",
        "backstay.slice",
    ];
    let path = format!(
        "{}:/usr/lib/systemd/system:/lib/systemd/system",
        units().display()
    );
    let out = command
        .args(["verify", "--man=no"])
        .args(names)
        .env("SYSTEMD_UNIT_PATH", path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // The programs are not installed where this test runs.
    let rest: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("is not executable: No such file"))
        .collect();
    assert!(rest.is_empty(), "{rest:#?}");
}
