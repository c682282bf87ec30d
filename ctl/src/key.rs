//! `key`: the key that opens a schedule's backups, to keep elsewhere, and another one to use.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use edge::Entropy;
use model::{Exit, ScheduleName, Secret};
use ops::ScheduleKey;

use crate::configuration;
use crate::credentials;
use crate::problem::Problem;
use crate::prompt;
use crate::screen::{Screen, plain};
use crate::secrets;
use crate::server::Server;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Show the key that opens a schedule's backups, to keep elsewhere
    ///
    /// Whoever has it can read these backups; without it nobody can. It opens them on any machine:
    /// see 'backstayctl restore --help', --repo and --key-file.
    Export(ExportArguments),
    /// Give a schedule another key, which its runs use from now on
    ///
    /// For a key that 'repo key replace', 'repo key new-epoch' or 'repo key add' made, such as one that
    /// may only add. Backups that this key does not open stay where they are and need the former one,
    /// of which this server keeps no copy.
    Import(ImportArguments),
}

/// Which key, and whose it becomes.
#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Which schedule
    #[arg(value_name = "SCHEDULE")]
    schedule: ScheduleName,
    /// The file with the key; "-" asks for it
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Which key, and where to.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Which schedule
    #[arg(value_name = "SCHEDULE")]
    schedule: ScheduleName,
    /// Write it to a new file that only you can read, instead of showing it
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Does what was asked with a key.
///
/// # Errors
///
/// When there is no such key or the file cannot be written.
pub fn key(server: &Server, verb: &KeyVerb, screen: &mut Screen) -> Result<Exit, Problem> {
    match verb {
        KeyVerb::Export(arguments) => export(server, arguments, screen),
        KeyVerb::Import(arguments) => import(server, arguments, screen),
    }
}

fn import(
    server: &Server,
    arguments: &ImportArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    server.as_root("storing a key")?;
    server.installed()?;
    let name = &arguments.schedule;
    let settings = configuration::load(server)?;
    configuration::schedule(&settings, name)?;
    let key = read(&arguments.key_file)?;
    let id = format!("schedule-{name}");
    let path = server.credential_store().join(format!("{id}.cred"));
    if path.exists() && !arguments.yes {
        let what = format!(
            "The former key of schedule {name} is not kept here: what only it opens needs a copy of it"
        );
        prompt::confirm(&what, name.as_str())?;
    }
    credentials::encrypt(&id, key.as_bytes(), &path)?;
    if screen.is_json() {
        screen.json(&serde_json::json!({ "schedule": name, "stored_in": path }))?;
    } else {
        let text = format!("Schedule {name} uses this key from its next run on.");
        screen.line(&[plain(text)])?;
    }
    Ok(Exit::Done)
}

fn export(
    server: &Server,
    arguments: &ExportArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    server.as_root("reading a key")?;
    server.installed()?;
    let name = &arguments.schedule;
    let text = load(server, name)?.to_text();
    if let Some(path) = &arguments.output {
        write(path, &text)?;
        if !screen.is_json() {
            screen.line(&[plain(format!(
                "Wrote the key of schedule {name} to {}. Keep it away from this server.",
                path.display()
            ))])?;
        }
    } else if !screen.is_json() {
        screen.line(&[plain(text.reveal())])?;
    }
    if screen.is_json() {
        let shown = arguments.output.is_none().then(|| text.reveal());
        screen.json(&serde_json::json!({
            "schedule": name,
            "key": shown,
            "written_to": arguments.output,
        }))?;
    }
    Ok(Exit::Done)
}

/// Reads the key of a schedule of this server.
///
/// # Errors
///
/// When there is none, or it was encrypted on another machine.
pub fn load(server: &Server, name: &ScheduleName) -> Result<ScheduleKey, Problem> {
    let id = format!("schedule-{name}");
    let path = server.credential_store().join(format!("{id}.cred"));
    if !path.exists() {
        return Err(Problem::new(
            Exit::Failed,
            format!("schedule {name} has no key on this server"),
        )
        .cause(format!("{} does not exist", path.display()))
        .hint("a key is made when a schedule is applied first: backstayctl apply")
        .hint("backstayctl schedule list"));
    }
    let bytes = credentials::decrypt(&id, &path)?;
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
        Problem::new(
            Exit::Damage,
            format!("the key of schedule {name} is damaged"),
        )
        .cause(format!(
            "{} holds {} bytes instead of 32",
            path.display(),
            bytes.len()
        ))
    })?;
    Ok(ScheduleKey::from_bytes(key))
}

/// Reads a key from a file; "-" asks for it.
///
/// # Errors
///
/// When it cannot be read or is none.
pub fn read(path: &Path) -> Result<ScheduleKey, Problem> {
    let text = if path == Path::new("-") {
        prompt::secret("Key: ")?
    } else {
        secrets::file(path, "the key")?
    };
    ScheduleKey::parse(text.reveal()).map_err(|error| {
        Problem::new(Exit::Usage, "cannot understand the key")
            .because(&error)
            .hint("the key is the line that 'backstayctl key export SCHEDULE' shows")
    })
}

/// Reads a key from a file, or makes one and writes it to the file when that does not exist. It is
/// on disk before anything that only it opens.
///
/// # Errors
///
/// As [`read`] and [`write`].
pub fn read_or_make(path: &Path, entropy: &dyn Entropy) -> Result<(ScheduleKey, bool), Problem> {
    if path == Path::new("-") || path.symlink_metadata().is_ok() {
        return Ok((read(path)?, false));
    }
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    let key = ScheduleKey::from_bytes(bytes);
    write(path, &key.to_text())?;
    Ok((key, true))
}

/// Writes a key to a new file that only its owner can read.
///
/// # Errors
///
/// When the file exists or cannot be written.
pub fn write(path: &Path, text: &Secret) -> Result<(), Problem> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.reveal().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
    written.map_err(|error| {
        Problem::new(
            Exit::Failed,
            format!("cannot write the key to {}", path.display()),
        )
        .because(&error)
        .hint("name a file that does not exist yet")
    })
}
