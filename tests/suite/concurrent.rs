//! What happens at the same time on one server: runs, requests, restores, retention; and a run that hangs.

use std::time::Duration;

use lab::{Host, Lab, Result, Server, fingerprint};
use serde_json::Value;

use crate::fleet::{RUN_MAX, prepared};

const FILE: &str = "/etc/backstay/schedules.d/test.toml";
const DAY: i64 = 86_400;
const SOON: Duration = Duration::from_secs(60);
/// What hangs is ended after 90 s; the rest is a busy machine.
const ENDED_MAX: Duration = Duration::from_secs(130);

/// Waits until the job of a schedule has this file open, and stops the process in that instant; not in the middle of
/// a change to the ledger, which nobody else could write then (byte 120 of its shared memory is the writer's lock).
/// All of the file is new and uploads are limited, so it is open for some seconds.
const HALT: &str = r#"
set -u
pid=0
end=$((SECONDS + 60))
while [ $SECONDS -lt $end ]; do
    # Nothing is started while the job is there: the file is open for a moment only.
    [ -d /proc/$pid/fd ] || pid=$(systemctl show -P MainPID "backstay-job@$1.service")
    for fd in /proc/$pid/fd/*; do
        [ "$fd" -ef "$2" ] || continue
        kill -STOP "$pid"
        until grep -q '^State:.*stopped' "/proc/$pid/status"; do :; done
        grep -qE "WRITE $pid .* 120 120\$" /proc/locks || { echo "$pid"; exit 0; }
        kill -CONT "$pid"
    done
done
echo "the job never opened $2"; exit 1
"#;

fn schedules() -> String {
    ["nightly", "other"]
        .map(|name| {
            format!(
                "[schedule.{name}]\nscope = \"web\"\nwhen = \"daily 12:00\"\ndestinations = [\"local\"]\n\
                 keep = {{ last = 1 }}\nlimits = {{ upload_per_second = \"10MB\" }}\nenabled = {}\n",
                name == "nightly"
            )
        })
        .concat()
        + "[schedule.dumps]\nscope = \"db\"\nwhen = \"daily 12:00\"\ndestinations = [\"local\"]\nenabled = false\n"
}

/// Lets a dump hang on the database, and asks its run to stop.
fn hang_a_dump(host: &Host) -> Result<()> {
    host.sh("set -e; systemctl start --no-block backstay-job@dumps; \
         until mariadb -e 'SHOW FULL PROCESSLIST' | grep -q 'FROM .goods'; do :; done; \
         pkill -STOP -x mariadbd; \
         systemctl stop --no-block backstay-job@dumps")
        .map(drop)
}

fn ended(runs: &[Value]) -> bool {
    runs.iter().all(|run| run["state"] != "running")
}

/// A run of the timer stands still in the middle, and everything else comes meanwhile.
fn all_at_once(server: &Server) -> Result<()> {
    let host = &server.host;
    let before = fingerprint(host, "/home/acme")?;
    host.sh("head -c 100000000 /dev/urandom > /home/acme/www/a-big")?;
    host.shift_clock(DAY)?;
    let pid = host.sh("bash /root/halt nightly /home/acme/www/a-big")?;
    // What is asked for joins it.
    host.sh("backstayctl schedule run nightly --no-wait; systemd-run -q --unit=joined --remain-after-exit \
             sh -c 'backstayctl --json schedule run nightly >/run/joined 2>&1'")?;
    // A restore of it needs no lock, another schedule has its own; retention spares what the run builds on.
    host.sh("backstayctl restore nightly --to /root/out")?;
    let out = "/root/out/acme.1000/files/home/acme";
    assert_eq!(fingerprint(host, out)?, before);
    let other = server.run_now("other", RUN_MAX)?;
    assert_eq!(other["state"], "ok", "{other}");
    // Two more occurrences come while it runs: one run follows, for the newer one.
    host.shift_clock(2 * DAY)?;
    host.shift_clock(3 * DAY)?;
    host.sh("systemctl daemon-reload; systemctl is-active --quiet backstay-job@nightly")?;
    host.sh(&format!("kill -CONT {pid}"))?;
    host.wait_until("the run that follows", RUN_MAX, |_| {
        let runs = server.history("nightly")?;
        Ok(runs.len() >= 4 && ended(&runs))
    })?;
    let mut runs = server.history("nightly")?;
    runs.sort_by_key(|run| run["due_at"].as_str().map(ToOwned::to_owned));
    let states: Vec<_> = runs
        .iter()
        .map(|run| run["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["ok", "ok", "skipped", "ok"], "{runs:?}");
    let skipped = runs[2]["summary"].as_str().unwrap();
    assert!(skipped.contains("still going"), "{skipped}");
    // Who joined a run looks at it now and then, so it hears of the end a little later.
    host.wait_for("systemctl show -P SubState joined | grep -qx exited", SOON)?;
    let joined: Value = serde_json::from_slice(&host.get("/run/joined")?).unwrap();
    assert_eq!(joined["id"], runs[1]["id"], "{joined}");
    host.sh(
        "set -e; rm -r /root/out; backstayctl restore nightly --to /root/out; \
             diff -r /root/out/acme.1000/files/home/acme /home/acme",
    )
    .map(drop)
}

#[test]
fn run_that_hangs_is_ended_with_a_reason_while_all_else_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    let server = prepared(lab.host("web").movable_clock().boot()?)?;
    let host = &server.host;
    host.put("/root/halt", HALT)?;
    host.sh(
        "set -e; systemctl start mariadb; mariadb -e 'CREATE DATABASE acme_one'; \
         mariadb acme_one -e 'CREATE TABLE goods (id INT PRIMARY KEY, text VARCHAR(1000)); \
         INSERT INTO goods SELECT seq, REPEAT(\"x\", 1000) FROM seq_1_to_60000'; backstayctl init; \
         echo short > /home/acme/www/a-big",
    )?;
    server.configure(FILE, &schedules())?;
    server.apply()?;
    for name in ["nightly", "other"] {
        let run = server.run_now(name, RUN_MAX)?;
        assert_eq!(run["state"], "ok", "{run}");
    }
    hang_a_dump(host)?;
    all_at_once(&server)?;

    // Meanwhile the dump hung on, until its job gives it up.
    host.wait_until("the end of the hung run", ENDED_MAX, |_| {
        Ok(ended(&server.history("dumps")?))
    })?;
    let runs = server.history("dumps")?;
    assert_eq!(
        (runs.len(), &runs[0]["state"]),
        (1, &Value::from("cancelled")),
        "{runs:?}"
    );
    let summary = runs[0]["summary"].as_str().unwrap();
    assert!(
        summary.contains("did not end by itself within 90 s"),
        "{summary}"
    );
    host.sh("pkill -CONT -x mariadbd")?;
    host.wait_for(
        "! systemctl -q is-active 'backstay-dump@*' && ! pgrep -x mariadb-dump",
        SOON,
    )?;
    let run = server.run_now("dumps", RUN_MAX)?;
    assert_eq!(run["state"], "ok", "{run}");
    Ok(())
}
