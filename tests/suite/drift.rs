//! What differs from what was applied is reported and put right; what is not ours is never touched.

use std::time::Duration;

use lab::{Host, Lab, Result, controller::WATCH_SECS};

use crate::fleet::{Fleet, schedule};

const ONE_POLL: Duration = Duration::from_secs(WATCH_SECS + 20);
const DROP_IN: &str = "/etc/systemd/system/backstay-job@nightly.timer.d/50-backstay.conf";
const FOREIGN: &str = "/etc/systemd/system/backstay-job@nightly.timer.d/60-admin.conf";

/// Does what the reconcile timer does every quarter of an hour.
fn reconcile(host: &Host) -> Result<()> {
    let done = host.run("systemctl start backstay-reconcile.service")?;
    assert!(
        done.status.success(),
        "{}",
        host.journal("backstay-reconcile")
    );
    Ok(())
}

#[test]
fn deleted_and_edited_units_are_reported_and_put_right_and_foreign_ones_stay() -> Result<()> {
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    fleet
        .controller
        .add_schedule(&fleet.id, &schedule("nightly", "daily 02:00"))?;
    let host = &fleet.server.host;
    let right = host.sh(&format!("cat {DROP_IN}"))?;
    host.put(FOREIGN, "[Timer]\nAccuracySec=7s\n")?;
    host.put(
        "/etc/systemd/system/backstay-foreign.service",
        "[Service]\nExecStart=true\n",
    )?;
    host.sh("systemctl daemon-reload")?;

    for harm in [
        format!("rm {DROP_IN}"),
        format!("sed -i 's/02:00/03:00/' {DROP_IN}"),
    ] {
        host.sh(&format!("{harm}; systemctl daemon-reload"))?;
        let drift = fleet.server.ctl("plan")?;
        assert!(drift.to_string().contains("nightly"), "{harm}: {drift}");
        host.wait_until(&format!("the report of {harm}"), ONE_POLL, |_| {
            let path = format!("/api/v1/servers/{}", fleet.id);
            let seen = fleet.controller.call("GET", &path, None)?;
            Ok(seen["drift"].to_string().contains("nightly"))
        })?;
        reconcile(host)?;
        assert_eq!(host.sh(&format!("cat {DROP_IN}"))?, right, "{harm}");
        let state = host.run("systemctl is-active backstay-job@nightly.timer")?;
        assert!(
            state.status.success(),
            "{harm}: {}",
            host.journal("backstay-reconcile")
        );
        assert!(
            host.sh("systemctl cat backstay-job@nightly.timer")?
                .contains("02:00"),
            "{harm}"
        );
    }
    // A timer that somebody stopped is somebody's will: told, and left.
    host.sh("systemctl stop backstay-job@nightly.timer")?;
    let told = fleet.server.ctl("plan")?;
    assert!(told["held"].to_string().contains("nightly"), "{told}");
    reconcile(host)?;
    assert!(
        !host
            .run("systemctl is-active backstay-job@nightly.timer")?
            .status
            .success()
    );
    assert_eq!(host.get(FOREIGN)?, b"[Timer]\nAccuracySec=7s\n");
    assert!(
        host.get("/etc/systemd/system/backstay-foreign.service")
            .is_ok()
    );
    Ok(())
}
