//! A schedule as the API takes it, its TOML text, and what is wrong with it.

use model::{DestinationName, ScheduleName, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{FieldError, Problem};

/// The longest text of one schedule: a thousand of them fit into a generation.
const TOML_BYTES_MAX: usize = 16 << 10;

/// Every account, or these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Accounts {
    /// Every account that is found when the run starts.
    All(AllWord),
    /// These accounts, by user name.
    Only(Vec<String>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AllWord {
    /// Every one.
    All,
}

/// How hard content is compressed: 0 to 9, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Compression {
    /// 0 (not at all) to 9.
    Level(u8),
    /// Chosen from what the content yields.
    Auto(AutoWord),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AutoWord {
    /// Chosen for you.
    Auto,
}

/// Which snapshots are kept: those that any rule keeps, never more than `max`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keep {
    /// This many newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<u32>,
    /// The newest of each of this many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hourly: Option<u32>,
    /// The newest of each of this many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) daily: Option<u32>,
    /// The newest of each of this many weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weekly: Option<u32>,
    /// The newest of each of this many months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) monthly: Option<u32>,
    /// The newest of each of this many years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) yearly: Option<u32>,
    /// Everything younger than this, with a unit: `30d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<String>,
    /// Never more than this many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<u32>,
}

/// A schedule as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleInput {
    /// Unique on its server: a-z, 0-9, dot, underscore, dash.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9._-]{0,62}$")]
    pub(crate) name: ScheduleName,
    /// False keeps the schedule and disarms its timer.
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// What it backs up.
    #[schema(value_type = ScopeWord)]
    pub(crate) scope: Scope,
    /// Whose.
    #[serde(default = "every_account")]
    pub(crate) accounts: Accounts,
    /// When: `daily 02:00 Europe/Berlin`, a five-field cron line, or a systemd calendar.
    pub(crate) when: String,
    /// Where to; at least one.
    #[schema(value_type = Vec<String>)]
    pub(crate) destinations: Vec<DestinationName>,
    /// What is kept.
    #[serde(default)]
    pub(crate) keep: Keep,
    /// How hard content is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compression: Option<Compression>,
    /// Path patterns that are left out.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
}

/// What a schedule backs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ScopeWord {
    /// Everything.
    Full,
    /// Site trees.
    Web,
    /// Databases.
    Db,
}

const fn yes() -> bool {
    true
}

const fn every_account() -> Accounts {
    Accounts::All(AllWord::All)
}

/// The table as TOML has it: the name is the key, and what equals the default is left out.
#[derive(Serialize)]
struct Table<'a> {
    scope: Scope,
    accounts: &'a Accounts,
    when: &'a str,
    destinations: &'a [DestinationName],
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    exclude: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<&'a Keep>,
}

impl ScheduleInput {
    /// Gives the TOML text, always the same for the same schedule.
    pub(crate) fn toml(&self) -> Result<String, Problem> {
        let table = Table {
            scope: self.scope,
            accounts: &self.accounts,
            when: &self.when,
            destinations: &self.destinations,
            compression: self.compression,
            exclude: &self.exclude,
            enabled: (!self.enabled).then_some(false),
            keep: (self.keep != Keep::default()).then_some(&self.keep),
        };
        let schedules = std::collections::BTreeMap::from([(self.name.as_str(), table)]);
        let document = std::collections::BTreeMap::from([("schedule", schedules)]);
        let text = toml::to_string(&document)
            .map_err(|error| Problem::internal("writing a schedule as TOML", &error))?;
        if text.len() > TOML_BYTES_MAX {
            return Err(Problem::invalid("/exclude", "the schedule is too long"));
        }
        Ok(text)
    }

    /// Reads the text of a schedule that a server reported; what cannot be read stays empty, the
    /// text itself is shown beside it.
    pub(crate) fn from_toml(name: &ScheduleName, scope: Scope, text: &str) -> Self {
        #[derive(Deserialize)]
        struct Document {
            schedule: std::collections::BTreeMap<String, Told>,
        }
        let told = toml::from_str::<Document>(text)
            .ok()
            .and_then(|mut document| document.schedule.remove(name.as_str()))
            .unwrap_or_default();
        Self {
            name: name.clone(),
            enabled: told.enabled.unwrap_or(true),
            scope,
            accounts: told.accounts.unwrap_or_else(every_account),
            when: told.when,
            destinations: told.destinations,
            keep: told.keep,
            compression: told.compression,
            exclude: told.exclude,
        }
    }

    /// Checks everything that can be checked without the server.
    ///
    /// # Errors
    ///
    /// A problem with one error per wrong field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let text = self.toml()?;
        let Err(found) = settings::parse_generation("schedule", &text) else {
            return Ok(());
        };
        let prefix = format!("schedule.{}", self.name);
        let errors: Vec<_> = found
            .all()
            .iter()
            .map(|problem| FieldError {
                pointer: problem
                    .key
                    .replace('"', "")
                    .strip_prefix(&prefix)
                    .unwrap_or_default()
                    .replace('.', "/"),
                detail: problem.message.clone(),
            })
            .collect();
        let detail = errors.first().map_or("", |error| error.detail.as_str());
        let mut problem = Problem::invalid("", format!("the schedule is not valid: {detail}"));
        problem.errors = errors;
        Err(problem)
    }
}

/// What of a reported text is shown field by field.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    enabled: Option<bool>,
    accounts: Option<Accounts>,
    when: String,
    destinations: Vec<DestinationName>,
    keep: Keep,
    compression: Option<Compression>,
    exclude: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ScheduleInput {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_toml_text_is_the_documented_one() {
        let short = read(
            r#"{"name":"nightly","scope":"full","when":"daily 02:00","destinations":["local"]}"#,
        );
        insta::assert_snapshot!(short.toml().unwrap());
        let long = read(
            r#"{"name":"a.b","enabled":false,"scope":"db","accounts":["acme"],"when":"*/5 * * * *",
                "destinations":["offsite","local"],"keep":{"last":7,"within":"30d"},
                "compression":"auto","exclude":["*/cache/*","quote\"d"]}"#,
        );
        insta::assert_snapshot!(long.toml().unwrap());
    }

    #[test]
    fn every_wrong_field_is_named() {
        let wrong = read(
            r#"{"name":"x","scope":"web","accounts":[],"when":" ","destinations":[],"compression":12}"#,
        );
        let pointers: Vec<_> = wrong
            .check()
            .unwrap_err()
            .errors
            .into_iter()
            .map(|e| e.pointer)
            .collect();
        assert_eq!(
            pointers,
            ["/accounts", "/when", "/destinations", "/compression"]
        );
    }
}
