//! `[schedule.NAME]`: when, what, where to, how long.

use model::{ByteCount, DestinationName, ScheduleName, Scope};
use toml::de::DeValue;

use crate::calendar::{Calendar, Zone};
use crate::reader::{Section, duration, list, number, size, text, truth, word};

/// The longest spread: with longer ones a server that is up for short times would never run
/// (systemd counts the delay from boot).
pub const SPREAD_SECS_MAX: u64 = 30 * 60;

/// Where something was written, for messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file, or `generation N`.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// True when it came from the controller.
    pub synced: bool,
}

/// Which accounts a schedule covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    /// Every account that is found when the run starts.
    All,
    /// These accounts, by user name.
    Only(Vec<String>),
}

/// How hard content is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all (0) to as much as is sensible (9).
    Level(u8),
    /// Chosen from what the content yields and the processor can spare.
    Auto,
}

/// Which snapshots are kept. A snapshot stays when any rule keeps it, within `max` and `max_age`,
/// and whatever these say when `min` or `min_age` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keep {
    /// This many newest.
    pub last: Option<u32>,
    /// The newest of each of this many hours.
    pub hourly: Option<u32>,
    /// The newest of each of this many days.
    pub daily: Option<u32>,
    /// The newest of each of this many weeks.
    pub weekly: Option<u32>,
    /// The newest of each of this many months.
    pub monthly: Option<u32>,
    /// The newest of each of this many years.
    pub yearly: Option<u32>,
    /// Everything younger than this many seconds.
    pub within_secs: Option<u64>,
    /// Never more than this many.
    pub max: Option<u32>,
    /// Nothing that is as old as this many seconds.
    pub max_age_secs: Option<u64>,
    /// This many newest whatever the limits say.
    pub min: Option<u32>,
    /// Everything younger than this many seconds whatever the limits say.
    pub min_age_secs: Option<u64>,
}

impl Keep {
    /// True when no rule keeps anything.
    #[must_use]
    pub const fn keeps_nothing(&self) -> bool {
        self.last.is_none()
            && self.hourly.is_none()
            && self.daily.is_none()
            && self.weekly.is_none()
            && self.monthly.is_none()
            && self.yearly.is_none()
            && self.within_secs.is_none()
    }
}

/// What a job may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Share of the processor against others, 1 to 10000; 100 is an ordinary service.
    pub cpu_weight: Option<u32>,
    /// Share of the disks against others, 1 to 10000.
    pub io_weight: Option<u32>,
    /// How much of all processors a run uses at most, 1 to 100 percent.
    pub cpu_percent: Option<u8>,
    /// Memory at which the job is slowed down; what it keeps under way follows from it.
    pub memory: Option<ByteCount>,
    /// Bytes per second sent to destinations.
    pub upload_per_sec: Option<ByteCount>,
    /// Longest run.
    pub duration_secs: Option<u64>,
}

impl Limits {
    /// Gives these limits, and another's where there is none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            cpu_weight: self.cpu_weight.or(other.cpu_weight),
            io_weight: self.io_weight.or(other.io_weight),
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            memory: self.memory.or(other.memory),
            upload_per_sec: self.upload_per_sec.or(other.upload_per_sec),
            duration_secs: self.duration_secs.or(other.duration_secs),
        }
    }
}

/// One schedule, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its name, which is also the instance of its units.
    pub name: ScheduleName,
    /// What it backs up.
    pub scope: Scope,
    /// Whose.
    pub accounts: Accounts,
    /// When it is due.
    pub when: Calendar,
    /// Random delay after each due time, in seconds; 0 is none.
    pub spread_secs: u64,
    /// Where to; at least one.
    pub destinations: Vec<DestinationName>,
    /// What is kept.
    pub keep: Keep,
    /// How content is compressed.
    pub compression: Compression,
    /// Percent of the unchanged files that each run reads again; 0 is none.
    pub reread_percent: u8,
    /// Globs of paths that are left out.
    pub exclude: Vec<String>,
    /// What its job may use; `agent.toml` fills what is not set here.
    pub limits: Limits,
    /// False keeps the schedule and disarms its timer.
    pub enabled: bool,
    /// Where it was written.
    pub origin: Origin,
}

impl Schedule {
    pub(crate) fn read(
        name: ScheduleName,
        mut section: Section<'_, '_>,
        zone: &Zone,
        origin: Origin,
    ) -> Option<Self> {
        let s = &mut section;
        let scope = s.need("scope", "\"full\"", scope);
        let accounts = s.get("accounts", accounts).unwrap_or(Accounts::All);
        let when = s.need("when", "\"daily 02:00\"", |value| {
            Calendar::parse(&text(value)?, zone)
        });
        let spread_secs = s.get("spread", spread).unwrap_or(0);
        let destinations = s.need("destinations", "[\"local\"]", destinations);
        let keep = read_keep(s);
        let compression = s.get("compression", compression);
        let reread_percent = s.get("reread_percent", share).unwrap_or(0);
        let exclude = s.get("exclude", list(glob)).unwrap_or_default();
        let limits = s.table("limits").map(read_limits).unwrap_or_default();
        let enabled = s.get("enabled", truth).unwrap_or(true);
        section.finish();
        Some(Self {
            name,
            scope: scope?,
            accounts,
            when: when?,
            spread_secs,
            destinations: destinations?,
            keep,
            compression: compression.unwrap_or(Compression::Level(3)),
            reread_percent,
            exclude,
            limits,
            enabled,
            origin,
        })
    }
}

