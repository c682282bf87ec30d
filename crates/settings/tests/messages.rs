//! The exact words for each fault: changing one is a visible difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use settings::{Folders, Settings, parse_generation};

fn faults(text: &str) -> String {
    match parse_generation("web.toml", text) {
        Ok(_) => "no fault".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

const SCHEDULE: &str =
    "[schedule.nightly]\nscope = \"full\"\nwhen = \"daily 02:00\"\ndestinations = [\"local\"]\n";
const DESTINATION: &str = "[destination.local]\nkind = \"local\"\npath = \"/srv/backup\"\n";

fn both(more: &str) -> String {
    faults(&format!("{DESTINATION}{SCHEDULE}{more}"))
}

#[test]
fn unknown_keys_get_a_suggestion() {
    insta::assert_snapshot!(both("kepe = { last = 3 }\nzzz = 1\n[shedule.x]\nscope = \"web\""), @r#"
    web.toml:8: schedule.nightly.kepe: unknown key; did you mean "keep"?
    web.toml:9: schedule.nightly.zzz: unknown key; known are scope, accounts, when, spread, destinations, keep, compression, reread_percent, exclude, limits, enabled
    web.toml:10: shedule: unknown key; did you mean "schedule"?
"#);
}

#[test]
fn missing_units_are_shown_with_the_number_given() {
    insta::assert_snapshot!(
        both("spread = 15\nkeep = { within = 30 }\nlimits = { memory = 512, duration = \"6\" }"),
        @r#"
    web.toml:8: schedule.nightly.spread: 15 has no unit; write for example "15m", "15h" or "15d"
    web.toml:9: schedule.nightly.keep.within: 30 has no unit; write for example "30m", "30h" or "30d"
    web.toml:10: schedule.nightly.limits.duration: "6" has no unit; write for example "30m", "12h" or "30d"
    web.toml:10: schedule.nightly.limits.memory: 512 has no unit; write for example "512MiB" or "512GiB"
"#
    );
}

#[test]
fn units_that_do_not_exist_are_named() {
    insta::assert_snapshot!(
        both("spread = \"15 parsecs\"\nlimits = { memory = \"1 heap\", upload_per_second = \"5\" }"),
        @r#"
    web.toml:8: schedule.nightly.spread: unit "parsecs" of "15 parsecs" is not known; write for example "30m", "12h" or "30d"
    web.toml:9: schedule.nightly.limits.memory: "1 heap" is not a size; write for example "512MiB" or "2GiB"
    web.toml:9: schedule.nightly.limits.upload_per_second: "5" has no unit; write for example "512MiB" or "2GiB"
"#
    );
}

#[test]
fn impossible_calendars_are_refused() {
    let all: Vec<String> = [
        "*-02-30 02:00",
        "0 0 31 2 *",
        "daily 25:00",
        "monthly 31 02:00",
        "Sat..Mon 02:00",
        "whenever",
        "",
        "daily 02:00 Europe/Nowhere",
        "*:*:0/10",
        "@reboot",
    ]
    .iter()
    .map(|when| {
        faults(&format!(
            "{DESTINATION}[schedule.a]\nscope = \"web\"\ndestinations = [\"local\"]\nwhen = \"{when}\""
        ))
    })
    .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    web.toml:7: schedule.a.when: is never due: no date matches "*-02-30 02:00:00 UTC"
    web.toml:7: schedule.a.when: is never due: no date matches "*-02-31 00:00:00 UTC"
    web.toml:7: schedule.a.when: "25:00" is not a time of day; write for example "02:00"
    web.toml:7: schedule.a.when: not every month has a day 31; use 1 to 28 or "last"
    web.toml:7: schedule.a.when: "Sat..Mon 02:00" is not a calendar: the weekday range "Sat..Mon" runs past Sunday; write both parts, for example "Sat,Sun,Mon"
    web.toml:7: schedule.a.when: "whenever" is not a calendar: "whenever" is not a weekday
    web.toml:7: schedule.a.when: is empty; write for example "daily 02:00"
    web.toml:7: schedule.a.when: time zone "Europe/Nowhere" is not known; write for example "UTC" or "Europe/Berlin"
    web.toml:7: schedule.a.when: "*:*:0/10" is not a calendar: a schedule can be due once a minute, not more often
    web.toml:7: schedule.a.when: "@reboot" names no time; a run that was missed is made up after a boot anyway
"#);
}

#[test]
fn scopes_of_later_versions_are_refused_by_name() {
    let all: Vec<String> = ["mail", "dns", "ssl", "config", "wbe"]
        .iter()
        .map(|scope| {
            faults(&format!(
                "{DESTINATION}[schedule.a]\nscope = \"{scope}\"\ndestinations = [\"local\"]\nwhen = \"hourly\""
            ))
        })
        .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    web.toml:5: schedule.a.scope: "mail" is not yet available in this version; use "full", "web" or "db"
    web.toml:5: schedule.a.scope: "dns" is not yet available in this version; use "full", "web" or "db"
    web.toml:5: schedule.a.scope: "ssl" is not yet available in this version; use "full", "web" or "db"
    web.toml:5: schedule.a.scope: "config" is not yet available in this version; use "full", "web" or "db"
    web.toml:5: schedule.a.scope: "wbe" is not known; use one of full, web, db
"#);
}

#[test]
fn every_fault_is_said_at_once() {
    let text = "\
[schedule.Nightly]
scope = \"full\"

[schedule.a]
accounts = []
exclude = \"x\"
keep = {}
compression = 10
enabled = \"yes\"

[schedule.b]
scope = 3
when = \"hourly\"
destinations = []
accounts = [\"../x\"]
keep = { last = 0 }
compression = \"much\"
spread = \"2h\"

[destination.d]
kind = \"sftp\"

[destination.e]
kind = \"local\"
path = \"backup/../x\"
credential = \"sealed:e\"

[destination.f]
kind = \"s3\"
endpoint = \"s3.example.net\"
bucket = \"B/x\"
path = \"a//b\"
credential = \"AKIAIOSFODNN7EXAMPLE\"

[destination.g]
kind = \"s3\"
endpoint = \"https://user:pass@s3.example.net\"
bucket = \"backups\"
";
    insta::assert_snapshot!(faults(text), @r#"
    web.toml:1: schedule.Nightly: schedule name "Nightly" is not allowed: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit
    web.toml:4: schedule.a.destinations: is missing; write for example ["local"]
    web.toml:4: schedule.a.scope: is missing; write for example "full"
    web.toml:4: schedule.a.when: is missing; write for example "daily 02:00"
    web.toml:5: schedule.a.accounts: is empty; write "all" or name at least one account
    web.toml:6: schedule.a.exclude: is text; a list in [ ] belongs here
    web.toml:7: schedule.a.keep: keeps nothing; write for example { last = 7, daily = 14 }
    web.toml:8: schedule.a.compression: 10 is not between 0 and 9
    web.toml:9: schedule.a.enabled: is text; true or false belongs here
    web.toml:12: schedule.b.scope: is a number; text in quotes belongs here
    web.toml:14: schedule.b.destinations: is empty; name at least one destination
    web.toml:15: schedule.b.accounts: "../x" is not a user name
    web.toml:16: schedule.b.keep.last: 0 is not between 1 and 100000
    web.toml:17: schedule.b.compression: write a number from 0 to 9, or "auto"
    web.toml:18: schedule.b.spread: is longer than 30m, the most that is reliable on a server that restarts often
    web.toml:21: destination.d.kind: "sftp" is not yet available in this version; use "local" or "s3"
    web.toml:25: destination.e.path: "backup/../x" is not an absolute path without ".."
    web.toml:30: destination.f.endpoint: "s3.example.net" is not an address; write for example "https://s3.example.net"
    web.toml:31: destination.f.bucket: "B/x" is not a bucket name
    web.toml:32: destination.f.path: "a//b" is not a path; use letters, digits, '.', '_', '-' and '/'
    web.toml:33: destination.f.credential: "AKIAIO…" names no credential; write "sealed:NAME" or "file:/path"; the secret itself never belongs here
    web.toml:37: destination.g.endpoint: "https://user:pass@s3.example.net" is not an address; write for example "https://s3.example.net"
"#);
}

#[test]
fn what_is_not_toml_has_its_line() {
    insta::assert_snapshot!(faults("[schedule.a]\nscope = full\nwhen = \"hourly"), @r#"
    web.toml:2: is not TOML: invalid boolean, expected `false`
    web.toml:3: is not TOML: invalid basic string, expected `"`
"#);
}

fn load(files: &[(&str, &str)], generation: Option<&str>) -> String {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join("etc/backstay").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut folders = Folders::below(root.path());
    folders.generation = generation.map(|text| (12, text.to_owned()));
    match Settings::load(&folders) {
        Ok(settings) => format!(
            "{} schedules, {} destinations",
            settings.schedules.len(),
            settings.destinations.len()
        ),
        Err(problems) => problems
            .to_string()
            .replace(&root.path().display().to_string(), ""),
    }
}

#[test]
fn a_name_in_two_files_is_an_error_that_names_both() {
    insta::assert_snapshot!(
        load(
            &[
                ("schedules.d/10-web.toml", SCHEDULE),
                ("schedules.d/20-more.toml", &format!("\n\n{SCHEDULE}")),
                ("destinations.d/local.toml", DESTINATION),
            ],
            Some(DESTINATION)
        ),
        @r#"
    /etc/backstay/schedules.d/20-more.toml:3: schedule.nightly: is defined twice: here and in /etc/backstay/schedules.d/10-web.toml:1
    generation 12:1: destination.local: is defined twice: here and in /etc/backstay/destinations.d/local.toml:1
"#
    );
}

#[test]
fn local_files_and_the_generation_are_one_whole() {
    assert_eq!(
        load(
            &[("destinations.d/local.toml", DESTINATION)],
            Some(SCHEDULE)
        ),
        "1 schedules, 1 destinations"
    );
}

#[test]
fn a_destination_that_is_not_there_is_named() {
    insta::assert_snapshot!(
        load(
            &[
                ("schedules.d/a.toml", SCHEDULE),
                ("destinations.d/a.toml", &DESTINATION.replace("local]", "locale]")),
            ],
            None
        ),
        @r#"/etc/backstay/schedules.d/a.toml:1: schedule.nightly.destinations: there is no destination "local"; did you mean "locale"?"#
    );
    insta::assert_snapshot!(load(&[("schedules.d/a.toml", SCHEDULE)], None), @r#"/etc/backstay/schedules.d/a.toml:1: schedule.nightly.destinations: there is no destination "local"; no destination is defined yet"#);
}

#[test]
fn a_text_that_is_not_toml_causes_no_other_fault() {
    insta::assert_snapshot!(
        load(
            &[
                ("schedules.d/a.toml", SCHEDULE),
                ("destinations.d/a.toml", &DESTINATION.replace("path = ", "path ")),
                ("agent.toml", "server = web1\n[controller]\n"),
            ],
            None
        ),
        @"
    /etc/backstay/agent.toml:1: is not TOML: string values must be quoted, expected literal string
    /etc/backstay/destinations.d/a.toml:3: is not TOML: key with no value, expected `=`
    "
    );
}

#[test]
fn the_agent_and_guard_files_are_checked_too() {
    insta::assert_snapshot!(
        load(
            &[
                (
                    "agent.toml",
                    "server = \"Web 1\"\nzone = \"CET\"\n[controller]\nadress = \"x\"\n[hosting]\nlayout = \"plane\"\nsites = [\"/var/www\"]\ndatabases = [\"*\"]\nuid_min = 70000\n"
                ),
                ("guard.toml", "alow = []\nallow = [\"restroe\"]\nkeep_min = { last = \"3\" }\n"),
            ],
            None
        ),
        @r#"
    /etc/backstay/agent.toml:1: server: server name "Web 1" is not allowed: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit
    /etc/backstay/agent.toml:2: zone: time zone "CET" is not known; write for example "UTC" or "Europe/Berlin"
    /etc/backstay/agent.toml:3: controller.url: is missing; write for example "https://backstay.example.net:8443"
    /etc/backstay/agent.toml:4: controller.adress: unknown key; known are url
    /etc/backstay/agent.toml:6: hosting.layout: "plane" is not known; did you mean "plain"?
    /etc/backstay/agent.toml:7: hosting.sites: "/var/www" is not a place of an account; write for example "{home}/public_html" or "/var/www/{user}"
    /etc/backstay/agent.toml:8: hosting.databases: "*" does not say whose; write for example "{user}_*"
    /etc/backstay/agent.toml:9: hosting.uid_min: is greater than uid_max, 59999
    /etc/backstay/guard.toml:1: alow: unknown key; did you mean "allow"?
    /etc/backstay/guard.toml:2: allow: "restroe" is not known; did you mean "restore"?
    /etc/backstay/guard.toml:3: keep_min.last: is text; a number from 1 to 100000 belongs here
"#
    );
}

#[test]
fn the_guard_holds_a_controller_but_not_the_owner() {
    let guard = "destination_hosts = [\"*.example.net\"]\ndestination_paths = [\"/srv\"]\nkeep_min = { last = 3, within = \"7d\" }\nschedules_max = 1\n";
    let schedules = "\
[schedule.a]
scope = \"web\"
when = \"hourly\"
destinations = [\"out\", \"home\"]
keep = { last = 1, max = 2 }
[schedule.b]
scope = \"web\"
when = \"hourly\"
destinations = [\"out\"]
keep = { last = 3, within = \"8d\", max = 9, max_age = \"90d\", min_age = \"7d\" }
[destination.out]
kind = \"s3\"
endpoint = \"https://s3.example.net.evil.org:9000\"
bucket = \"backups\"
credential = \"sealed:out\"
[destination.home]
kind = \"local\"
path = \"/srvx\"
";
    insta::assert_snapshot!(load(&[("guard.toml", guard)], Some(schedules)), @r#"
    generation 12:1: schedule.a.keep: guard.toml asks for last = 3 or more
    generation 12:1: schedule.a.keep: guard.toml asks for max = 3 or more
    generation 12:1: schedule.a.keep: guard.toml asks for min_age = "7d" or more beside max
    generation 12:1: schedule.a.keep: guard.toml asks for within = "7d" or more
    generation 12:6: schedule.b: guard.toml allows 1 schedules
    generation 12:6: schedule.b.keep: guard.toml asks to keep snapshots of any age; max_age in its keep_min says how old is old enough
    generation 12:11: destination.out: guard.toml does not allow a controller to name the host s3.example.net.evil.org:9000
    generation 12:16: destination.home: guard.toml does not allow a controller to name the directory /srvx
"#);
    assert_eq!(
        load(
            &[("guard.toml", guard), ("schedules.d/own.toml", schedules)],
            None
        ),
        "2 schedules, 2 destinations"
    );
}
