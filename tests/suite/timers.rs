//! Schedules become timers of systemd: all of them with one reload, none by accident, and an administrator's will stays.

use std::time::{Duration, Instant};

use lab::{Distro, Host, Lab, Result, Server};

use crate::fleet::{RUN_MAX, prepared};

const FILE: &str = "/etc/backstay/schedules.d/test.toml";

/// Counts how often systemd has reloaded its units since boot. 252 says so at the beginning, 257 at the end.
fn reloads(host: &Host) -> Result<usize> {
    let lines = host.sh(
        "journalctl -b _PID=1 -o cat | grep -cE '^Reloading\\.$|^Reloading finished' || true",
    )?;
    Ok(lines.trim().parse().unwrap())
}

/// Gives the timers that systemd will fire, by name.
fn armed(host: &Host) -> Result<Vec<String>> {
    let script = "systemctl list-timers --no-legend 'backstay-job@*' | grep -vE '^(n/a|-) ' | grep -oE 'backstay-job@[^ ]+\\.timer' | sort";
    Ok(host.sh(script)?.lines().map(ToOwned::to_owned).collect())
}

fn one(name: &str, when: &str) -> String {
    format!("[schedule.{name}]\nscope = \"web\"\nwhen = \"{when}\"\ndestinations = [\"local\"]\n")
}

#[test]
fn thousand_schedules_become_thousand_timers_with_one_reload() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let server = prepared(lab.host(distro.suite()).distro(distro).boot()?)?;
        let host = &server.host;
        let all: String = (0..1000)
            .map(|number| {
                one(
                    &format!("s{number}"),
                    &format!("daily {:02}:{:02}", number % 24, number % 60),
                )
            })
            .collect();
        server.configure(FILE, &all)?;
        let before = reloads(host)?;
        let start = Instant::now();
        server.apply()?;
        let first = start.elapsed();
        assert_eq!(armed(host)?.len(), 1000);
        assert_eq!(reloads(host)?, before + 1, "one reload for all");

        let stamp = "find /etc/systemd/system -newer /run/mark | wc -l";
        host.sh("touch /run/mark")?;
        let start = Instant::now();
        server.apply()?;
        println!(
            "{}: apply {first:?}, of no change {:?}",
            distro.suite(),
            start.elapsed()
        );
        assert_eq!(
            host.sh(stamp)?.trim(),
            "0",
            "the second apply writes nothing"
        );
        assert_eq!(reloads(host)?, before + 1, "and reloads nothing");
    }
    Ok(())
}

#[test]
fn edited_calendar_fires_nothing_and_a_removed_schedule_leaves_no_timer() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let server = prepared(lab.host(distro.suite()).distro(distro).boot()?)?;
        let host = &server.host;
        server.configure(FILE, &one("nightly", "daily 02:00"))?;
        server.apply()?;
        // A persistent timer whose calendar is edited would fire at once, were its stamp older than the new elapse.
        for when in [
            "daily 03:00",
            "hourly",
            "monthly 1 02:00",
            "weekly mon 02:00",
            "daily 02:00",
        ] {
            server.configure(FILE, &one("nightly", when))?;
            server.apply()?;
        }
        host.sh("systemctl daemon-reload")?;
        assert_eq!(server.history("nightly")?.len(), 0, "{}", distro.suite());
        assert_eq!(armed(host)?, ["backstay-job@nightly.timer"]);
        server.configure(FILE, "")?;
        server.apply()?;
        assert_eq!(armed(host)?, Vec::<String>::new());
        assert_eq!(
            host.sh("ls /etc/systemd/system | grep -c backstay-job@ || true")?
                .trim(),
            "0"
        );
    }
    Ok(())
}

#[test]
fn masked_timer_stays_masked_and_is_told() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").boot()?)?;
    server.configure(
        FILE,
        &(one("nightly", "daily 02:00") + &one("other", "daily 03:00")),
    )?;
    server.apply()?;
    server
        .host
        .sh("systemctl mask --now --quiet backstay-job@nightly.timer")?;
    let told = server.host.run("backstayctl plan")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("nightly") && told.contains("mask"), "{told}");
    server.host.run("backstayctl apply")?;
    assert_eq!(
        server
            .host
            .sh("systemctl is-enabled backstay-job@nightly.timer || true")?,
        "masked\n"
    );
    assert_eq!(armed(&server.host)?, ["backstay-job@other.timer"]);
    Ok(())
}

#[test]
fn bad_file_is_refused_and_the_last_good_timers_go_on() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").boot()?)?;
    let host = &server.host;
    server.configure(FILE, &one("nightly", "daily 02:00"))?;
    server.apply()?;
    for bad in ["daily 25:00", "Feb 30", "*-02-30 02:00", "never"] {
        server.configure(FILE, &one("nightly", bad))?;
        let refused = host.run("backstayctl apply")?;
        assert_eq!(refused.status.code(), Some(15), "{bad}: {refused:?}");
        assert_eq!(armed(host)?, ["backstay-job@nightly.timer"], "{bad}");
        assert!(
            host.sh("systemctl cat backstay-job@nightly.timer")?
                .contains("02:00")
        );
    }
    host.reboot()?;
    assert_eq!(armed(host)?, ["backstay-job@nightly.timer"]);
    Ok(())
}

#[test]
fn clock_steps_neither_lose_nor_double_an_occurrence() -> Result<()> {
    let lab = Lab::new()?;
    for distro in Distro::ALL {
        let server = prepared(
            lab.host(distro.suite())
                .distro(distro)
                .movable_clock()
                .boot()?,
        )?;
        let host = &server.host;
        server.configure(FILE, &one("nightly", "daily 02:00"))?;
        server.apply()?;
        let wait_runs = |count: usize| {
            host.wait_until(&format!("{count} settled runs"), RUN_MAX, |_| {
                let runs = server.history("nightly")?;
                Ok(runs.len() >= count && runs.iter().all(|run| run["state"] != "running"))
            })
        };
        // Forward over one occurrence: it runs. Back and over it again: it does not run twice.
        host.shift_clock(86_400)?;
        wait_runs(1)?;
        host.shift_clock(0)?;
        host.shift_clock(86_400)?;
        host.sh("systemctl try-restart backstay-job@nightly.timer")?;
        host.shift_clock(2 * 86_400)?;
        wait_runs(2)?;
        let runs = server.history("nightly")?;
        assert_eq!(runs.len(), 2, "{}: {runs:?}", distro.suite());
        assert_ne!(runs[0]["due_at"], runs[1]["due_at"]);
    }
    Ok(())
}

/// How long a server may take from boot to armed timers.
const ARMED_MAX: Duration = Duration::from_secs(20);

#[test]
fn timers_are_armed_soon_after_boot_without_the_daemon() -> Result<()> {
    let lab = Lab::new()?;
    let server: Server = prepared(lab.host("web").boot()?)?;
    server.configure(FILE, &one("nightly", "daily 02:00"))?;
    server.apply()?;
    server
        .host
        .sh("systemctl disable --quiet backstay-agentd")?;
    let start = Instant::now();
    server.host.reboot()?;
    server.host.wait_until(
        "armed timers",
        ARMED_MAX,
        |host| Ok(armed(host)?.len() == 1),
    )?;
    println!(
        "reboot to armed timers: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert!(
        !server
            .host
            .run("systemctl is-active backstay-agentd")?
            .status
            .success()
    );
    Ok(())
}
