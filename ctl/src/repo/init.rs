//! `repo init`: begins a repository, or a further key's part of one.

use clap::Args;
use edge::Entropy as _;
use model::Exit;
use ops::ScheduleKey;
use serde::Serialize;

use super::{SystemEntropy, host_name};
use crate::key;
use crate::problem::Problem;
use crate::reach::{RepoArguments, open_problem};
use crate::screen::{Screen, plain};

/// Where, and with which key.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// A name for people, kept in the repository in the clear; the machine's name if not given
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What was begun, for programs.
#[derive(Serialize)]
struct Begun {
    domain: String,
    is_new: bool,
    key_is_new: bool,
}

pub(super) fn init(arguments: &InitArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let place = arguments.repo.place()?;
    let made = key_file_to_make(&arguments.repo)?;
    let key = match &made {
        Some(key) => key.clone(),
        None => arguments.repo.key()?,
    };
    let label = arguments.label.clone().unwrap_or_else(host_name);
    let (domain, is_new) = ops::create_domain(&place, &key, &SystemEntropy, &label)
        .map_err(|error| open_problem(&error))?;
    if screen.is_json() {
        screen.json(&Begun {
            domain: domain.id().to_string(),
            is_new,
            key_is_new: made.is_some(),
        })?;
        return Ok(Exit::Done);
    }
    let place = domain.place();
    let file = arguments.repo.key_file().display();
    if made.is_some() {
        let text = format!(
            "Wrote a new key to {file}. Keep a copy elsewhere: without it nobody can read the backups."
        );
        screen.line(&[plain(text)])?;
    }
    screen.line(&[plain(if is_new {
        format!("{place} is ready.")
    } else {
        format!("{place} was ready before; nothing was changed.")
    })])?;
    Ok(Exit::Done)
}

/// Makes a key and writes it to the key file, when that does not exist. It is on disk before
/// anything that only it opens.
fn key_file_to_make(repo: &RepoArguments) -> Result<Option<ScheduleKey>, Problem> {
    let path = repo.key_file();
    if path == std::path::Path::new("-") || path.symlink_metadata().is_ok() {
        return Ok(None);
    }
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes);
    let key = ScheduleKey::from_bytes(bytes);
    key::write(path, &key.to_text())?;
    Ok(Some(key))
}
