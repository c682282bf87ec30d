//! Bad configuration, places that cannot be written, keys that do not fit: each is answered in exact words,
//! nothing that was backed up is lost, and what was good before goes on. What comes from files and databases is in
//! `bad_sources`, what comes from a controller in `bad_orders`; faults that need no host are proven beside the code: every message of the configuration in
//! `settings/tests/messages.rs`, each refused generation in `apply/tests.rs` of the agent, damage and wrong keys on a
//! command line in `ctl/tests/standalone.rs`, cuts and damage at every byte in `repository/tests/faults.rs`.

use std::time::Duration;

use lab::{Garage, Host, Lab, Result, Server, differing_lines, fingerprint};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const OUT: &str = "/root/restored";

/// A server with an account, and a snapshot of it that must stay restorable whatever comes.
pub(crate) struct Bench {
    pub(crate) server: Server,
    snapshot: String,
    content: String,
}

impl Bench {
    /// Installs the packages and backs the account up once.
    pub(crate) fn set_up(host: Host) -> Result<Self> {
        let server = Server::install(host)?;
        server.host.sh(
            "useradd --create-home acme; install -d /home/acme/www; \
             for i in $(seq 5); do seq $((i * 1000)) > /home/acme/www/page-$i; done; chown -R acme: /home/acme",
        )?;
        server.add_local("local", "/srv/backup")?;
        let content = fingerprint(&server.host, "/home/acme")?;
        let mut bench = Self {
            server,
            snapshot: String::new(),
            content,
        };
        bench.schedule("nightly", "web", "\"local\"")?;
        let (code, run) = bench.run("nightly")?;
        assert_eq!((code, &run["state"]), (0, &Value::from("ok")), "{run}");
        bench.snapshot = run["copies"][0]["snapshot"].as_str().unwrap().to_owned();
        Ok(bench)
    }

    /// Writes a schedule and applies it.
    pub(crate) fn schedule(&self, name: &str, scope: &str, destinations: &str) -> Result<()> {
        self.server.configure(
            &format!("/etc/backstay/schedules.d/{name}.toml"),
            &format!(
                "[schedule.{name}]\nscope = \"{scope}\"\nwhen = \"daily 02:00\"\ndestinations = [{destinations}]\n\
                 keep = {{ last = 50 }}\n"
            ),
        )?;
        self.server.apply().map(drop)
    }

