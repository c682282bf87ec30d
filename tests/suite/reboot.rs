//! A server that was off when backups were due catches up once and knows what it missed, with nobody to ask.

use std::time::Duration;

use lab::{Lab, Result};

use crate::fleet::{RUN_MAX, prepared};

const HOUR: i64 = 3600;

#[test]
fn two_missed_occurrences_become_one_run_and_one_missed_row() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").movable_clock().boot()?)?;
    let host = &server.host;
    server.configure(
        "/etc/backstay/schedules.d/hourly.toml",
        "[schedule.hourly]\nscope = \"web\"\nwhen = \"hourly\"\ndestinations = [\"local\"]\n",
    )?;
    server.apply()?;
    let first = server.run_now("hourly", RUN_MAX)?;
    assert_eq!(first["state"], "ok", "{first}");

    // Off over two due occurrences: the clock of the host goes on while it is off.
    host.power_off()?;
    host.shift_clock(2 * HOUR)?;
    host.up()?;
    host.wait_until("the catch-up", RUN_MAX, |_| {
        let runs = server.history("hourly")?;
        Ok(runs.len() >= 3 && runs.iter().all(|run| run["state"] != "running"))
    })?;
    let mut runs = server.history("hourly")?;
    runs.retain(|run| run["id"] != first["id"]);
    let mut states: Vec<_> = runs
        .iter()
        .map(|run| run["state"].as_str().unwrap())
        .collect();
    states.sort_unstable();
    assert_eq!(states, ["missed", "ok"], "{runs:?}");
    let missed = runs.iter().find(|run| run["state"] == "missed").unwrap();
    assert_eq!(missed["summary"], "missed: the server was off");
    // It was due before this boot, and the container's is another than that of the machine below.
    let caught_up = runs.iter().find(|run| run["state"] == "ok").unwrap();
    assert_eq!(caught_up["trigger"], "catch_up", "{caught_up}");
    let mut due: Vec<_> = runs
        .iter()
        .map(|run| run["due_at"].as_str().unwrap())
        .collect();
    due.sort_unstable();
    due.dedup();
    assert_eq!(due.len(), 2, "{runs:?}");
    Ok(())
}

#[test]
fn run_cut_by_a_power_cut_is_recorded_as_failed_and_the_next_one_is_ok() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("web").disk("/srv/backup", 600).boot()?;
    let server = prepared(host)?;
    let host = &server.host;
    server.configure(
        "/etc/backstay/schedules.d/nightly.toml",
        "[schedule.nightly]\nscope = \"web\"\nwhen = \"daily 02:00\"\ndestinations = [\"local\"]\n",
    )?;
    server.apply()?;
    let first = server.run_now("nightly", RUN_MAX)?;
    assert_eq!(first["state"], "ok", "{first}");
    host.sh("head -c 300000000 /dev/urandom > /home/acme/www/large; chown acme: /home/acme/www/large; sync -f /home")?;
    host.sh("systemctl start --no-block backstay-job@nightly.service")?;
    host.wait_for(
        "test $(du -sm /srv/backup | cut -f1) -gt 60",
        Duration::from_secs(60),
    )?;
    host.power_cut()?;
    host.up()?;
    let second = server.run_now("nightly", RUN_MAX)?;
    assert_eq!(second["state"], "ok", "{second}");
    let states: Vec<_> = server
        .history("nightly")?
        .iter()
        .map(|run| run["state"].clone())
        .collect();
    assert_eq!(states, ["ok", "failed", "ok"]);
    Ok(())
}
