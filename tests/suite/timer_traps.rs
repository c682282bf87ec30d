//! What systemd's timers do behind one's back: each trap is sprung on a booted host, and nothing comes of it.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::{Distro, Host, Lab, Result, Server};
use serde_json::Value;

use crate::fleet::prepared;

const FILE: &str = "/etc/backstay/schedules.d/test.toml";
/// How long a due timer may take to leave an ended run.
pub(crate) const FIRES_MAX: Duration = Duration::from_secs(45);

/// Does the same on both releases at once.
pub(crate) fn on_both(
    movable_clock: bool,
    promise: impl Fn(&Server) -> Result<()> + Sync,
) -> Result<()> {
    let lab = Lab::new()?;
    std::thread::scope(|scope| {
        let all: Vec<_> = Distro::ALL
            .iter()
            .map(|distro| {
                let builder = lab.host(distro.suite()).distro(*distro);
                let builder = if movable_clock {
                    builder.movable_clock()
                } else {
                    builder
                };
                let promise = &promise;
                scope.spawn(move || promise(&prepared(builder.boot()?)?))
            })
            .collect();
        all.into_iter().try_for_each(|one| one.join().unwrap())
    })
}

/// Gives a schedule of site trees to the local destination.
pub(crate) fn one(name: &str, when: &str) -> String {
    format!("[schedule.{name}]\nscope = \"web\"\nwhen = \"{when}\"\ndestinations = [\"local\"]\n")
}

/// Gives the next elapse of a timer in seconds since 1970; nothing when it waits for none.
pub(crate) fn next_elapse(host: &Host, name: &str) -> Result<Option<i64>> {
    let script = format!(
        "at=$(systemctl show -P NextElapseUSecRealtime backstay-job@{name}.timer); \
         [ -z \"$at\" ] || [ \"$at\" = n/a ] || date -d \"$at\" +%s"
    );
    Ok(host.sh(&script)?.trim().parse().ok())
}

/// Gives `due_at` of each ended run that a timer started, oldest first.
pub(crate) fn answered(server: &Server, name: &str) -> Result<Vec<String>> {
    let runs = server.history(name)?;
    let ran = runs.iter().rev().filter(|run| run["state"] == "ok");
    Ok(ran
        .map(|run| run["due_at"].as_str().unwrap_or("none").to_owned())
        .collect())
}

/// Moves the clock so that the host, running or off, shows this time of UTC.
pub(crate) fn set_clock(host: &Host, shown: &str) -> Result<()> {
    let said = Command::new("date")
        .args(["-u", "+%s", "-d", shown])
        .output()
        .unwrap();
    let wanted: i64 = String::from_utf8(said.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    host.shift_clock(wanted - i64::try_from(real.as_secs()).unwrap())
}

#[test]
fn timer_that_systemd_disarmed_silently_is_told_and_armed_again() -> Result<()> {
    on_both(false, |server| {
        let host = &server.host;
        server.configure(
            FILE,
            &(one("nightly", "daily 02:00") + "spread = \"30m\"\n"),
        )?;
        server.apply()?;
        let before = next_elapse(host, "nightly")?;
        assert!(before.is_some());
        // The delay is the same after a reload and a reboot.
        host.sh("systemctl daemon-reload")?;
        assert_eq!(next_elapse(host, "nightly")?, before);
        host.reboot()?;
        assert_eq!(next_elapse(host, "nightly")?, before);

        // The file is gone for one reload and back as it was: everything looks well, and nothing will ever fire.
        host.sh(
            "cd /etc/systemd/system/backstay-job@nightly.timer.d; mv 50-backstay.conf /run/aside; \
                 systemctl daemon-reload; mv /run/aside 50-backstay.conf; systemctl daemon-reload; \
                 systemctl is-active --quiet backstay-job@nightly.timer",
        )?;
        assert_eq!(next_elapse(host, "nightly")?, None);
        let told = server.ctl("plan")?;
        assert_eq!(told["repaired"][0]["kind"], "disarmed", "{told}");
        let status = host.run("backstayctl status --check")?;
        let shown = String::from_utf8_lossy(&status.stdout);
        assert!(
            shown.contains("disarmed") && status.status.code() == Some(3),
            "{shown}"
        );
        host.sh("systemctl start backstay-reconcile.service")?;
        assert_eq!(next_elapse(host, "nightly")?, before);
        assert_eq!(server.ctl("plan")?["repaired"], Value::Array(Vec::new()));
        assert_eq!(server.history("nightly")?.len(), 0);
        Ok(())
    })
}

#[test]
fn local_times_that_clock_changes_skip_or_repeat_are_answered_once() -> Result<()> {
    on_both(true, |server| {
        let host = &server.host;
        // Spring: 02:30 does not exist; it is due when the gap ends.
        set_clock(host, "2027-03-28 00:59:53")?;
        server.configure(FILE, &one("nightly", "daily 02:30 Europe/Berlin"))?;
        server.apply()?;
        let wait = |due: &str| {
            host.wait_until(&format!("the run due at {due}"), FIRES_MAX, |_| {
                Ok(answered(server, "nightly")?.iter().any(|at| at == due))
            })
        };
        wait("2027-03-28T01:00:00Z")?;
        set_clock(host, "2027-03-29 00:29:57")?;
        wait("2027-03-29T00:30:00Z")?;

        // Autumn: 02:30 comes twice; it is due at its first coming.
        server.configure(FILE, "")?;
        server.apply()?;
        set_clock(host, "2027-10-31 00:29:53")?;
        server.configure(FILE, &one("nightly", "daily 02:30 Europe/Berlin"))?;
        server.apply()?;
        wait("2027-10-31T00:30:00Z")?;
        set_clock(host, "2027-10-31 01:29:58")?;
        host.wait_for("[ $(date -u +%H%M) = 0130 ]", FIRES_MAX)?;
        set_clock(host, "2027-11-01 01:29:58")?;
        wait("2027-11-01T01:30:00Z")?;
        assert_eq!(
            answered(server, "nightly")?,
            [
                "2027-03-28T01:00:00Z",
                "2027-03-29T00:30:00Z",
                "2027-10-31T00:30:00Z",
                "2027-11-01T01:30:00Z"
            ],
            "{}",
            host.journal("backstay-job@nightly.service")
        );
        // The days between were passed over with the clock, before and after the schedule's removal: nothing is owed twice.
        let rows = server.history("nightly")?;
        assert_eq!(rows.len(), 4, "{rows:?}");
        Ok(())
    })
}
