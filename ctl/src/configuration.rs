//! The TOML of this server: read whole, or refused with every fault.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use model::{Exit, ScheduleName};
use serde::Serialize;
use settings::{Folders, Problems, Schedule, Settings, parse_generation};

use crate::problem::Problem;
use crate::screen::{Screen, Tone, counted, plain, toned};
use crate::server::{Server, not_allowed};

/// The longest file that is checked, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Which files to check.
#[derive(Debug, Args)]
pub struct ValidateArguments {
    /// TOML files with schedules and destinations, or folders laid out like /etc/backstay;
    /// without any, everything that this server is told
    files: Vec<PathBuf>,
}

/// One fault, for programs.
#[derive(Serialize)]
struct Fault {
    file: String,
    line: Option<usize>,
    key: String,
    message: String,
}

/// What a check found, for programs.
#[derive(Serialize, Default)]
struct Checked {
    ok: bool,
    schedules: usize,
    destinations: usize,
    faults: Vec<Fault>,
}

impl Checked {
    fn add(&mut self, result: Result<(usize, usize), Problems>) {
        match result {
            Ok((schedules, destinations)) => {
                self.schedules += schedules;
                self.destinations += destinations;
            }
            Err(problems) => self.faults.extend(problems.all().iter().map(|one| Fault {
                file: one.file.clone(),
                line: one.line,
                key: one.key.clone(),
                message: one.message.clone(),
            })),
        }
    }
}

/// Reads everything that this server is told.
///
/// # Errors
///
/// When the caller may not read it, or it has faults: then all of them.
pub fn load(server: &Server) -> Result<Settings, Problem> {
    let folders = folders(server)?;
    Settings::load(&folders).map_err(|problems| {
        let problem = Problem::new(Exit::BadConfiguration, "the configuration has faults");
        problems
            .all()
            .iter()
            .fold(problem, |problem, one| problem.cause(one))
            .hint("what was applied before stays in force; 'backstayctl validate' checks again")
    })
}

fn folders(server: &Server) -> Result<Folders, Problem> {
    let etc = server.configuration();
    if let Err(error) = std::fs::read_dir(&etc) {
        return Err(match error.kind() {
            ErrorKind::PermissionDenied => not_allowed(&format!("reading {}", etc.display())),
            _ => Problem::new(Exit::Failed, "this server has no Backstay configuration")
                .cause(format!("listing {}", etc.display()))
                .because(&error)
                .hint("apt install backstay-agent && backstayctl init"),
        });
    }
    Ok(Folders {
        etc,
        generation: server.generation()?,
    })
}

/// Finds a schedule by name.
///
/// # Errors
///
/// When there is none; the causes name those there are.
pub fn schedule<'s>(settings: &'s Settings, name: &ScheduleName) -> Result<&'s Schedule, Problem> {
    settings.schedules.get(name).ok_or_else(|| {
        let known: Vec<&str> = settings
            .schedules
            .keys()
            .map(ScheduleName::as_str)
            .collect();
        let problem = Problem::new(
            Exit::Failed,
            format!("there is no schedule {name:?}", name = name.as_str()),
        );
        if known.is_empty() {
            problem
                .cause("this server has no schedule yet")
                .hint("write one to /etc/backstay/schedules.d/NAME.toml, then: backstayctl apply")
        } else {
            problem
                .cause(format!("known schedules: {}", known.join(", ")))
                .hint("backstayctl schedule list")
        }
    })
}

/// Checks files, or the server as a whole, and shows every fault.
///
/// # Errors
///
/// When a file cannot be read. Faults are the answer, not an error; the exit code tells.
pub fn validate(
    server: &Server,
    arguments: &ValidateArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let mut checked = Checked::default();
    let whole = |folders: &Folders| {
        Settings::load(folders).map(|s| (s.schedules.len(), s.destinations.len()))
    };
    if arguments.files.is_empty() {
        checked.add(whole(&folders(server)?));
    }
    for path in &arguments.files {
        if let Some(etc) = folder_of(path) {
            checked.add(whole(&Folders {
                etc,
                generation: None,
            }));
        } else {
            let text = read(path)?;
            let parsed = parse_generation(&path.display().to_string(), &text);
            checked.add(parsed.map(|g| (g.schedules.len(), g.destinations.len())));
        }
    }
    checked.ok = checked.faults.is_empty();
    show(&checked, screen)
}

/// Gives the folder that a path is checked with: itself, or the one of `agent.toml`.
fn folder_of(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let name = path.file_name()?;
    let of_folder = name == "agent.toml" || name == "guard.toml";
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    of_folder.then(|| parent.to_owned())
}

fn read(path: &Path) -> Result<String, Problem> {
    let failed = |error: &dyn std::error::Error| {
        Problem::new(Exit::Failed, format!("cannot read {}", path.display())).because(error)
    };
    let size = std::fs::metadata(path).map_err(|e| failed(&e))?.len();
    if size > FILE_BYTES_MAX {
        return Err(
            Problem::new(Exit::Failed, format!("cannot read {}", path.display()))
                .cause("it is longer than 1 MiB"),
        );
    }
    std::fs::read_to_string(path).map_err(|e| failed(&e))
}

fn show(checked: &Checked, screen: &mut Screen) -> Result<Exit, Problem> {
    let exit = if checked.ok {
        Exit::Done
    } else {
        Exit::BadConfiguration
    };
    if screen.is_json() {
        screen.json(checked)?;
        return Ok(exit);
    }
    for fault in &checked.faults {
        let line = fault.line.map_or(String::new(), |line| format!(":{line}"));
        let key = if fault.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", fault.key)
        };
        screen.line(&[
            toned(format!("{}{line}: ", fault.file), Tone::Strong),
            plain(key),
            plain(&fault.message),
        ])?;
    }
    if checked.ok {
        screen.line(&[
            toned("Valid: ", Tone::Good),
            plain(format!(
                "{}, {}.",
                counted(checked.schedules, "schedule"),
                counted(checked.destinations, "destination")
            )),
        ])?;
    } else {
        let faults = counted(checked.faults.len(), "fault");
        screen.line(&[toned(format!("{faults}. Nothing was changed."), Tone::Bad)])?;
    }
    Ok(exit)
}
