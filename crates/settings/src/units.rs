//! From settings to the drop-ins that make systemd keep them.
//!
//! The package ships templates; a schedule is one small file beside them, and more only where it has
//! credentials or limits. What all schedules share is written once, for the template. Rendering is
//! pure: the same settings give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use model::{Instant, ScheduleName};

use crate::calendar::{Calendar, Zone};
use crate::destination::{Credential, Destination, Place};
use crate::load::Settings;
use crate::schedule::{Limits, Schedule};

/// The beginning of every file that we write and may therefore replace or delete.
pub const HEADER: &str = "# Managed by Backstay.";

const HINT: &str =
    " Changes here are put back: write a file of your own beside this one (systemctl edit).";

/// Where keys and credentials rest.
pub const CREDENTIAL_STORE: &str = "/var/lib/backstay/credstore";

/// How late systemd may be with an elapse of ours, in seconds (`AccuracySec=` and a busy moment).
const LATE_SECS: i64 = 120;

/// What a timer is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerWish {
    /// The `OnCalendar=` values.
    pub on_calendar: Vec<String>,
    /// The random delay, in seconds.
    pub spread_secs: u64,
}

impl TimerWish {
    /// Reads a timer's body back; nothing when it is not one of ours.
    #[must_use]
    pub fn read(body: &str) -> Option<Self> {
        let value = |key: &str, line: &str| {
            let (name, value) = line.split_once('=')?;
            (name == key).then(|| value.to_owned())
        };
        let on_calendar: Vec<String> = body
            .lines()
            .filter_map(|line| value("OnCalendar", line))
            .collect();
        let spread_secs = body
            .lines()
            .find_map(|line| value("RandomizedDelaySec", line))
            .and_then(|text| text.trim_end_matches('s').parse().ok())?;
        (!on_calendar.is_empty()).then_some(Self {
            on_calendar,
            spread_secs,
        })
    }

    /// True when `next`, as systemd says it at `now`, is an occurrence of this timer with its
    /// random delay, and not a later one than it should be.
    #[must_use]
    pub fn explains(&self, next: Instant, now: Instant) -> bool {
        let Ok(calendar) = Calendar::from_lines(&self.on_calendar) else {
            return false;
        };
        let spread = i64::try_from(self.spread_secs).unwrap_or(i64::MAX);
        // An occurrence may have passed whose random delay has not.
        let from = now.plus_secs(-spread.saturating_add(LATE_SECS));
        let first_after_now = calendar.next_after(now.plus_secs(LATE_SECS));
        let until = first_after_now.unwrap_or(now);
        let due = calendar.occurrences_between(from, until, 10_000);
        due.iter().any(|at| {
            let latest = at.plus_secs(spread.saturating_add(1));
            *at <= next && next <= latest
        })
    }
}

/// Everything that systemd is to have, in files and armed timers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The generation that was merged in, for the headers.
    pub generation: Option<u64>,
    /// Bodies by path below `/etc/systemd/system`.
    pub files: BTreeMap<String, String>,
    /// The timers to be armed.
    pub timers: BTreeMap<ScheduleName, TimerWish>,
    /// Every schedule, armed or not: each has a key.
    pub schedules: BTreeSet<ScheduleName>,
    /// What needs a person.
    pub warnings: Vec<String>,
}

/// Gives the timer unit of a schedule.
#[must_use]
pub fn timer_unit(name: &ScheduleName) -> String {
    format!("backstay-job@{name}.timer")
}

/// Gives the service of one kind (`job`, `restore`, `browse`) of a schedule.
#[must_use]
pub fn service_unit(kind: &str, name: &ScheduleName) -> String {
    format!("backstay-{kind}@{name}.service")
}

/// Our drop-in of an instance.
const OF_INSTANCE: &str = ".d/50-backstay.conf";

/// Our drop-in of a template. It must not share the instance's name: of two drop-ins with one name
/// systemd reads only the more special one.
const OF_TEMPLATE: &str = ".d/40-backstay.conf";

/// Gives the path of our drop-in for a unit, below `/etc/systemd/system`.
#[must_use]
pub fn drop_in(unit: &str) -> String {
    let name = if unit.contains("@.") {
        OF_TEMPLATE
    } else {
        OF_INSTANCE
    };
    format!("{unit}{name}")
}

