//! Join codes and generations that are not to be obeyed: refused in exact words, and what was in force stays.

use std::time::Duration;

use lab::{Controller, Lab, Result, Server};
use serde_json::Value;

use crate::bad_input::Bench;
use crate::fleet::{Fleet, schedule};

const TOLD_MAX: Duration = Duration::from_secs(90);

#[test]
fn join_code_is_good_once_and_for_an_hour() -> Result<()> {
    let lab = Lab::new()?;
    let hosts = [
        lab.host("controller").movable_clock().create()?,
        lab.host("web").create()?,
        lab.host("other").create()?,
    ];
    lab.up_all(&hosts.each_ref())?;
    let [first, web, other] = hosts;
    let controller = Controller::set_up(first)?;
    let bench = Bench::set_up(web)?;
    let other = Server::install(other)?;
    let join = |server: &Server, code: &str| -> Result<String> {
        server.host.put("/run/code", code)?;
        let output = server.host.run("backstayctl join - < /run/code 2>&1")?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(format!("{text}exit {}", output.status.code().unwrap()))
    };
    let code = controller.join_code("web")?;
    let damaged = code.replace(&code[code.len() - 4..], "0000");
    insta::assert_snapshot!(join(&bench.server, &damaged)?, @"
    Error: cannot use the join code
      1. the join code is damaged: copy the whole line again
    Hint: make a fresh code in the dashboard: Servers, Add server
    exit 2
    ");
    bench.server.join(&code)?;
    insta::assert_snapshot!(join(&other, &code)?, @"
    Error: joining the controller at controller:8443: the controller refuses (code_used): this join code was used already; make a fresh one
    exit 1
    ");
    insta::assert_snapshot!(join(&bench.server, &code)?, @"
    Error: this server has joined controller:8443 already, as web; nothing was changed
    exit 1
    ");

    let late = controller.join_code("late")?;
    controller.host.shift_clock(2 * 3600)?;
    insta::assert_snapshot!(join(&other, &late)?, @"
    Error: joining the controller at controller:8443: the controller refuses (code_expired): this join code has expired; make a fresh one
    exit 1
    ");
    controller.host.shift_clock(0)?;
    other
        .host
        .sh("test ! -e /var/lib/backstay/identity/join.json")?;
    controller.wait_online("web")?;
    bench.assert_nothing_lost()
}

#[test]
fn generation_that_is_not_for_this_agent_now_is_refused_and_the_last_good_one_runs() -> Result<()> {
    let lab = Lab::new()?;
    let hosts = [
        lab.host("controller").create()?,
        lab.host("web").create()?,
        lab.host("other").create()?,
    ];
    lab.up_all(&hosts.each_ref())?;
    let [first, web, other] = hosts;
    let controller = Controller::set_up(first)?;
    let bench = Bench::set_up(web)?;
    let other = Server::install(other)?;
    other.add_local("local", "/srv/backup")?;
    let (here, there) = (controller.join(&bench.server)?, controller.join(&other)?);
    for (number, when) in ["daily 01:00", "daily 02:00", "daily 03:00"]
        .iter()
        .enumerate()
    {
        let name = format!("synced-{number}");
        let schedule = serde_json::json!({ "name": name, "enabled": true, "scope": "web", "accounts": "all",
            "when": when, "destinations": ["local"], "keep": { "last": 7 }, "exclude": [] });
        controller.add_schedule(&there, &schedule)?;
        if number < 2 {
            controller.add_schedule(&here, &schedule)?;
        }
    }
    let host = &bench.server.host;
    host.sh("systemctl stop backstay-agentd")?;
    let generations = "/var/lib/backstay/generations";
    let newest = "ls /var/lib/backstay/generations/*.envelope | sort -V | tail -1";
    let oldest = newest.replace("tail", "head");
    let own = host.get(host.sh(newest)?.trim())?;
    let older = host.get(host.sh(&oldest)?.trim())?;
    let foreign = other.host.get(other.host.sh(newest)?.trim())?;
    let mut changed: Value = serde_json::from_slice(&own).unwrap();
    let signature = changed["signature"].as_str().unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let other_signature = format!("{first}{}", &signature[1..]);
    changed["signature"] = other_signature.into();
    let state = format!(
        "readlink {generations}/current; systemctl list-timers --no-legend 'backstay-job@*' | awk '{{print $(NF-1)}}' | sort"
    );
    let before = host.sh(&state)?;
    let mut shown = Vec::new();
    for (what, envelope) in [
        ("older number", older),
        ("for another agent", foreign),
        ("wrong signature", changed.to_string().into_bytes()),
        ("no envelope", b"{}".to_vec()),
    ] {
        host.put("/var/lib/backstay/inbox/next.json", envelope)?;
        shown.push(format!("{what}\n{}", bench.type_in("backstayctl apply")?));
        assert_eq!(host.sh(&state)?, before, "{what}");
    }
    insta::assert_snapshot!(shown.join("\n\n"), @"
    older number
    Refused: generation 1 is older than generation 2, which is applied
    Nothing to do: 3 unchanged.
    exit 3

    for another agent
    Refused: the generation is for agent [id], this is agent [id]
    Nothing to do: 3 unchanged.
    exit 3

    wrong signature
    Refused: the signature does not match the document
    Nothing to do: 3 unchanged.
    exit 3

    no envelope
    Refused: the document is not a signed envelope: missing field `payload_type` at line 1 column 2
    Nothing to do: 3 unchanged.
    exit 3
    ");
    let (code, run) = bench.run("synced-1")?;
    assert_eq!((code, &run["state"]), (0, &Value::from("ok")), "{run}");
    bench.assert_nothing_lost()
}

#[test]
fn generation_that_systemd_does_not_follow_is_rolled_back_and_the_controller_shows_it() -> Result<()>
{
    let lab = Lab::new()?;
    let fleet = Fleet::set_up(&lab)?;
    let (controller, host) = (&fleet.controller, &fleet.server.host);
    controller.add_schedule(&fleet.id, &schedule("good", "daily 02:00"))?;
    let next = "systemctl show -p NextElapseUSecRealtime -p SubState backstay-job@good.timer";
    let before = (
        host.sh(next)?,
        host.sh("readlink /var/lib/backstay/generations/current")?,
    );
    // systemd takes this timer for well and never arms it.
    let hindrance = "/etc/systemd/system/backstay-job@stuck.timer.d/60-admin.conf";
    host.put(hindrance, "[Unit]\nConditionPathExists=/nowhere\n")?;
    let state = || controller.call("GET", &format!("/api/v1/servers/{}", fleet.id), None);
    let save = |name: &str, when: &str| {
        let path = format!("/api/v1/servers/{}/schedules", fleet.id);
        controller.call("POST", &path, Some(&schedule(name, when)))
    };
    save("stuck", "daily 03:00")?;
    host.wait_until("the refusal at the controller", TOLD_MAX, |_| {
        Ok(state()?["generation"]["error"]
            .to_string()
            .contains("backstay-job@stuck.timer"))
    })?;
    assert_eq!(
        (
            host.sh(next)?,
            host.sh("readlink /var/lib/backstay/generations/current")?
        ),
        before
    );
    let left = "ls -d /etc/systemd/system/backstay-job@stuck.timer.d/50-backstay.conf \
                /etc/systemd/system/backstay-schedules.target.wants/backstay-job@stuck.timer 2>/dev/null || true";
    assert_eq!(host.sh(left)?, "");
    let run = fleet.server.run_now("good", TOLD_MAX)?;
    assert_eq!(run["state"], "ok", "{run}");

    // Once nothing hinders it, the next generation brings both.
    host.sh(&format!("rm {hindrance}"))?;
    save("third", "daily 04:00")?;
    host.wait_until("the next generation", TOLD_MAX, |_| {
        let generation = state()?["generation"].clone();
        Ok(generation["applied"] == generation["saved"] && generation["error"] == Value::Null)
    })?;
    host.sh("systemctl is-active --quiet backstay-job@stuck.timer backstay-job@third.timer")?;
    Ok(())
}