    /// Starts a run; gives the exit code and the record.
    pub(crate) fn run(&self, schedule: &str) -> Result<(i32, Value)> {
        let output = self
            .server
            .host
            .run(&format!("backstayctl --json schedule run {schedule}"))?;
        let record = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let unit = format!("backstay-job@{schedule}.service");
            panic!("{error}: {output:?}\n{}", self.server.host.journal(&unit))
        });
        Ok((output.status.code().unwrap(), record))
    }

    /// Starts a run; gives the exit code, the state and the log as they are shown.
    pub(crate) fn attempt(&self, schedule: &str) -> Result<String> {
        self.run(schedule).map(|(code, run)| told(code, &run))
    }

    /// Types a command; gives what it says and its exit code.
    pub(crate) fn type_in(&self, command: &str) -> Result<String> {
        let output = self.server.host.run(&format!("{command} 2>&1"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(masked(&format!(
            "{text}exit {}",
            output.status.code().unwrap()
        )))
    }

    /// Holds the server to it that the first snapshot comes back as it was, and that its schedule still runs.
    pub(crate) fn assert_nothing_lost(&self) -> Result<()> {
        self.assert_comes_back("nightly", &self.snapshot, "local")?;
        let (code, run) = self.run("nightly")?;
        assert_eq!((code, &run["state"]), (0, &Value::from("ok")), "{run}");
        Ok(())
    }

    /// Restores a snapshot of the account as it was at first, and compares.
    fn assert_comes_back(&self, schedule: &str, snapshot: &str, from: &str) -> Result<()> {
        let host = &self.server.host;
        host.sh(&format!(
            "rm -rf {OUT}; backstayctl restore {schedule} {snapshot} --from {from} --to {OUT}"
        ))?;
        let restored = fingerprint(host, &format!("{OUT}/acme.1000/files/home/acme"))?;
        assert_eq!(
            differing_lines(&self.content, &restored),
            Vec::<String>::new()
        );
        Ok(())
    }
}

/// Gives what a run's record says, with what differs each time masked.
pub(crate) fn told(code: i32, run: &Value) -> String {
    let log = run["log"].as_array().unwrap().iter();
    let lines: Vec<&str> = log.map(|line| line.as_str().unwrap()).collect();
    let state = run["state"].as_str().unwrap();
    masked(&format!("exit {code}, {state}\n{}", lines.join("\n")))
}

/// Masks ids, sizes and kinds of packs, which differ each time.
pub(crate) fn masked(text: &str) -> String {
    const ID_MIN: usize = 16;
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(start);
        let end = from
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        shown.push_str(before);
        shown.push_str(if word.len() >= ID_MIN { "[id]" } else { word });
        rest = after;
    }
    shown.push_str(rest);
    // An object lies in a directory called as its name begins.
    let mut parts: Vec<&str> = shown.split('/').collect();
    for index in 1..parts.len() {
        if parts[index].starts_with("[id]") && parts[index - 1].len() == 2 {
            parts[index - 1] = "[id]";
        }
    }
    // Content and metadata are uploaded side by side: which kind of pack meets a full disk first is open.
    for index in 1..parts.len() {
        if parts[index - 1] == "[id]" && ["p", "m"].contains(&parts[index]) {
            parts[index] = "[pack]";
        }
    }
    let shown = parts.join("/");
    let mut words: Vec<&str> = shown.split(' ').collect();
    for index in 1..words.len() {
        let is_unit = ["B", "KiB", "MiB"]
            .iter()
            .any(|unit| words[index].trim_end_matches([',', ';']) == *unit);
        let (before, here) = words.split_at_mut(index);
        if is_unit && before[index - 1].parse::<f64>().is_ok() {
            before[index - 1] = "[size]";
            here[0] = here[0].trim_start_matches(|c: char| c.is_ascii_alphabetic());
        }
    }
    words.join(" ").replace("[size] ", "[size]")
}

#[test]
fn configuration_with_faults_is_refused_and_the_last_good_one_runs() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    let host = &bench.server.host;
    let next = "systemctl show -P NextElapseUSecRealtime backstay-job@nightly.timer; \
                sha256sum /etc/systemd/system/backstay-job@*/*";
    let before = host.sh(next)?;
    let new = |more: &str| {
        format!(
            "[schedule.new]\nscope = \"web\"\nwhen = \"daily 02:00\"\ndestinations = [\"local\"]\n{more}\n"
        )
    };
    let mut shown = Vec::new();
    for (what, text) in [
        ("unknown key", new("kepe = { last = 3 }")),
        (
            "id in two files",
            new("").replace("schedule.new", "schedule.nightly"),
        ),
        (
            "impossible calendar",
            new("").replace("daily 02:00", "*-02-30 02:00"),
        ),
        ("duration without unit", new("spread = 15")),
        ("not TOML", new("").replace("= \"web\"", "= web")),
    ] {
        bench
            .server
            .configure("/etc/backstay/schedules.d/bad.toml", &text)?;
        shown.push(format!("{what}\n{}", bench.type_in("backstayctl apply")?));
        assert_eq!(host.sh(next)?, before, "{what}");
        let (code, run) = bench.run("nightly")?;
        assert_eq!((code, &run["state"]), (0, &Value::from("ok")), "{run}");
    }
    insta::assert_snapshot!(shown.join("\n\n"), @r#"
    unknown key
    Error: the configuration has faults; what was applied before stays in force
      1. /etc/backstay/schedules.d/bad.toml:5: schedule.new.kepe: unknown key; did you mean "keep"?
    Hint: what was applied before stays in force; backstayctl validate
    exit 15

    id in two files
    Error: the configuration has faults; what was applied before stays in force
      1. /etc/backstay/schedules.d/nightly.toml:1: schedule.nightly: is defined twice: here and in /etc/backstay/schedules.d/bad.toml:1
    Hint: what was applied before stays in force; backstayctl validate
    exit 15

    impossible calendar
    Error: the configuration has faults; what was applied before stays in force
      1. /etc/backstay/schedules.d/bad.toml:3: schedule.new.when: is never due: no date matches "*-02-30 02:00:00 UTC"
    Hint: what was applied before stays in force; backstayctl validate
    exit 15

    duration without unit
    Error: the configuration has faults; what was applied before stays in force
      1. /etc/backstay/schedules.d/bad.toml:5: schedule.new.spread: 15 has no unit; write for example "15m", "15h" or "15d"
    Hint: what was applied before stays in force; backstayctl validate
    exit 15

    not TOML
    Error: the configuration has faults; what was applied before stays in force
      1. /etc/backstay/schedules.d/bad.toml:2: is not TOML: string values must be quoted, expected literal string
    Hint: what was applied before stays in force; backstayctl validate
    exit 15
    "#);
    host.sh("rm /etc/backstay/schedules.d/bad.toml")?;
    assert_eq!(bench.server.apply()?["unchanged"], 1);
    bench.assert_nothing_lost()
}

