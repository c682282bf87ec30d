//! `repo key`: who may open a repository.

pub(super) mod password;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use model::Exit;
use ops::{Domain, RepositoryError, Rights, SlotLock, SlotName, SlotRow};
use serde::Serialize;

use super::{SystemEntropy, open_for_writing};
use crate::key::read_or_make;
use crate::problem::Problem;
use crate::prompt;
use crate::reach::{Opener, RepoArguments, repository_problem};
use crate::screen::{Screen, Table, Tone, plain, toned};
use crate::secrets;

/// What to do with the keys of a repository.
#[derive(Debug, Subcommand)]
pub enum RepoKeyVerb {
    /// Show which keys and passwords open these backups, and what each may
    List(ListArguments),
    /// Let another key or password open these backups
    ///
    /// With --new-key-file a key, which is made when the file does not exist; otherwise a password,
    /// which is asked for or read from --new-password-file.
    Add(AddArguments),
    /// Take a key or password away
    ///
    /// It protects what is stored from now on only if it was never copied: whoever has the key or
    /// password and a copy of the repository's folder "k" can read all that is stored with it. When
    /// that may be so, use 'new-epoch', and then 'prune --reseal'.
    Remove(RemoveArguments),
    /// Change the password that these backups are opened with
    Passwd(PasswdArguments),
    /// Put a new key in the place of the one that was given
    ///
    /// Nothing is stored anew, so it takes a moment. It does not protect what somebody copied
    /// together with the old key: see 'remove'.
    Replace(ReplaceArguments),
    /// Encrypt with a new key from now on, and take all other keys and passwords away
    ///
    /// For when a key or password may be known to others. What is stored already stays as it is, and
    /// can be read with the new key, until 'prune --reseal' has stored it anew. What was copied
    /// before stays readable with the old key for ever. At other destinations of the same schedule
    /// do the same with the same new key. No key stops who can write at the place: change the
    /// credential of the place as well.
    NewEpoch(NewEpochArguments),
}

/// Whose keys.
#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    repo: RepoArguments,
}

/// What a new key or password may.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Allowed {
    /// Everything
    All,
    /// Back up, and read nothing of what is stored
    Add,
    /// Restore, and change nothing
    Read,
    /// Back up and restore, and delete nothing
    AddRead,
    /// Restore, forget and prune, and back up nothing
    ReadDelete,
}

/// A new key or password.
#[derive(Debug, Args)]
struct NewArguments {
    /// The file with the new key; a key is made when the file does not exist
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// The file with the new password; it is asked for when no new key is given either
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    new_password_file: Option<PathBuf>,
}

/// What to add.
#[derive(Debug, Args)]
pub struct AddArguments {
    #[command(flatten)]
    new: NewArguments,
    /// What it may
    #[arg(long, value_enum, default_value_t = Allowed::All, value_name = "RIGHTS")]
    rights: Allowed,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What to take away.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Its name, or the beginning of it, as 'key list' shows it
    #[arg(value_name = "NAME")]
    slot: String,
    #[command(flatten)]
    repo: RepoArguments,
}