/// Gives the unit that one of our drop-in paths belongs to.
#[must_use]
pub fn unit_of(path: &str) -> Option<&str> {
    path.strip_suffix(OF_INSTANCE)
        .or_else(|| path.strip_suffix(OF_TEMPLATE))
}

/// Gives the template units that have a drop-in for all schedules.
#[must_use]
pub fn template_units() -> [String; 2] {
    ["job", "browse"].map(|kind| format!("backstay-{kind}@.service"))
}

/// True for the paths at which we write, and at no other.
#[must_use]
pub fn is_our_place(path: &str) -> bool {
    schedule_of(path).is_some() || template_units().iter().any(|unit| drop_in(unit) == path)
}

/// Finds the schedule that one of our drop-in paths belongs to.
#[must_use]
pub fn schedule_of(path: &str) -> Option<ScheduleName> {
    let unit = path.strip_suffix(OF_INSTANCE)?;
    let (prefix, rest) = unit.split_once('@')?;
    let name = match prefix {
        "backstay-job" => rest
            .strip_suffix(".timer")
            .or_else(|| rest.strip_suffix(".service")),
        "backstay-restore" | "backstay-browse" => rest.strip_suffix(".service"),
        _ => None,
    }?;
    ScheduleName::new(name).ok()
}

/// Renders settings.
///
/// `year` is the present one (see [`Calendar::on_calendar`]); `exists` says whether a credential's
/// file is there: a unit with a credential that is missing does not start at all, and then the
/// copies at other destinations would fail with it.
#[must_use]
pub fn render(settings: &Settings, year: i16, exists: &dyn Fn(&Path) -> bool) -> Wanted {
    let mut wanted = Wanted {
        generation: settings.generation,
        ..Wanted::default()
    };
    let mut local = BTreeSet::new();
    for schedule in settings.schedules.values() {
        let name = &schedule.name;
        wanted.schedules.insert(name.clone());
        if schedule.enabled {
            let wish = TimerWish {
                on_calendar: schedule.when.on_calendar(year),
                spread_secs: schedule.spread_secs,
            };
            let path = drop_in(&timer_unit(name));
            wanted.files.insert(path, timer_body(&wish));
            wanted.timers.insert(name.clone(), wish);
        }
        let places: Vec<&Destination> = settings.destinations_of(schedule).collect();
        let credentials = credential_lines(schedule, &places, exists, &mut wanted.warnings);
        local.extend(places.iter().filter_map(|place| local_path(place)));
        let limits = limit_lines(&schedule.limits.or(settings.agent.limits));
        for (kind, lines) in [
            ("job", format!("{credentials}{limits}")),
            ("restore", credentials.clone()),
            ("browse", credentials),
        ] {
            if !lines.is_empty() {
                let path = drop_in(&service_unit(kind, name));
                wanted.files.insert(path, format!("[Service]\n{lines}"));
            }
        }
    }
    if !local.is_empty() {
        let lines: String = local.iter().map(|path| writable_line(path)).collect();
        for unit in template_units() {
            wanted
                .files
                .insert(drop_in(&unit), format!("[Service]\n{lines}"));
        }
    }
    wanted.warnings.sort();
    wanted.warnings.dedup();
    wanted
}

fn timer_body(wish: &TimerWish) -> String {
    let mut body = String::from("[Timer]\n");
    for line in &wish.on_calendar {
        push(&mut body, "OnCalendar", line);
    }
    push(
        &mut body,
        "RandomizedDelaySec",
        &format!("{}s", wish.spread_secs),
    );
    body
}

fn credential_lines(
    schedule: &Schedule,
    places: &[&Destination],
    exists: &dyn Fn(&Path) -> bool,
    warnings: &mut Vec<String>,
) -> String {
    let mut lines = String::new();
    let mut seen = BTreeSet::new();
    for destination in places {
        let Some(id) = destination.credential_id() else {
            continue;
        };
        let (key, path) = match &destination.credential {
            Credential::None => continue,
            Credential::Sealed(_) => (
                "LoadCredentialEncrypted",
                Path::new(CREDENTIAL_STORE).join(format!("{id}.cred")),
            ),
            Credential::File(path) => ("LoadCredential", path.clone()),
        };
        if !exists(&path) {
            warnings.push(format!(
                "schedule {}: the credential of destination {} is missing ({}); its copy will fail until `backstayctl credential set` gives it",
                schedule.name,
                destination.name,
                path.display()
            ));
        } else if seen.insert(id.clone()) {
            push(&mut lines, key, &format!("{id}:{}", path.display()));
        }
    }
    lines
}