#[test]
fn state_that_cannot_be_written_is_said_in_the_journal_and_hurts_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    let host = &bench.server.host;
    let state = "/var/lib/backstay";
    let close = |part: &str| {
        host.sh(&format!(
            "mount --bind {state}/{part} {state}/{part}; mount -o remount,ro,bind {state}/{part}"
        ))
    };
    let runs = bench.server.history("nightly")?.len();

    // It would keep the ledger open, and the disk with it.
    host.sh("systemctl stop backstay-agentd")?;
    close("ledger")?;
    host.sh("systemctl start --no-block backstay-job@nightly")?;
    let journal = "journalctl -o cat -u backstay-job@nightly | grep -E '^(cannot|recording)'";
    host.wait_for(&format!("{journal} | grep -q ^recording"), SOON)?;
    let said = host.sh(journal)?;
    insta::assert_snapshot!(said, @"
    cannot back up nightly: the ledger /var/lib/backstay/ledger/ledger.db cannot be written: Read-only file system (os error 30); nothing was begun
    recording the end of nightly: the ledger /var/lib/backstay/ledger/ledger.db cannot be written: Read-only file system (os error 30)
    ");
    insta::assert_snapshot!(bench.type_in("backstayctl schedule run nightly")?, @"
    Error: cannot use the ledger of this server
      1. the ledger /var/lib/backstay/ledger/ledger.db cannot be written
      2. Read-only file system (os error 30)
    Hint: df -h /var/lib/backstay; journalctl -u 'backstay-*' -n 50
    exit 1
    ");
    let status = bench.type_in("backstayctl status")?;
    assert!(
        status.contains("no run can begin") && status.contains("nightly"),
        "{status}"
    );
    host.wait_for(&format!("umount {state}/ledger"), SOON)?;
    host.sh("systemctl start backstay-agentd")?;
    assert_eq!(bench.server.history("nightly")?.len(), runs);

    // A service that runs would keep what it has mounted.
    host.sh("systemctl stop backstay-apply.service")?;
    close("generations")?;
    bench.server.configure(
        "/etc/backstay/schedules.d/new.toml",
        "[schedule.new]\nscope = \"web\"\nwhen = \"daily 03:00\"\ndestinations = [\"local\"]\n",
    )?;
    insta::assert_snapshot!(bench.type_in("backstayctl apply")?, @"
    Error: cannot make /var/lib/backstay/generations/verify/backstay-job@new.timer.d
      1. Read-only file system (os error 30)
    Hint: journalctl -u backstay-apply -n 50
    exit 1
    ");
    // What the hint names says it too, and so does the reconcile that comes by itself.
    let reconcile = host.run("systemctl start backstay-reconcile.service")?;
    assert!(!reconcile.status.success());
    for unit in ["backstay-apply", "backstay-reconcile"] {
        let told = format!("journalctl -o cat -p warning -u {unit} | grep '^cannot make'");
        host.wait_for(&format!("{told} | grep -q backstay-job@new"), SOON)?;
    }
    let timers = host.sh("ls /etc/systemd/system | grep -c 'backstay-job@new' || true")?;
    assert_eq!(timers, "0\n");
    host.sh("systemctl stop backstay-apply.service")?;
    host.wait_for(&format!("umount {state}/generations"), SOON)?;
    bench.server.apply()?;
    bench.assert_nothing_lost()
}

#[test]
fn ledger_that_root_looks_at_costs_no_run() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    // Where root makes the side file by looking, others may only read it for a moment; here for a longer one. The
    // daemon has the ledger open, so the file is one that can be read.
    let side = "/var/lib/backstay/ledger/ledger.db-shm";
    bench.server.host.sh(&format!(
        "set -e; systemctl is-active --quiet backstay-agentd; chmod 0640 {side}; \
         systemd-run -q --on-active=700ms --timer-property=AccuracySec=1ms chmod 0660 {side}"
    ))?;
    let (code, run) = bench.run("nightly")?;
    assert_eq!((code, &run["state"]), (0, &Value::from("ok")), "{run}");
    Ok(())
}

#[test]
fn destination_that_is_full_keeps_what_it_has_and_takes_the_next_run_that_fits() -> Result<()> {
    let lab = Lab::new()?;
    let host = lab.host("web").memory("/srv/small", 3).boot()?;
    let bench = Bench::set_up(host)?;
    let host = &bench.server.host;
    bench.server.add_local("small", "/srv/small")?;
    bench.schedule("tight", "web", "\"small\"")?;
    let (_, first) = bench.run("tight")?;
    let snapshot = first["copies"][0]["snapshot"].as_str().unwrap();
    bench.assert_comes_back("tight", snapshot, "small")?;

    host.sh("head -c 8000000 /dev/urandom > /home/acme/www/big")?;
    insta::assert_snapshot!(bench.attempt("tight")?, @"
    exit 1, failed
    destination small is lost: writing d/[id]/[pack]/[id]/[id] at /srv/small: No space left on device (os error 28)
    small: no snapshot: writing d/[id]/[pack]/[id]/[id] at /srv/small: No space left on device (os error 28)
    no destination holds a snapshot: writing d/[id]/[pack]/[id]/[id] at /srv/small: No space left on device (os error 28); earlier snapshots are untouched
    ");
    bench.assert_comes_back("tight", snapshot, "small")?;
    host.sh("rm /home/acme/www/big")?;
    assert!(bench.attempt("tight")?.starts_with("exit 0, ok"));

    // A disk that went away: its directory is gone or empty, and nothing is written in its place.
    host.sh("mv /srv/backup /srv/elsewhere")?;
    insta::assert_snapshot!(bench.attempt("nightly")?, @"
    exit 1, failed
    destination local is lost: opening the directory at /srv/backup: No such file or directory (os error 2)
    local: no snapshot: opening the directory at /srv/backup: No such file or directory (os error 2)
    nothing was backed up: no destination can be used; earlier snapshots are untouched
    ");
    host.sh("test ! -e /srv/backup && mv /srv/elsewhere /srv/backup")?;
    bench.assert_nothing_lost()
}

#[test]
fn bucket_that_refuses_or_is_away_costs_only_its_own_copy() -> Result<()> {
    let lab = Lab::new()?;
    let hosts = [
        lab.host("web").create()?,
        lab.host("store").garage()?.create()?,
    ];
    lab.up_all(&hosts.each_ref())?;
    let [web, store] = hosts;
    let garage = Garage::start_on(&store, "backups")?;
    let bench = Bench::set_up(web)?;
    let server = &bench.server;
    server.add_s3("offsite", &garage)?;
    bench.schedule("both", "web", "\"local\", \"offsite\"")?;
    let (_, first) = bench.run("both")?;
    let snapshot = first["copies"][1]["snapshot"].as_str().unwrap();
    let address = store.address().to_string();
    let attempt = || -> Result<String> { Ok(bench.attempt("both")?.replace(&address, "[store]")) };
    let secret = |secret: &str| {
        let text = format!(
            "access_key_id = \"{}\"\nsecret_access_key = \"{secret}\"\n",
            garage.access_key
        );
        let set = ["backstayctl", "credential", "set", "offsite", "--from", "-"];
        server.feed(&set, &text)
    };

    secret(&"0".repeat(64))?;
    insta::assert_snapshot!(attempt()?, @"
    exit 3, partial
    destination offsite is lost: reading repository at s3://backups/web (http://[store]:3900): HTTP 403: AccessDenied: Forbidden: Invalid signature
    local: snapshot [id], [size] stored
    offsite: no snapshot: reading repository at s3://backups/web (http://[store]:3900): HTTP 403: AccessDenied: Forbidden: Invalid signature
    13 entries, [size]; [size] stored; 1 of 2 copies
    ");
    secret(&garage.secret_key)?;
    store.sh("systemctl stop garage")?;
    insta::assert_snapshot!(attempt()?, @"
    exit 3, partial
    destination offsite is lost: reading repository at s3://backups/web (http://[store]:3900): no connection: Connection refused (os error 111)
    local: snapshot [id], [size] stored
    offsite: no snapshot: reading repository at s3://backups/web (http://[store]:3900): no connection: Connection refused (os error 111)
    13 entries, [size]; [size] stored; 1 of 2 copies
    ");
    store.sh("systemctl start garage")?;
    server
        .host
        .wait_for(&format!("curl -s {}", garage.endpoint), SOON)?;
    let mut last = String::new();
    server.host.wait_until("a run to both", SOON, |_| {
        last = attempt()?;
        Ok(last.starts_with("exit 0, ok"))
    })?;
    bench.assert_comes_back("both", snapshot, "offsite")?;
    bench.assert_nothing_lost()
}

#[test]
fn other_key_and_damaged_pack_are_named_and_older_snapshots_come_back() -> Result<()> {
    let lab = Lab::new()?;
    let bench = Bench::set_up(lab.host("web").boot()?)?;
    let host = &bench.server.host;
    let kept = "/var/lib/backstay/credstore/schedule-nightly.cred";
    host.sh(&format!(
        "cp {kept} /root/kept; head -c 32 /dev/urandom | systemd-creds encrypt --name=schedule-nightly - {kept} 2>&1"
    ))?;
    let snapshot = &bench.snapshot;
    insta::assert_snapshot!(
        bench.type_in(&format!(
            "backstayctl restore nightly {snapshot} --to {OUT}"
        ))?,
        @"
    Error: destination local: cannot open the backups
      1. the key opens nothing at /srv/backup
    Hint: each schedule has its own key: backstayctl key export SCHEDULE
    exit 12
    "
    );
    // The run itself is good; that the key opens nothing there is said, and what is there stays for its former key.
    insta::assert_snapshot!(bench.attempt("nightly")?, @"
    exit 0, ok
    local: the key of this schedule opens nothing there yet; snapshots that another key opens are left as they are, and this run begins anew
    local: snapshot [id], [size] stored
    13 entries, [size]; [size] stored; 1 of 1 copy
    ");
    host.sh(&format!("cp /root/kept {kept}"))?;
    bench.assert_nothing_lost()?;

    bench.schedule("hurt", "web", "\"local\"")?;
    let packs = "find /srv/backup/d -path '*/p/*' -type f";
    host.sh(&format!("{packs} | sort > /root/before"))?;
    let (_, whole) = bench.run("hurt")?;
    // The first frame of the largest new pack holds the pages' content.
    host.sh(&format!(
        "pack=$({packs} | sort | comm -13 /root/before - | xargs ls -S | head -1); \
         printf damaged | dd of=$pack bs=1 seek=2000 conv=notrunc status=none"
    ))?;
    let hurt = whole["copies"][0]["snapshot"].as_str().unwrap();
    insta::assert_snapshot!(
        bench.type_in(&format!("rm -rf {OUT}; backstayctl restore hurt {hurt} --to {OUT}"))?,
        @"
    restored  /root/restored
    failed    sealed bytes are damaged (7 entries)
    6 entries, [size] restored; 7 could not be restored.
    Each one by name: journalctl -u backstay-restore@hurt.service -n 100
    exit 3
    "
    );
    bench.assert_nothing_lost()
}
