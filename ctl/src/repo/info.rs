//! `repo info`: what a repository is, and what the key that was given may.

use clap::Args;
use model::Exit;
use ops::{Right, SlotRow};
use serde::Serialize;

use super::key::{self, Slot};
use crate::problem::Problem;
use crate::reach::{RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};

/// What everybody has to know who looks at such a repository.
pub(super) const NOT_ENCRYPTED: &str = "NOT ENCRYPTED: whoever can read this place can read the \
     backups. Damage is still found.";

/// Which repository.
#[derive(Debug, Args)]
pub struct InfoArguments {
    #[command(flatten)]
    repo: RepoArguments,
}

/// What it is, for programs.
#[derive(Serialize)]
struct Info {
    place: String,
    format_version: u64,
    domain: String,
    label: String,
    epoch: u32,
    is_encrypted: bool,
    may_add: bool,
    may_read: bool,
    may_delete: bool,
    keys: Vec<Slot>,
}

pub(super) fn info(arguments: &InfoArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let domain = arguments.repo.open()?;
    let rows = domain
        .slots()
        .map_err(|error| repository_problem("cannot list the keys", &error))?;
    let is_encrypted = !rows.iter().any(SlotRow::is_published);
    let may = |right| domain.rights().has(right);
    if screen.is_json() {
        screen.json(&Info {
            place: domain.place(),
            format_version: ops::FORMAT_VERSION,
            domain: domain.id().to_string(),
            label: domain.label().to_owned(),
            epoch: domain.epoch(),
            is_encrypted,
            may_add: may(Right::Add),
            may_read: may(Right::Read),
            may_delete: may(Right::Delete),
            keys: rows.iter().map(key::shown).collect(),
        })?;
        return Ok(Exit::Done);
    }
    let version = ops::FORMAT_VERSION;
    for (name, value) in [
        ("place", domain.place()),
        ("format", format!("version {version}")),
        ("label", model::escape(domain.label().as_bytes())),
        ("domain", domain.id().to_string()),
        ("epoch", domain.epoch().to_string()),
        ("this key may", domain.rights().to_string()),
    ] {
        screen.line(&[toned(format!("{name:<14}"), Tone::Faint), plain(value)])?;
    }
    if !is_encrypted {
        screen.line(&[toned(NOT_ENCRYPTED, Tone::Bad)])?;
    }
    key::show(&rows, screen)?;
    Ok(Exit::Done)
}