/// The new password.
#[derive(Debug, Args)]
pub struct PasswdArguments {
    /// The file with the new password; asked for when not given
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// The new key.
#[derive(Debug, Args)]
pub struct ReplaceArguments {
    #[command(flatten)]
    new: NewArguments,
    #[command(flatten)]
    repo: RepoArguments,
}

/// The key of the new epoch.
#[derive(Debug, Args)]
pub struct NewEpochArguments {
    /// The file with the new key; a key is made when the file does not exist
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    repo: RepoArguments,
}

/// One slot, for programs.
#[derive(Serialize)]
pub(super) struct Slot {
    name: String,
    /// Nothing when it cannot be understood.
    opened_by: Option<&'static str>,
    may: Option<String>,
    is_own: bool,
    is_published: bool,
}

/// What became of a key, for programs.
#[derive(Serialize)]
struct Changed {
    key: String,
    key_is_new: bool,
    removed: Vec<String>,
    epoch: u32,
}

pub(super) fn key(verb: &RepoKeyVerb, screen: &mut Screen) -> Result<Exit, Problem> {
    match verb {
        RepoKeyVerb::List(arguments) => list(&arguments.repo, screen),
        RepoKeyVerb::Add(arguments) => add(arguments, screen),
        RepoKeyVerb::Remove(arguments) => remove(arguments, screen),
        RepoKeyVerb::Passwd(arguments) => {
            let new = NewArguments {
                new_key_file: None,
                new_password_file: arguments.new_password_file.clone(),
            };
            replace(&new, &arguments.repo, screen)
        }
        RepoKeyVerb::Replace(arguments) => replace(&arguments.new, &arguments.repo, screen),
        RepoKeyVerb::NewEpoch(arguments) => new_epoch(arguments, screen),
    }
}

fn list(repo: &RepoArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let rows = slots(&repo.open()?)?;
    if screen.is_json() {
        screen.json(&rows.iter().map(shown).collect::<Vec<_>>())?;
    } else {
        show(&rows, screen)?;
    }
    Ok(Exit::Done)
}

fn slots(domain: &Domain) -> Result<Vec<SlotRow>, Problem> {
    domain
        .slots()
        .map_err(|error| repository_problem("cannot list the keys", &error))
}

/// Gives a slot as programs see it.
pub(super) fn shown(row: &SlotRow) -> Slot {
    Slot {
        name: row.name.to_string(),
        opened_by: row.tells.map(|(lock, _)| match lock {
            SlotLock::Key => "key",
            SlotLock::Password => "password",
        }),
        may: row.tells.map(|(_, rights)| rights.to_string()),
        is_own: row.is_own,
        is_published: row.is_published(),
    }
}

/// Shows all slots.
pub(super) fn show(rows: &[SlotRow], screen: &mut Screen) -> Result<(), Problem> {
    let mut table = Table::new(&["key", "opened by", "may", ""]);
    for row in rows {
        let slot = shown(row);
        let (opened_by, tone) = match (slot.opened_by, slot.is_published) {
            (Some(_), true) => ("everybody", Tone::Bad),
            (Some(opened_by), false) => (opened_by, Tone::Plain),
            (None, _) => ("damaged, or newer", Tone::Bad),
        };
        table.row(vec![
            plain(slot.name),
            toned(opened_by, tone),
            plain(slot.may.unwrap_or_default()),
            plain(if slot.is_own { "this one" } else { "" }),
        ]);
    }
    screen.table(&table)?;
    Ok(())
}

fn add(arguments: &AddArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let (opener, key_is_new) = new_opener(&arguments.new, screen)?;
    let rights = match arguments.rights {
        Allowed::All => Rights::ALL,
        Allowed::Add => Rights::ADD,
        Allowed::Read => Rights::READ,
        Allowed::AddRead => Rights::ADD_AND_READ,
        Allowed::ReadDelete => Rights::READ_AND_DELETE,
    };
    let name = domain
        .add_slot(&opener.unlock(), rights, &SystemEntropy)
        .map_err(|error| unchanged("cannot add a key", &error))?;
    let changed = Changed {
        key: name.to_string(),
        key_is_new,
        removed: Vec::new(),
        epoch: domain.epoch(),
    };
    ended(&changed, &format!("Key {name} may {rights}."), screen)
}

fn remove(arguments: &RemoveArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let name = named(&domain, &arguments.slot)?;
    domain
        .remove_slot(name)
        .map_err(|error| unchanged("cannot take the key away", &error))?;
    let changed = Changed {
        key: domain.slot().to_string(),
        key_is_new: false,
        removed: vec![name.to_string()],
        epoch: domain.epoch(),
    };
    let text = format!(
        "Key {name} was taken away. If it may have been copied: backstayctl repo key new-epoch"
    );
    ended(&changed, &text, screen)
}

fn named(domain: &Domain, word: &str) -> Result<SlotName, Problem> {
    let rows = slots(domain)?;
    let mut found = rows.iter().map(|row| row.name);
    let mut found = found
        .by_ref()
        .filter(|name| name.to_string().starts_with(word));
    match (found.next(), found.next()) {
        (Some(name), None) => Ok(name),
        (first, _) => {
            let word = model::escape(word.as_bytes());
            let what = if first.is_none() {
                format!("no key {word:?} opens the backups at {}", domain.place())
            } else {
                format!("several keys begin with {word:?}: give more digits")
            };
            Err(Problem::new(Exit::Failed, what).hint("backstayctl repo key list"))
        }
    }
}

fn replace(new: &NewArguments, repo: &RepoArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(repo)?;
    let (opener, key_is_new) = new_opener(new, screen)?;
    let replaced = domain
        .replace_slot(&opener.unlock(), &SystemEntropy)
        .map_err(|error| unchanged("cannot replace the key", &error))?;
    let changed = Changed {
        key: replaced.slot().to_string(),
        key_is_new,
        removed: vec![domain.slot().to_string()],
        epoch: replaced.epoch(),
    };
    let (new, old) = (replaced.slot(), domain.slot());
    let text = format!(
        "Key {new} opens these backups now, and key {old} does not. Whoever copied the repository \
         and has the old key can read what they copied."
    );
    ended(&changed, &text, screen)
}

fn new_epoch(arguments: &NewEpochArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let rows = slots(&domain)?;
    if !arguments.yes {
        let count = rows.len();
        let what = format!(
            "All {count} keys and passwords of {} are taken away",
            domain.place()
        );
        prompt::confirm(&what, "yes")?;
    }
    let (key, key_is_new) = read_or_make(&arguments.new_key_file, &SystemEntropy)?;
    refuse_published(&Opener::Key(key.clone()))?;
    let begun = domain
        .begin_epoch(&key, &SystemEntropy)
        .map_err(|error| repository_problem("cannot begin to use a new key", &error))?;
    let names = rows.iter().map(|row| row.name);
    let removed = names.filter(|name| *name != begun.slot());
    let changed = Changed {
        key: begun.slot().to_string(),
        key_is_new,
        removed: removed.map(|name| name.to_string()).collect(),
        epoch: begun.epoch(),
    };
    let text = format!(
        "Key {} is the only one now, and encrypts what is stored from now on. To store anew what is \
         there: backstayctl repo prune --reseal. Whoever has an old key and can write at {} can \
         still delete: change what lets them in.",
        begun.slot(),
        domain.place()
    );
    ended(&changed, &text, screen)
}

/// Reads or makes what is to open the backups.
fn new_opener(new: &NewArguments, screen: &mut Screen) -> Result<(Opener, bool), Problem> {
    let (opener, is_new) = match (&new.new_key_file, &new.new_password_file) {
        (Some(file), _) => {
            let (key, is_new) = read_or_make(file, &SystemEntropy)?;
            (Opener::Key(key), is_new)
        }
        (None, Some(file)) => {
            let password = secrets::file(file, "the new password")?;
            (Opener::Password(password), false)
        }
        (None, None) => {
            let password = prompt::new_secret("New password: ")?;
            (Opener::Password(password), false)
        }
    };
    refuse_published(&opener)?;
    if let Opener::Password(password) = &opener {
        password::check(password, screen)?;
    }
    Ok((opener, is_new))
}

fn refuse_published(opener: &Opener) -> Result<(), Problem> {
    match opener {
        Opener::Key(key) if key.is_published() => {
            let what = "this key is the one that everybody knows; nothing was changed";
            Err(Problem::new(Exit::Usage, what)
                .hint("for backups that are not encrypted: backstayctl repo init --no-encryption"))
        }
        _ => Ok(()),
    }
}

fn unchanged(what: &str, error: &RepositoryError) -> Problem {
    repository_problem(&format!("{what}; nothing was changed"), error)
}

fn ended(changed: &Changed, text: &str, screen: &mut Screen) -> Result<Exit, Problem> {
    if screen.is_json() {
        screen.json(changed)?;
    } else {
        screen.line(&[plain(text)])?;
    }
    Ok(Exit::Done)
}
