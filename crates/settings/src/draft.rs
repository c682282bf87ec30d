//! One schedule or destination as TOML text, the same text each time.

use std::fmt::Write as _;

use model::Scope;
use serde::{Deserialize, Serialize};

use crate::destination::{Credential, Destination, Place};
use crate::quantity::{bytes_text, seconds_text};
use crate::schedule::{Accounts, Compression, Keep, Limits, Schedule};

/// A schedule as a form holds it: every value is the text or number that a person gave, unchecked.
///
/// [`ScheduleDraft::text`] makes it TOML, and [`crate::parse_generation`] then finds what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleDraft {
    /// Its name.
    pub name: String,
    /// `full`, `web` or `db`.
    pub scope: String,
    /// User names; empty means all.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// When it is due, in any accepted form.
    pub when: String,
    /// Random delay with unit; nothing for none.
    #[serde(default)]
    pub spread: Option<String>,
    /// Names of destinations.
    pub destinations: Vec<String>,
    /// What is kept.
    #[serde(default)]
    pub keep: KeepDraft,
    /// 0 to 9; nothing means automatic.
    #[serde(default = "usual_compression")]
    pub compression: Option<u8>,
    /// Percent of the unchanged files that each run reads again; nothing for none.
    #[serde(default)]
    pub reread_percent: Option<u32>,
    /// Globs that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What the job may use.
    #[serde(default)]
    pub limits: LimitsDraft,
    /// False disarms the timer.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// The `keep` table of a [`ScheduleDraft`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepDraft {
    /// Newest snapshots.
    pub last: Option<u32>,
    /// One per hour.
    pub hourly: Option<u32>,
    /// One per day.
    pub daily: Option<u32>,
    /// One per week.
    pub weekly: Option<u32>,
    /// One per month.
    pub monthly: Option<u32>,
    /// One per year.
    pub yearly: Option<u32>,
    /// Everything younger than this, with unit.
    pub within: Option<String>,
    /// Never more than this.
    pub max: Option<u32>,
    /// Nothing that is as old as this, with unit.
    pub max_age: Option<String>,
    /// This many newest whatever the limits say.
    pub min: Option<u32>,
    /// Everything younger than this whatever the limits say, with unit.
    pub min_age: Option<String>,
}

/// The `limits` table of a [`ScheduleDraft`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsDraft {
    /// Share of the processor.
    pub cpu_weight: Option<u32>,
    /// Share of the disks.
    pub io_weight: Option<u32>,
    /// Percent of all processors, at most.
    pub cpu_percent: Option<u32>,
    /// Memory, with unit.
    pub memory: Option<String>,
    /// Bytes per second, with unit.
    pub upload_per_second: Option<String>,
    /// Longest run, with unit.
    pub duration: Option<String>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "serde asks for the type of the field"
)]
const fn usual_compression() -> Option<u8> {
    Some(3)
}

const fn yes() -> bool {
    true
}

impl ScheduleDraft {
    /// Writes a `[schedule.NAME]` table; what equals the default is left out.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = Text::begin(&format!("schedule.{}", quoted_key(&self.name)));
        text.line("scope", &quoted(&self.scope));
        if self.accounts.is_empty() {
            text.line("accounts", "\"all\"");
        } else {
            text.line("accounts", &list(&self.accounts));
        }
        text.line("when", &quoted(&self.when));
        if let Some(spread) = &self.spread {
            text.line("spread", &quoted(spread));
        }
        text.line("destinations", &list(&self.destinations));
        if self.keep != KeepDraft::default() {
            text.line("keep", &keep_text(&self.keep));
        }
        match self.compression {
            Some(level) => text.line("compression", &level.to_string()),
            None => text.line("compression", "\"auto\""),
        }
        if let Some(percent) = self.reread_percent {
            text.line("reread_percent", &percent.to_string());
        }
        if !self.exclude.is_empty() {
            text.line("exclude", &list(&self.exclude));
        }
        if self.limits != LimitsDraft::default() {
            text.line("limits", &limits_text(&self.limits));
        }
        if !self.enabled {
            text.line("enabled", "false");
        }
        text.0
    }
}

impl From<&Schedule> for ScheduleDraft {
    fn from(schedule: &Schedule) -> Self {
        let scope = match schedule.scope {
            Scope::Full => "full",
            Scope::Web => "web",
            Scope::Db => "db",
        };
        Self {
            name: schedule.name.to_string(),
            scope: scope.to_owned(),
            accounts: match &schedule.accounts {
                Accounts::All => Vec::new(),
                Accounts::Only(names) => names.clone(),
            },
            when: schedule.when.text().to_owned(),
            spread: (schedule.spread_secs > 0).then(|| seconds_text(schedule.spread_secs)),
            destinations: schedule
                .destinations
                .iter()
                .map(ToString::to_string)
                .collect(),
            keep: (&schedule.keep).into(),
            compression: match schedule.compression {
                Compression::Level(level) => Some(level),
                Compression::Auto => None,
            },
            reread_percent: (schedule.reread_percent > 0).then(|| schedule.reread_percent.into()),
            exclude: schedule.exclude.clone(),
            limits: (&schedule.limits).into(),
            enabled: schedule.enabled,
        }
    }
}