fn scope(value: &DeValue<'_>) -> Result<Scope, String> {
    let given = text(value)?;
    if ["mail", "dns", "ssl", "config"].contains(&given.as_str()) {
        return Err(format!(
            "{given:?} is not yet available in this version; use \"full\", \"web\" or \"db\""
        ));
    }
    word(&[
        ("full", Scope::Full),
        ("web", Scope::Web),
        ("db", Scope::Db),
    ])(value)
}

fn accounts(value: &DeValue<'_>) -> Result<Accounts, String> {
    if value.as_str() == Some("all") {
        return Ok(Accounts::All);
    }
    if !value.is_array() {
        return Err("write \"all\" or a list, for example [\"acme\", \"globex\"]".to_owned());
    }
    let names = list(account_name)(value)?;
    if names.is_empty() {
        return Err("is empty; write \"all\" or name at least one account".to_owned());
    }
    Ok(Accounts::Only(names))
}

/// Reads a user name as Linux allows it; nothing else may reach a path or a database name.
pub(crate) fn account_name(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.len() <= 32 && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(format!("{name:?} is not a user name"))
    }
}

fn spread(value: &DeValue<'_>) -> Result<u64, String> {
    match duration(value)? {
        long if long > SPREAD_SECS_MAX => Err(format!(
            "is longer than {}m, the most that is reliable on a server that restarts often",
            SPREAD_SECS_MAX / 60
        )),
        secs => Ok(secs),
    }
}

fn destinations(value: &DeValue<'_>) -> Result<Vec<DestinationName>, String> {
    let names = list(|one| DestinationName::new(text(one)?).map_err(|e| e.to_string()))(value)?;
    if names.is_empty() {
        return Err("is empty; name at least one destination".to_owned());
    }
    for (position, name) in names.iter().enumerate() {
        if names.iter().take(position).any(|other| other == name) {
            return Err(format!("names {name} twice"));
        }
    }
    Ok(names)
}

fn compression(value: &DeValue<'_>) -> Result<Compression, String> {
    if value.as_str() == Some("auto") {
        return Ok(Compression::Auto);
    }
    if value.is_str() {
        return Err("write a number from 0 to 9, or \"auto\"".to_owned());
    }
    let level = number(0, 9)(value)?;
    Ok(Compression::Level(u8::try_from(level).unwrap_or(9)))
}

/// Reads a path pattern.
pub(crate) fn glob(value: &DeValue<'_>) -> Result<String, String> {
    let pattern = text(value)?;
    if pattern.is_empty() || pattern.contains(['\0', '\n']) {
        return Err(format!("{pattern:?} is not a path pattern"));
    }
    Ok(pattern)
}

fn read_keep(section: &mut Section<'_, '_>) -> Keep {
    let ordinary = Keep {
        last: Some(7),
        ..Keep::default()
    };
    let Some(mut table) = section.table("keep") else {
        return ordinary;
    };
    let keep = keep_rules(&mut table);
    let rules = [
        "last", "hourly", "daily", "weekly", "monthly", "yearly", "within",
    ];
    if !rules.iter().any(|rule| table.has(rule)) {
        table.fault_here("keeps nothing; write for example { last = 7, daily = 14 }");
    }
    table.finish();
    keep
}

/// Reads the rules of a `keep` table, in a schedule or in the guard.
pub(crate) fn keep_rules(table: &mut Section<'_, '_>) -> Keep {
    let count = || number(1, 100_000);
    Keep {
        last: table.get("last", count()),
        hourly: table.get("hourly", count()),
        daily: table.get("daily", count()),
        weekly: table.get("weekly", count()),
        monthly: table.get("monthly", count()),
        yearly: table.get("yearly", count()),
        within_secs: table.get("within", duration),
        max: table.get("max", count()),
        max_age_secs: table.get("max_age", duration),
        min: table.get("min", count()),
        min_age_secs: table.get("min_age", duration),
    }
}

pub(crate) fn read_limits(mut table: Section<'_, '_>) -> Limits {
    let limits = Limits {
        cpu_weight: table.get("cpu_weight", number(1, 10_000)),
        io_weight: table.get("io_weight", number(1, 10_000)),
        cpu_percent: table.get("cpu_percent", percent),
        memory: table.get("memory", memory),
        upload_per_sec: table.get("upload_per_second", size),
        duration_secs: table.get("duration", duration),
    };
    table.finish();
    limits
}

fn percent(value: &DeValue<'_>) -> Result<u8, String> {
    let percent = number(1, 100)(value)?;
    Ok(u8::try_from(percent).unwrap_or(100))
}

fn share(value: &DeValue<'_>) -> Result<u8, String> {
    let percent = number(0, 100)(value)?;
    Ok(u8::try_from(percent).unwrap_or(100))
}

fn memory(value: &DeValue<'_>) -> Result<ByteCount, String> {
    let least = ByteCount::new(64 << 20);
    match size(value)? {
        small if small < least => Err(format!("is less than {least}, which a job needs")),
        enough => Ok(enough),
    }
}
