//! However often controller and agent die while results travel: no row is lost, none is doubled.

use std::thread;
use std::time::Duration;

use lab::{Host, Lab, Result};

use crate::fleet::{Fleet, ids, schedule};

/// Kills of the agent, and as many of the controller.
const ROUNDS: u64 = 100;
const DELIVERY_MAX: Duration = Duration::from_secs(120);

/// Kills a unit after a while and starts it again. The while differs from one call to the next, the same on every run.
///
/// By `restart`: `start` would wait until systemd itself starts what died, some seconds later.
fn kill_after(host: &Host, unit: &str, number: u64) -> Result<()> {
    let delay = (number * 37) % 301;
    host.sh(&format!(
        "sleep 0.{delay:03}; systemctl kill -s KILL {unit}; systemctl restart {unit}"
    ))
    .map(drop)
}

#[test]
fn two_hundred_kills_during_delivery_lose_and_double_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    fleet
        .controller
        .add_schedule(&fleet.id, &schedule("small", "daily 02:00"))?;
    let (server, controller) = (&fleet.server.host, &fleet.controller.host);
    for number in 0..ROUNDS {
        server.sh("systemctl start --wait backstay-job@small.service")?;
        thread::scope(|scope| {
            let other = scope.spawn(|| kill_after(controller, "backstay-controller", number + 7));
            kill_after(server, "backstay-agentd", number)?;
            other.join().unwrap()
        })?;
    }
    let wanted = ids(&fleet.server.history("small")?);
    assert_eq!(wanted.len(), usize::try_from(ROUNDS).unwrap());
    server.wait_until("every row to be shown", DELIVERY_MAX, |_| {
        Ok(fleet
            .shown_runs("small")
            .is_ok_and(|runs| runs.len() >= wanted.len()))
    })?;
    assert_eq!(ids(&fleet.shown_runs("small")?), wanted);
    Ok(())
}
