//! `repo forget --damaged` and `repo unpin --damaged`: what nobody can read any more, and only a
//! person may take away.

use model::Exit;
use ops::{Domain, RepositoryError, Wreck, chain};
use serde::Serialize;

use super::open_for_writing;
use crate::problem::Problem;
use crate::reach::{RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, counted, plain, toned};

/// What was damaged and was deleted, for programs.
#[derive(Serialize)]
struct Deleted {
    deleted: Vec<Row>,
    is_dry_run: bool,
}

#[derive(Serialize)]
struct Row {
    object: String,
    error: String,
}

/// Finds what is damaged.
type Find = fn(&Domain) -> Result<Vec<Wreck>, RepositoryError>;

/// Deletes snapshots that are damaged for good, those in the trash among them.
pub(super) fn forget(
    repo: &RepoArguments,
    is_dry_run: bool,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let find: Find = Domain::damaged_snapshots;
    delete(repo, (find, "snapshot"), is_dry_run, screen)
}

/// Deletes pins that are damaged for good.
pub(super) fn unpin(repo: &RepoArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    delete(repo, (Domain::damaged_pins, "pin"), false, screen)
}

fn delete(
    repo: &RepoArguments,
    (find, noun): (Find, &str),
    is_dry_run: bool,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(repo)?;
    let found = find(&domain).map_err(|error| {
        repository_problem(&format!("cannot look for a damaged {noun}"), &error)
    })?;
    if !is_dry_run {
        domain.delete_wrecks(&found).map_err(|error| {
            repository_problem(&format!("cannot delete a damaged {noun}"), &error)
        })?;
    }
    let row = |wreck: Wreck| Row {
        object: wreck.object.to_string(),
        error: match &wreck.error {
            RepositoryError::Damaged { source, .. } => chain(&**source),
            error => chain(error),
        },
    };
    let rows: Vec<_> = found.into_iter().map(row).collect();
    if screen.is_json() {
        screen.json(&Deleted {
            deleted: rows,
            is_dry_run,
        })?;
        return Ok(Exit::Done);
    }
    let (word, verb) = if is_dry_run {
        ("would go  ", "would be deleted")
    } else {
        ("deleted   ", "deleted")
    };
    for row in &rows {
        let text = format!("{}: {}", row.object, row.error);
        screen.line(&[toned(word, Tone::Warning), plain(text)])?;
    }
    let count = counted(rows.len(), &format!("damaged {noun}"));
    screen.line(&[plain(format!("{count} {verb}."))])?;
    Ok(Exit::Done)
}