fn local_path(destination: &Destination) -> Option<&Path> {
    match &destination.place {
        Place::Local { path } => Some(path),
        Place::S3 { .. } => None,
    }
}

/// The minus: a disk that is not mounted fails its copy, not the whole unit.
fn writable_line(path: &Path) -> String {
    let path = path.display().to_string().replace('%', "%%");
    format!("ReadWritePaths=\"-{path}\"\n")
}

fn limit_lines(limits: &Limits) -> String {
    let mut lines = String::new();
    if let Some(weight) = limits.cpu_weight {
        push(&mut lines, "CPUWeight", &weight.to_string());
    }
    if let Some(weight) = limits.io_weight {
        push(&mut lines, "IOWeight", &weight.to_string());
    }
    if let Some(memory) = limits.memory {
        push(&mut lines, "MemoryHigh", &memory.get().to_string());
    }
    if let Some(secs) = limits.duration_secs {
        push(&mut lines, "RuntimeMaxSec", &format!("{secs}s"));
    }
    lines
}

fn push(body: &mut String, key: &str, value: &str) {
    // Writing to a String cannot fail.
    let _infallible = writeln!(body, "{key}={value}");
}

/// Gives the hash that a header carries: BLAKE3 of the body, hexadecimal.
#[must_use]
pub fn body_hash(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex().to_string()
}

/// Gives the whole text of a file of ours.
#[must_use]
pub fn file_text(body: &str, generation: Option<u64>) -> String {
    let generation = generation.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let hash = body_hash(body);
    format!("{HEADER}{HINT}\n# generation={generation} hash={hash}\n{body}")
}

/// What a file at one of our paths is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState<'t> {
    /// Ours, as we wrote it; its body.
    Intact(&'t str),
    /// Ours by its header, and changed since; its body.
    Edited(&'t str),
    /// Without our header.
    Foreign,
}

/// Says what a file at one of our paths is.
#[must_use]
pub fn file_state(text: &str) -> FileState<'_> {
    if !text.starts_with(HEADER) {
        return FileState::Foreign;
    }
    let Some((_, rest)) = text.split_once('\n') else {
        return FileState::Edited("");
    };
    match rest.split_once('\n') {
        Some((second, body)) if second.ends_with(&format!("hash={}", body_hash(body))) => {
            FileState::Intact(body)
        }
        Some((second, body)) if second.starts_with("# generation=") => FileState::Edited(body),
        _ => FileState::Edited(rest),
    }
}

