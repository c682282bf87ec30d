//! `repo init`: begins a repository, or a further key's or password's part of one.

use clap::Args;
use model::Exit;
use serde::Serialize;

use super::key::password;
use super::{SystemEntropy, host_name, info};
use crate::key;
use crate::problem::Problem;
use crate::prompt;
use crate::reach::{Opener, RepoArguments, open_problem};
use crate::screen::{Screen, Tone, plain, toned};

/// Where, and with which key.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// A name for people, kept in the repository; the machine's name if not given
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
    is_encrypted: bool,
}

pub(super) fn init(arguments: &InitArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let place = arguments.repo.place()?;
    let (opener, key_is_new) = opener(&arguments.repo)?;
    if let Opener::Password(password) = &opener
        && ops::open_domain_with(&place, &opener.unlock()).is_err()
    {
        password::check(password, screen)?;
    }
    let label = arguments.label.clone().unwrap_or_else(host_name);
    let (domain, is_new) = ops::create_domain(&place, &opener.unlock(), &SystemEntropy, &label)
        .map_err(|error| open_problem(&error))?;
    let is_encrypted = !matches!(&opener, Opener::Key(key) if key.is_published());
    if screen.is_json() {
        screen.json(&Begun {
            domain: domain.id().to_string(),
            is_new,
            key_is_new,
            is_encrypted,
        })?;
        return Ok(Exit::Done);
    }
    let place = domain.place();
    if let Some(file) = arguments.repo.key_file().filter(|_| key_is_new) {
        let text = format!(
            "Wrote a new key to {}. Keep a copy elsewhere: without it nobody can read the backups.",
            file.display()
        );
        screen.line(&[plain(text)])?;
    }
    screen.line(&[plain(if is_new {
        format!("{place} is ready.")
    } else {
        format!("{place} was ready before; nothing was changed.")
    })])?;
    if !is_encrypted {
        screen.line(&[toned(info::NOT_ENCRYPTED, Tone::Bad)])?;
    }
    Ok(Exit::Done)
}

/// Reads what is to open the repository; a key file that does not exist is made.
fn opener(repo: &RepoArguments) -> Result<(Opener, bool), Problem> {
    match repo.key_file() {
        Some(file) => {
            let (key, is_new) = key::read_or_make(file, &SystemEntropy)?;
            Ok((Opener::Key(key), is_new))
        }
        None if repo.asks_for_password() => {
            let password = prompt::new_secret("New password: ")?;
            Ok((Opener::Password(password), false))
        }
        None => Ok((repo.opener()?, false)),
    }
}
