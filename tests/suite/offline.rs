//! Timers and jobs need neither agent daemon nor controller nor network; what they did is told later, exactly once.

use std::time::{Duration, Instant};

use lab::{Lab, Result, controller::WATCH_SECS};

use crate::fleet::{Fleet, ids, schedule};

/// Three minutely runs, the wait for the first of them, and a busy machine.
const THREE_RUNS_MAX: Duration = Duration::from_secs(330);
/// What was done in the dark is told within two polls, from the moment that both sides are up and reach each other.
const TWO_POLLS: Duration = Duration::from_secs(2 * WATCH_SECS);
/// A connection that was cut ends after a minute, and an agent without one is offline half a minute later.
const OFFLINE_MAX: Duration = Duration::from_secs(120);

#[test]
fn three_due_runs_happen_with_everything_else_dead_and_are_shown_once_each() -> Result<()> {
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    fleet
        .controller
        .add_schedule(&fleet.id, &schedule("minutely", "minutely"))?;
    let host = &fleet.server.host;
    host.cut()?;
    host.sh("systemctl stop backstay-agentd")?;
    fleet.controller.stop()?;
    let before = ids(&fleet.server.history("minutely")?);

    let ended = |wanted: usize| -> Result<bool> {
        let runs = fleet.server.history("minutely")?;
        let new: Vec<_> = runs
            .iter()
            .filter(|run| !before.contains(&ids(&[(*run).clone()])[0]))
            .collect();
        assert!(
            new.iter()
                .all(|run| ["ok", "running"].contains(&run["state"].as_str().unwrap())),
            "{new:?}"
        );
        Ok(new.iter().filter(|run| run["state"] == "ok").count() >= wanted)
    };
    host.wait_until("three runs", THREE_RUNS_MAX, |_| ended(3))?;
    assert!(
        !host
            .run("systemctl is-active backstay-agentd")?
            .status
            .success()
    );
    host.sh("systemctl stop backstay-job@minutely.timer")?;
    host.wait_for(
        "! systemctl is-active --quiet backstay-job@minutely.service",
        Duration::from_secs(60),
    )?;

    let mut runs = fleet.server.history("minutely")?;
    runs.retain(|run| !before.contains(&ids(std::slice::from_ref(run))[0]));
    for run in &runs {
        // On time: begun within seconds of the minute that it answers.
        let due = run["due_at"].as_str().unwrap();
        let started = run["started_at"].as_str().unwrap();
        assert_eq!(due[..17], started[..17], "{run}");
        assert!(due[17..].starts_with("00"), "{run}");
    }

    fleet.controller.start()?;
    host.heal()?;
    let wanted = ids(&fleet.server.history("minutely")?);
    host.sh("systemctl start backstay-agentd")?;
    println!(
        "runs were shown after {:?}",
        shown_within_two_polls(&fleet, "minutely", &wanted)?
    );
    Ok(())
}

/// Waits until the controller shows these runs, which it must within two polls from now, and says how long it took.
fn shown_within_two_polls(fleet: &Fleet, schedule: &str, wanted: &[String]) -> Result<Duration> {
    let start = Instant::now();
    let host = &fleet.server.host;
    host.wait_until("the controller to show the runs", TWO_POLLS, |_| {
        Ok(ids(&fleet.shown_runs(schedule)?) == wanted)
    })?;
    Ok(start.elapsed())
}

#[test]
fn a_server_behind_a_cut_goes_offline_and_tells_its_runs_within_two_polls_of_healing() -> Result<()>
{
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    fleet
        .controller
        .add_schedule(&fleet.id, &schedule("nightly", "daily 02:00"))?;
    let host = &fleet.server.host;
    let is_online = || -> Result<bool> {
        let path = format!("/api/v1/servers/{}", fleet.id);
        Ok(fleet.controller.call("GET", &path, None)?["online"] == true)
    };
    assert!(is_online()?);
    // Nobody hangs up, and both daemons go on: each has to find out for itself.
    host.cut()?;
    host.sh("systemctl start --wait backstay-job@nightly.service")?;
    host.wait_until("the server to be offline", OFFLINE_MAX, |_| {
        Ok(!is_online()?)
    })?;
    let wanted = ids(&fleet.server.history("nightly")?);
    assert_eq!(wanted.len(), 1);
    host.heal()?;
    shown_within_two_polls(&fleet, "nightly", &wanted)?;
    host.wait_until("the server to be online", TWO_POLLS, |_| is_online())
}

#[test]
fn agent_killed_in_the_middle_of_a_run_changes_nothing_for_the_run() -> Result<()> {
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    fleet
        .controller
        .add_schedule(&fleet.id, &schedule("nightly", "daily 02:00"))?;
    let host = &fleet.server.host;
    // Large enough that the run is still going when the daemon is killed.
    host.sh(
        "head -c 400000000 /dev/urandom > /home/acme/www/large; chown acme: /home/acme/www/large",
    )?;
    host.sh("systemctl start --no-block backstay-job@nightly.service")?;
    host.wait_for(
        "systemctl show -p StatusText backstay-job@nightly.service | grep -q .",
        Duration::from_secs(30),
    )?;
    host.sh("systemctl kill -s KILL backstay-agentd")?;
    host.wait_until("the run's end", crate::fleet::RUN_MAX, |_| {
        Ok(fleet
            .server
            .history("nightly")?
            .first()
            .is_some_and(|run| run["state"] != "running"))
    })?;
    let runs = fleet.server.history("nightly")?;
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(runs[0]["state"], "ok", "{}", runs[0]);
    // systemd starts the daemon again by itself, and the run is told once.
    let wanted = ids(&runs);
    host.wait_for(
        "systemctl is-active --quiet backstay-agentd",
        Duration::from_secs(30),
    )?;
    println!(
        "runs were shown after {:?}",
        shown_within_two_polls(&fleet, "nightly", &wanted)?
    );
    Ok(())
}
