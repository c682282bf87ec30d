//! Text that we write is read back as what it was written from.

use proptest::prelude::*;
use settings::{Generation, ScheduleDraft, destination_text, parse_generation, schedule_text};

const EVERYTHING: &str = r#"
[schedule."web.nightly"]
scope = "web"
accounts = ["acme", "globex"]
when = "daily 02:00 Europe/Berlin"
spread = "15m"
destinations = ["offsite", "local"]
keep = { last = 7, hourly = 24, daily = 14, weekly = 8, monthly = 6, yearly = 2, within = "30d", max = 60, max_age = "400d", min = 3, min_age = "2d" }
compression = "auto"
reread_percent = 5
exclude = ["*/cache/*", 'back\slash "quoted"']
limits = { cpu_weight = 50, io_weight = 10, cpu_percent = 40, memory = "512MiB", upload_per_second = "10MB", duration = "6h" }
enabled = false

[destination.offsite]
kind = "s3"
endpoint = "https://s3.example.net"
bucket = "backups"
path = "web1"
region = "eu-central-1"
path_style = false
credential = "sealed:offsite"
required = false

[destination.local]
kind = "local"
path = "/srv/backup"
"#;

/// Leaves out where things were written, which differs by design.
fn shown(generation: &Generation) -> String {
    let mut text = String::new();
    generation
        .schedules
        .values()
        .for_each(|one| text.push_str(&schedule_text(one)));
    generation
        .destinations
        .values()
        .for_each(|one| text.push_str(&destination_text(one)));
    text
}

#[test]
fn every_key_survives_being_written() {
    let first = parse_generation("a", EVERYTHING).unwrap();
    let text = shown(&first);
    let second = parse_generation("b", &text).unwrap();
    assert_eq!(shown(&second), text);
    insta::assert_snapshot!(text, @r#"
    [schedule."web.nightly"]
    scope = "web"
    accounts = ["acme", "globex"]
    when = "daily 02:00 Europe/Berlin"
    spread = "15m"
    destinations = ["offsite", "local"]
    keep = { last = 7, hourly = 24, daily = 14, weekly = 8, monthly = 6, yearly = 2, within = "30d", max = 60, max_age = "400d", min = 3, min_age = "2d" }
    compression = "auto"
    reread_percent = 5
    exclude = ["*/cache/*", "back\\slash \"quoted\""]
    limits = { cpu_weight = 50, io_weight = 10, cpu_percent = 40, memory = "512MiB", upload_per_second = "10000000B", duration = "6h" }
    enabled = false
    [destination.local]
    kind = "local"
    path = "/srv/backup"
    [destination.offsite]
    kind = "s3"
    endpoint = "https://s3.example.net"
    bucket = "backups"
    path = "web1"
    region = "eu-central-1"
    path_style = false
    credential = "sealed:offsite"
    required = false
"#);
}

#[test]
fn a_draft_crosses_json() {
    let generation = parse_generation("a", EVERYTHING).unwrap();
    let draft = ScheduleDraft::from(generation.schedules.values().next().unwrap());
    let json = serde_json::to_string(&draft).unwrap();
    assert_eq!(serde_json::from_str::<ScheduleDraft>(&json).unwrap(), draft);
}

proptest! {
    #[test]
    fn hostile_drafts_stay_one_value(text in "\\PC*|[\"\\\\\n\r\t\0\\]\\[=#']*") {
        let draft = ScheduleDraft {
            name: "a".to_owned(),
            scope: "web".to_owned(),
            when: "hourly".to_owned(),
            destinations: vec!["local".to_owned()],
            compression: Some(3),
            exclude: vec![format!("x{text}")],
            enabled: true,
            ..ScheduleDraft::default()
        };
        match parse_generation("draft", &draft.text()) {
            Ok(read) => {
                let schedule = read.schedules.values().next().unwrap();
                prop_assert_eq!(&schedule.exclude, &draft.exclude);
            }
            // Only what the reader forbids in a pattern may be refused.
            Err(_) => prop_assert!(text.contains(['\0', '\n']) || text.len() > 4000),
        }
    }

    #[test]
    fn no_text_makes_the_parser_fail_to_answer(text in "\\PC*") {
        let _answer = parse_generation("any", &text);
    }

    #[test]
    fn no_calendar_text_makes_the_parser_fail_to_answer(text in "[-a-zA-Z0-9*,./~: @]{0,40}") {
        let _answer = settings::Calendar::parse(&text, &settings::Zone::utc());
    }
}