impl From<&Keep> for KeepDraft {
    fn from(keep: &Keep) -> Self {
        Self {
            last: keep.last,
            hourly: keep.hourly,
            daily: keep.daily,
            weekly: keep.weekly,
            monthly: keep.monthly,
            yearly: keep.yearly,
            within: keep.within_secs.map(seconds_text),
            max: keep.max,
            max_age: keep.max_age_secs.map(seconds_text),
            min: keep.min,
            min_age: keep.min_age_secs.map(seconds_text),
        }
    }
}

impl From<&Limits> for LimitsDraft {
    fn from(limits: &Limits) -> Self {
        Self {
            cpu_weight: limits.cpu_weight,
            io_weight: limits.io_weight,
            cpu_percent: limits.cpu_percent.map(u32::from),
            memory: limits.memory.map(bytes_text),
            upload_per_second: limits.upload_per_sec.map(bytes_text),
            duration: limits.duration_secs.map(seconds_text),
        }
    }
}

/// Writes a schedule as a `[schedule.NAME]` table.
#[must_use]
pub fn schedule_text(schedule: &Schedule) -> String {
    ScheduleDraft::from(schedule).text()
}

/// Writes a destination as a `[destination.NAME]` table; what equals the default is left out.
#[must_use]
pub fn destination_text(destination: &Destination) -> String {
    let key = quoted_key(destination.name.as_str());
    let mut text = Text::begin(&format!("destination.{key}"));
    match &destination.place {
        Place::Local { path } => {
            text.line("kind", "\"local\"");
            text.line("path", &quoted(&path.display().to_string()));
        }
        Place::S3 {
            endpoint,
            bucket,
            path,
            region,
            path_style,
        } => {
            text.line("kind", "\"s3\"");
            text.line("endpoint", &quoted(endpoint));
            text.line("bucket", &quoted(bucket));
            if !path.is_empty() {
                text.line("path", &quoted(path));
            }
            text.line("region", &quoted(region));
            if !path_style {
                text.line("path_style", "false");
            }
        }
    }
    match &destination.credential {
        Credential::None => {}
        Credential::Sealed(name) => text.line("credential", &quoted(&format!("sealed:{name}"))),
        Credential::File(path) => {
            text.line("credential", &quoted(&format!("file:{}", path.display())));
        }
    }
    if !destination.required {
        text.line("required", "false");
    }
    text.0
}

struct Text(String);

impl Text {
    fn begin(table: &str) -> Self {
        Self(format!("[{table}]\n"))
    }

    fn line(&mut self, key: &str, value: &str) {
        self.0.push_str(key);
        self.0.push_str(" = ");
        self.0.push_str(value);
        self.0.push('\n');
    }
}

/// A name with other than letters, digits, `_` and `-` (a dot, above all) is quoted in TOML.
fn quoted_key(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(plain) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list<T: ToString>(all: &[T]) -> String {
    let all: Vec<String> = all.iter().map(|one| quoted(&one.to_string())).collect();
    format!("[{}]", all.join(", "))
}

fn keep_text(keep: &KeepDraft) -> String {
    let counts = [
        ("last", keep.last),
        ("hourly", keep.hourly),
        ("daily", keep.daily),
        ("weekly", keep.weekly),
        ("monthly", keep.monthly),
        ("yearly", keep.yearly),
    ];
    let number = |name: &str, value: Option<u32>| Some(format!("{name} = {}", value?));
    let span = |name: &str, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(format!("{name} = {}", quoted(value)))
    };
    let limits = [
        span("within", &keep.within),
        number("max", keep.max),
        span("max_age", &keep.max_age),
        number("min", keep.min),
        span("min_age", &keep.min_age),
    ];
    let counts = counts
        .into_iter()
        .filter_map(|(name, count)| number(name, count));
    inline_table(counts.chain(limits.into_iter().flatten()))
}

fn limits_text(limits: &LimitsDraft) -> String {
    let number = |name: &str, value: Option<u32>| Some(format!("{name} = {}", value?));
    let unit = |name: &str, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(format!("{name} = {}", quoted(value)))
    };
    let parts = [
        number("cpu_weight", limits.cpu_weight),
        number("io_weight", limits.io_weight),
        number("cpu_percent", limits.cpu_percent),
        unit("memory", &limits.memory),
        unit("upload_per_second", &limits.upload_per_second),
        unit("duration", &limits.duration),
    ];
    inline_table(parts.into_iter().flatten())
}

fn inline_table(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    format!("{{ {} }}", parts.join(", "))
}
