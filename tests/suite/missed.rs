//! What was due and did not run has a row that says why, also when the schedule is gone before its next start.

use lab::{Result, Server};

use crate::timer_traps::{FIRES_MAX, answered, next_elapse, on_both, one, set_clock};

const FILE: &str = "/etc/backstay/schedules.d/test.toml";

/// Gives state and summary of the row of an occurrence of this day; there is one at most.
fn row(server: &Server, at: &str) -> Result<String> {
    let rows = server.history("minutely")?;
    let due = format!("2027-05-01T{at}Z");
    let mut found = rows.iter().filter(|row| row["due_at"] == due.as_str());
    let row = found.next().cloned().unwrap_or_default();
    assert!(found.next().is_none(), "two rows for {at}: {rows:?}");
    Ok(format!("{} {}", row["state"], row["summary"]))
}

fn assert_says(server: &Server, at: &str, wanted: &str) -> Result<()> {
    let row = row(server, at)?;
    assert!(row.contains(wanted), "{at}: {row}, not {wanted}");
    Ok(())
}

fn wait_answered(server: &Server, at: &str) -> Result<()> {
    let what = format!("the run due at {at}");
    server
        .host
        .wait_until(&what, FIRES_MAX, |_| Ok(row(server, at)?.contains("ok")))
}

/// Moves the clock in steps of less than a minute, which count as corrections: to each job that looks it is as if
/// time had passed.
fn time_passes(server: &Server, steps: &[&str]) -> Result<()> {
    for shown in steps {
        set_clock(&server.host, &format!("2027-05-01 {shown}"))?;
        let look = "systemctl start --wait backstay-job@daily.service";
        server.host.sh(look)?;
    }
    Ok(())
}

fn rows_say_why(server: &Server) -> Result<()> {
    let host = &server.host;
    host.sh("systemctl start backstay-job@minutely.timer")?;
    wait_answered(server, "10:03:00")?;
    for at in ["10:01:00", "10:02:00"] {
        assert_says(server, at, "the server was on, but no run began")?;
    }
    set_clock(host, "2027-05-01 10:30:30")?;
    wait_answered(server, "10:30:00")?;
    assert_says(server, "10:20:00", "clock was moved")?;
    host.power_off()?;
    set_clock(host, "2027-05-01 10:40:30")?;
    host.up()?;
    wait_answered(server, "10:40:00")?;
    assert_says(server, "10:35:00", "server was off")
}

fn removed_schedule_has_its_rows(server: &Server) -> Result<()> {
    server
        .host
        .sh("systemctl stop backstay-job@minutely.timer")?;
    time_passes(server, &["10:41:20", "10:42:05"])?;
    server.configure(FILE, &one("daily", "daily 09:00 UTC"))?;
    server.apply()?;
    assert_eq!(row(server, "10:42:00")?, "null null");
    server.host.sh("backstayctl schedule run daily")?;
    assert_says(server, "10:42:00", "changed or removed")
}

/// As at a boot without a network.
fn clock_far_ahead_costs_no_later_day(server: &Server) -> Result<()> {
    let host = &server.host;
    set_clock(host, "2027-05-04 08:00:00")?;
    host.wait_until("the run ahead of its time", FIRES_MAX, |_| {
        Ok(answered(server, "daily")?.contains(&"2027-05-03T09:00:00Z".to_owned()))
    })?;
    host.power_off()?;
    set_clock(host, "2027-05-01 11:00:00")?;
    host.up()?;
    let next = host.sh("date -d '2027-05-02 09:00 UTC' +%s")?;
    assert_eq!(next_elapse(host, "daily")?, next.trim().parse().ok());
    set_clock(host, "2027-05-02 08:59:57")?;
    host.wait_until("the run of the true day", FIRES_MAX, |_| {
        Ok(answered(server, "daily")?.contains(&"2027-05-02T09:00:00Z".to_owned()))
    })
}

#[test]
fn what_did_not_run_has_a_row_that_says_why() -> Result<()> {
    on_both(true, |server| {
        let host = &server.host;
        set_clock(host, "2027-05-01 10:00:05")?;
        // Of a schedule whose time of today has passed nothing fires.
        let all = one("minutely", "systemd:*-*-* *:*:00 UTC") + &one("daily", "daily 09:00 UTC");
        server.configure(FILE, &all)?;
        server.apply()?;
        host.sh("systemctl stop backstay-job@minutely.timer")?;
        assert_eq!(server.history("daily")?.len(), 0);
        let steps = ["10:00:10", "10:00:50", "10:01:40", "10:02:30", "10:03:15"];
        time_passes(server, &steps)?;
        rows_say_why(server)?;
        removed_schedule_has_its_rows(server)?;
        clock_far_ahead_costs_no_later_day(server)
    })
}
