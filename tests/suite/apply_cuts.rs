//! An apply that is killed at any instant leaves timers that are right each for itself, fires nothing, and is made
//! good by the next one. Every step of it is cut in memory in `apply/tests.rs` of the agent; here systemd is real.

use std::collections::BTreeMap;

use lab::{Host, Result, Server};
use serde_json::Value;

use crate::timer_traps::{on_both, one};

const FILE: &str = "/etc/backstay/schedules.d/test.toml";

/// Cuts on each of two hosts.
const CUTS: u32 = 20;

/// Applies and kills the service that does it after a while; says whether the apply was under way.
/// usage: cut SECONDS
const CUT: &str = r#"
set -u
backstayctl --json status >/run/before
pid=$(systemctl show -P MainPID backstay-apply.service)
backstayctl --json apply >/run/outcome 2>&1 & asking=$!
sleep "$1"
kill -KILL "$pid"
wait $asking && echo whole || echo cut
"#;

/// Prints each armed timer and the hour and minute of its next elapse.
const ARMED: &str = r#"
systemctl show -p Id -p SubState -p NextElapseUSecRealtime 'backstay-job@*.timer' | awk -F= '
    $1 == "Id" { id = $2 } $1 == "SubState" { sub_state = $2 } $1 == "NextElapseUSecRealtime" { next_at = $2 }
    /^$/ { print id, sub_state, next_at } END { print id, sub_state, next_at }' |
    sed -E 's/^backstay-job@([^ ]+)\.timer ([a-z]+) .*([0-9]{2}:[0-9]{2}):00 UTC$/\1 \2 \3/' | sort -u
"#;

/// What is to be: the time of each schedule.
type Wanted = BTreeMap<String, String>;

/// Gives thirty schedules twice: some are edited, some go, some come. Their times are hours away from now.
fn both(host: &Host) -> Result<[Wanted; 2]> {
    let hour: u32 = host.sh("date -u +%-H")?.trim().parse().unwrap();
    let at = |later: u32, minute: u32| format!("{:02}:{minute:02}", (hour + later) % 24);
    let before = (0..30).map(|number| (format!("s{number}"), at(8, number)));
    let after = (0..20)
        .map(|number| {
            let later = if number < 10 { 12 } else { 8 };
            (format!("s{number}"), at(later, number))
        })
        .chain((0..10).map(|number| (format!("n{number}"), at(16, number))));
    Ok([before.collect(), after.collect()])
}

fn configure(server: &Server, wanted: &Wanted) -> Result<()> {
    let all = wanted.iter();
    let all: String = all
        .map(|(name, at)| one(name, &format!("daily {at}")))
        .collect();
    server.configure(FILE, &all)
}

/// Gives the armed timers and when they elapse, and insists that each is of one of the two configurations.
fn armed(host: &Host, either: &[Wanted; 2]) -> Result<Wanted> {
    let mut found = Wanted::new();
    for line in host.sh(ARMED)?.lines() {
        let words: Vec<_> = line.split(' ').collect();
        // What is stopped, or linked and never loaded, is not armed.
        if words.get(1) != Some(&"waiting") {
            continue;
        }
        let [name, _, at] = words[..] else {
            panic!("a timer that waits for nothing: {line}");
        };
        let is_right = either
            .iter()
            .any(|wanted| wanted.get(name).is_some_and(|time| time == at));
        assert!(is_right, "a timer that nobody wants: {line}");
        found.insert(name.to_owned(), at.to_owned());
    }
    Ok(found)
}

fn is_nothing(outcome: &Value) -> bool {
    ["created", "changed", "removed", "repaired", "held"]
        .iter()
        .all(|key| outcome[key].as_array().is_some_and(Vec::is_empty))
}

#[test]
fn apply_killed_at_any_instant_is_made_good_by_the_next_one() -> Result<()> {
    on_both(false, |server| {
        let host = &server.host;
        let either = both(host)?;
        host.put("/root/cut", CUT)?;
        // Without a cut first: this makes every key, and shows how long an apply takes.
        let mut took = 0.0;
        for wanted in [&either[0], &either[1], &either[0]] {
            configure(server, wanted)?;
            let outcome = server.apply()?;
            took = outcome["took_ms"].as_f64().unwrap() / 1000.0;
            assert_eq!(armed(host, &either)?, *wanted);
        }
        let (mut rounds, mut cut, mut mixed) = (0, 0, 0);
        while cut < CUTS {
            let wanted = &either[usize::from(rounds % 2 == 0)];
            let former = &either[usize::from(rounds % 2 == 1)];
            configure(server, wanted)?;
            let wait = took * f64::from(cut + 1) / f64::from(CUTS);
            let said = host.sh(&format!("bash /root/cut {wait:.3}"))?;
            rounds += 1;
            cut += u32::from(said.contains("cut"));
            let found = armed(host, &either)?;
            mixed += u32::from(found != *wanted && found != *former);
            server.apply()?;
            assert_eq!(armed(host, &either)?, *wanted, "after a cut at {wait} s");
            let again = server.apply()?;
            assert!(is_nothing(&again), "after a cut at {wait} s: {again}");
            // Where the last cuts come too late, an apply is quicker than it was.
            if !said.contains("cut") {
                took *= 0.9;
            }
            assert!(rounds < 2 * CUTS, "{cut} of {rounds} applies were cut");
        }
        println!(
            "{}: an apply takes {took:.2} s; {cut} of {rounds} were cut, {mixed} left a mix",
            host.name()
        );
        let rows = server.ctl("history --limit 100")?;
        assert_eq!(rows, Value::Array(Vec::new()), "something fired");
        let left =
            host.sh("ls /var/lib/backstay/generations; find /etc/systemd/system -name '*.tmp'")?;
        assert!(
            !left.contains("intent.json") && !left.contains(".tmp"),
            "{left}"
        );
        Ok(())
    })
}