impl Calendar {
    /// Reads calendar lines as [`Calendar::on_calendar`] wrote them.
    ///
    /// # Errors
    ///
    /// One sentence when a line is not a calendar.
    pub fn from_lines(lines: &[String]) -> Result<Self, String> {
        let mut all = Vec::new();
        for line in lines {
            all.push(crate::calendar::parse_line(line, &Zone::utc())?);
        }
        Ok(Self::of_expressions(lines.join(" + "), all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Folders;

    fn rendered(generation: &str, exists: bool) -> Wanted {
        let root = tempfile::tempdir().unwrap();
        let mut folders = Folders::below(root.path());
        folders.generation = Some((7, generation.to_owned()));
        let settings = Settings::load(&folders).unwrap_or_else(|p| panic!("{p}"));
        render(&settings, 2026, &|_| exists)
    }

    const TEXT: &str = r#"
[schedule.nightly]
scope = "full"
when = "daily 02:00 Europe/Berlin"
spread = "15m"
destinations = ["offsite", "local"]
limits = { cpu_weight = 50, memory = "1GiB", duration = "6h" }
[schedule.plain]
scope = "web"
when = "0 4 13 * 5"
destinations = ["local"]
enabled = false
[destination.offsite]
kind = "s3"
endpoint = "https://s3.example.net"
bucket = "backups"
credential = "sealed:offsite"
[destination.local]
kind = "local"
path = "/srv/100% backup"
"#;

    #[test]
    fn a_schedule_becomes_drop_ins() {
        let wanted = rendered(TEXT, true);
        let text: Vec<String> = wanted
            .files
            .iter()
            .map(|(path, body)| format!("== {path}\n{body}"))
            .collect();
        insta::assert_snapshot!(text.concat(), @r#"
    == backstay-browse@.service.d/40-backstay.conf
    [Service]
    ReadWritePaths="-/srv/100%% backup"
    == backstay-browse@nightly.service.d/50-backstay.conf
    [Service]
    LoadCredentialEncrypted=destination-offsite:/var/lib/backstay/credstore/destination-offsite.cred
    == backstay-job@.service.d/40-backstay.conf
    [Service]
    ReadWritePaths="-/srv/100%% backup"
    == backstay-job@nightly.service.d/50-backstay.conf
    [Service]
    LoadCredentialEncrypted=destination-offsite:/var/lib/backstay/credstore/destination-offsite.cred
    CPUWeight=50
    MemoryHigh=1073741824
    RuntimeMaxSec=21600s
    == backstay-job@nightly.timer.d/50-backstay.conf
    [Timer]
    OnCalendar=*-*-* 02:00:00 Europe/Berlin
    OnCalendar=Sun *-03-25,26,27,28,29,30,31 03:00:00 Europe/Berlin
    RandomizedDelaySec=900s
    == backstay-restore@nightly.service.d/50-backstay.conf
    [Service]
    LoadCredentialEncrypted=destination-offsite:/var/lib/backstay/credstore/destination-offsite.cred
"#);
        assert_eq!(wanted.timers.len(), 1);
        assert_eq!(wanted.schedules.len(), 2);
        assert!(wanted.warnings.is_empty());
    }

    #[test]
    fn a_missing_credential_stops_one_copy_only() {
        let wanted = rendered(TEXT, false);
        assert!(
            wanted
                .files
                .values()
                .all(|body| !body.contains("LoadCredential"))
        );
        insta::assert_snapshot!(wanted.warnings.join("\n"), @r#"schedule nightly: the credential of destination offsite is missing (/var/lib/backstay/credstore/destination-offsite.cred); its copy will fail until `backstayctl credential set` gives it"#);
    }

    #[test]
    fn files_say_whether_they_were_touched() {
        let text = file_text("[Timer]\nOnCalendar=x\n", Some(3));
        assert_eq!(
            file_state(&text),
            FileState::Intact("[Timer]\nOnCalendar=x\n")
        );
        assert!(matches!(
            file_state(&text.replace("=x", "=y")),
            FileState::Edited("[Timer]\nOnCalendar=y\n")
        ));
        assert!(matches!(file_state(HEADER), FileState::Edited(_)));
        assert_eq!(file_state("[Timer]\nOnCalendar=x\n"), FileState::Foreign);
    }

    #[test]
    fn paths_lead_back_to_their_schedule() {
        let name = ScheduleName::new("a.b-c").unwrap();
        for unit in [
            timer_unit(&name),
            service_unit("job", &name),
            service_unit("restore", &name),
            service_unit("browse", &name),
        ] {
            assert_eq!(schedule_of(&drop_in(&unit)), Some(name.clone()), "{unit}");
        }
        assert_eq!(
            schedule_of("backstay-dump@x.service.d/50-backstay.conf"),
            None
        );
        assert_eq!(schedule_of("backstay-job@x.timer.d/override.conf"), None);
    }

    #[test]
    fn an_elapse_is_explained_by_its_calendar_only() {
        let wish =
            TimerWish::read("[Timer]\nOnCalendar=*-*-* 02:00:00 UTC\nRandomizedDelaySec=900s\n");
        let wish = wish.unwrap();
        let at = |text: &str| text.parse::<Instant>().unwrap();
        let now = at("2026-11-20T12:00:00Z");
        assert!(wish.explains(at("2026-11-21T02:00:00Z"), now));
        assert!(wish.explains(at("2026-11-21T02:14:59Z"), now));
        assert!(!wish.explains(at("2026-11-21T02:16:00Z"), now));
        assert!(!wish.explains(at("2026-11-21T01:59:00Z"), now));
        assert!(!wish.explains(at("2026-11-22T02:00:00Z"), now));
        // The time has passed, its random delay has not.
        assert!(wish.explains(at("2026-11-21T02:10:00Z"), at("2026-11-21T02:05:00Z")));
    }
}
