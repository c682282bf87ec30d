//! `agent.toml`: this server's name, its controller, how hosting is laid out, and what jobs may use.

use std::path::PathBuf;

use model::ServerName;
use toml::de::DeValue;

use crate::calendar::Zone;
use crate::destination::{absolute_path, url};
use crate::reader::{Section, list, number, text, truth, word};
use crate::schedule::{Limits, account_name, glob, read_limits};

/// How sites, databases and users of a server belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayoutKind {
    /// Linux users with a home, sites below it or in one place, MariaDB on a local socket.
    Plain,
}

/// Where an account's things are. `{user}` and `{home}` stand for the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostingLayout {
    /// Which built-in reader.
    pub kind: LayoutKind,
    /// Smallest user id that is an account.
    pub uid_min: u32,
    /// Largest user id that is an account.
    pub uid_max: u32,
    /// Users that are no accounts although their id is in range.
    pub exclude_users: Vec<String>,
    /// Trees of an account: absolute paths with `{user}`, or paths that begin with `{home}`.
    /// A pattern that matches nothing is passed over.
    pub sites: Vec<String>,
    /// Trees of the server itself.
    pub server_paths: Vec<PathBuf>,
    /// Names of an account's databases: `{user}`, `*` for any characters.
    pub databases: Vec<String>,
    /// Databases that are never backed up.
    pub exclude_databases: Vec<String>,
    /// Databases that match no account belong to `server` when true, and to nobody when false.
    pub unowned_databases: bool,
    /// The MariaDB socket; nothing when there is no such server.
    pub mariadb_socket: Option<PathBuf>,
}

impl Default for HostingLayout {
    fn default() -> Self {
        let owned = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
        Self {
            kind: LayoutKind::Plain,
            uid_min: 1000,
            uid_max: 59_999,
            exclude_users: Vec::new(),
            sites: owned(&["{home}", "/var/www/{user}"]),
            server_paths: Vec::new(),
            databases: owned(&["{user}", "{user}_*"]),
            exclude_databases: Vec::new(),
            unowned_databases: true,
            mariadb_socket: Some(PathBuf::from("/run/mysqld/mysqld.sock")),
        }
    }
}

/// What `agent.toml` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// This server's name in the fleet; nothing until it is set or joined.
    pub server: Option<ServerName>,
    /// The zone of schedules that name none.
    pub zone: Zone,
    /// The controller's address; nothing for a server that stands alone.
    pub controller: Option<String>,
    /// Where accounts are.
    pub hosting: HostingLayout,
    /// What jobs may use when their schedule does not say.
    pub limits: Limits,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            server: None,
            zone: Zone::utc(),
            controller: None,
            hosting: HostingLayout::default(),
            limits: Limits::default(),
        }
    }
}

impl Agent {
    pub(crate) fn read(mut root: Section<'_, '_>) -> Self {
        let server = root.get("server", |value| {
            ServerName::new(text(value)?).map_err(|e| e.to_string())
        });
        let zone = root.get("zone", |value| Zone::find(&text(value)?));
        let controller = root.table("controller").and_then(|mut table| {
            let address = table.need("url", "\"https://backstay.example.net:8443\"", url);
            table.finish();
            address
        });
        let hosting = root.table("hosting").map(read_hosting).unwrap_or_default();
        let limits = root.table("limits").map(read_limits).unwrap_or_default();
        root.finish();
        Self {
            server,
            zone: zone.unwrap_or_else(Zone::utc),
            controller,
            hosting,
            limits,
        }
    }
}

fn read_hosting(mut table: Section<'_, '_>) -> HostingLayout {
    let usual = HostingLayout::default();
    let t = &mut table;
    let layout = HostingLayout {
        kind: t
            .get("layout", word(&[("plain", LayoutKind::Plain)]))
            .unwrap_or(usual.kind),
        uid_min: t
            .get("uid_min", number(1, u32::MAX))
            .unwrap_or(usual.uid_min),
        uid_max: t
            .get("uid_max", number(1, u32::MAX))
            .unwrap_or(usual.uid_max),
        exclude_users: t
            .get("exclude_users", list(account_name))
            .unwrap_or(usual.exclude_users),
        sites: t.get("sites", list(site)).unwrap_or(usual.sites),
        server_paths: t
            .get("server_paths", list(absolute_path))
            .unwrap_or(usual.server_paths),
        databases: t
            .get("databases", list(database))
            .unwrap_or(usual.databases),
        exclude_databases: t
            .get("exclude_databases", list(glob))
            .unwrap_or(usual.exclude_databases),
        unowned_databases: t
            .get("unowned_databases", truth)
            .unwrap_or(usual.unowned_databases),
        mariadb_socket: t
            .get("mariadb_socket", socket)
            .unwrap_or(usual.mariadb_socket),
    };
    if layout.uid_min > layout.uid_max {
        let why = format!("is greater than uid_max, {}", layout.uid_max);
        table.fault("uid_min", why);
    }
    table.finish();
    layout
}

fn site(value: &DeValue<'_>) -> Result<String, String> {
    let pattern = glob(value)?;
    let rest = pattern.strip_prefix("{home}").unwrap_or(&pattern);
    let begins = rest.starts_with('/') || (rest.is_empty() && !pattern.is_empty());
    let names_account = pattern.contains("{home}") || pattern.contains("{user}");
    let climbs = pattern.split('/').any(|part| part == "..");
    if begins && names_account && !climbs {
        Ok(pattern)
    } else {
        Err(format!(
            "{pattern:?} is not a place of an account; write for example \"{{home}}/public_html\" or \"/var/www/{{user}}\""
        ))
    }
}

fn database(value: &DeValue<'_>) -> Result<String, String> {
    let pattern = glob(value)?;
    if pattern.contains("{user}") {
        Ok(pattern)
    } else {
        Err(format!(
            "{pattern:?} does not say whose; write for example \"{{user}}_*\""
        ))
    }
}

fn socket(value: &DeValue<'_>) -> Result<Option<PathBuf>, String> {
    if value.as_str() == Some("none") {
        return Ok(None);
    }
    absolute_path(value).map(Some)
}
