//! `restore`: on a server by its own unit, which has the rights; straight from a place by this
//! program, with neither agent nor controller.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use edge::TreePath;
use ledger::{Command, CommandState};
use model::{ByteCount, CommandId, DestinationName, Exit, Instant, ScheduleName, SnapshotId};
use ops::{Domain, RestoreError, RestoreOutcome, RestoreTo};
use protocol::RestoreTarget;
use protocol::control::ControlRequest;
use serde::{Deserialize, Serialize};

use crate::browse::{self, Opened, schedule_name, tree_path};
use crate::control;
use crate::follow;
use crate::problem::Problem;
use crate::prompt;
use crate::reach::{self, PlaceArguments, Reached, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};
use crate::server::{Server, ledger_problem};
use crate::time::now;
use crate::watch::Watch;

/// How long a queued restore may wait for its unit, in seconds.
const LAPSES_AFTER_SECS: i64 = 3600;

/// How many failures are shown one by one.
const FAILURES_SHOWN_MAX: usize = 20;

/// What to restore, and where to.
#[derive(Debug, Args)]
#[command(
    override_usage = "backstayctl restore SCHEDULE [SNAPSHOT] --to DIR [--path PATH]\n       \
                            backstayctl restore SCHEDULE [SNAPSHOT] --in-place [--path PATH]\n       \
                            backstayctl restore --repo PLACE --key-file FILE [SNAPSHOT] --to DIR [--path PATH]"
)]
pub struct RestoreArguments {
    /// Schedule and snapshot ("latest", its id, or the beginning of it); no schedule with --repo
    #[arg(num_args = 0..=2, value_name = "WORD")]
    words: Vec<OsString>,
    /// Restore into this directory, which is empty or does not exist; databases as .sql files. What
    /// a restore of the same left there that was cut is compared and gone on with
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "in_place",
        conflicts_with = "in_place"
    )]
    to: Option<PathBuf>,
    /// Restore over what is there, databases too; the former state is kept and named
    #[arg(long, conflicts_with = "repo")]
    in_place: bool,
    /// Restore only what lies within this path of the snapshot, for example acme.1001
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,
    /// Read it from this destination
    #[arg(long, value_name = "DESTINATION", conflicts_with = "repo")]
    from: Option<DestinationName>,
    /// Do not ask before restoring in place
    #[arg(long, short)]
    yes: bool,
    /// Start it and do not wait for its end
    #[arg(long, conflicts_with = "repo")]
    no_wait: bool,
    #[command(flatten)]
    place: PlaceArguments,
}

/// What is to be restored (`docs/ARCHITECTURE.md`, "Restore").
#[derive(Serialize)]
struct Body {
    snapshot: SnapshotId,
    destination: Option<DestinationName>,
    target: RestoreTarget,
    path: Option<String>,
}

/// What the unit wrote back.
#[derive(Debug, Default, Deserialize)]
struct Outcome {
    error: Option<String>,
    summary: Option<String>,
    #[serde(default)]
    published: Vec<String>,
    #[serde(default)]
    failures: Vec<String>,
}

/// How a restore ended, for programs.
#[derive(Serialize)]
struct Ended {
    ok: bool,
    summary: String,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    published: Vec<String>,
    failures: Vec<String>,
}

/// What a restore by this program did.
#[derive(Serialize)]
struct Counts {
    entries: u64,
    bytes: u64,
    failed: u64,
    /// Files of which a restore that was cut had left all content.
    kept: u64,
    /// Content bytes that it had left, in these files and in others.
    kept_bytes: u64,
}

/// Restores a snapshot or a part of it.
///
/// # Errors
///
/// When it cannot begin. What could not be restored is shown, and the exit code is 3.
pub fn restore(
    server: &Server,
    arguments: &RestoreArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let path = match &arguments.path {
        Some(path) => Some(tree_path(path.as_encoded_bytes())?),
        None => None,
    };
    let mut words = arguments.words.iter();
    if arguments.place.is_given() {
        let word = snapshot_word(words.next());
        return straight(arguments, &word, path, screen);
    }
    let name = schedule_name(words.next())?;
    let word = snapshot_word(words.next());
    let target = target(arguments)?;
    let reached = reach::of_schedule(server, &name, arguments.from.as_ref())?;
    let opened = browse::open(reached, &word)?;
    if arguments.in_place && !arguments.yes {
        let taken = crate::time::local(opened.snapshot.body.started_at);
        let what = path
            .as_ref()
            .map_or("everything".to_owned(), ToString::to_string);
        prompt::confirm(
            &format!(
                "This puts {what} of schedule {name} back to how it was on {taken}, over what is there now.\n\
                 What is there now is kept beside it"
            ),
            name.as_str(),
        )?;
    }
    let body = Body {
        snapshot: opened.snapshot.id,
        destination: opened.destination,
        target,
        path: arguments
            .path
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned()),
    };
    by_unit(server, &name, &body, arguments.no_wait, screen)
}

fn snapshot_word(word: Option<&OsString>) -> String {
    word.map_or("latest".to_owned(), |word| {
        word.to_string_lossy().into_owned()
    })
}

fn target(arguments: &RestoreArguments) -> Result<RestoreTarget, Problem> {
    let Some(directory) = &arguments.to else {
        return Ok(RestoreTarget::InPlace);
    };
    let unusable = || {
        Problem::new(
            Exit::Usage,
            format!("cannot restore into {}", directory.display()),
        )
    };
    let directory = std::path::absolute(directory).map_err(|error| unusable().because(&error))?;
    let text = directory
        .to_str()
        .ok_or_else(|| unusable().cause("its name is not UTF-8"))?;
    Ok(RestoreTarget::Directory(text.to_owned()))
}

/// Queues the restore, lets systemd start its unit, and waits for its end.
fn by_unit(
    server: &Server,
    name: &ScheduleName,
    body: &Body,
    no_wait: bool,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let mut ledger = server.ledger_for_writing()?;
    let at = now();
    let command = queued(name, at)?;
    let order = leave_order(server, &command, body)?;
    ledger
        .accept_command(&command)
        .map_err(|e| ledger_problem(&e))?;
    let request = ControlRequest::StartRestore { name: name.clone() };
    let unit = match control::start(server, &request) {
        Ok(unit) => unit,
        Err(problem) => {
            let outcome = r#"{"error":"its unit could not be started"}"#;
            let ended = ledger.finish_command(command.id, CommandState::Failed, outcome, now());
            std::fs::remove_file(order).unwrap_or_default();
            ended.map_err(|e| ledger_problem(&e))?;
            return Err(problem);
        }
    };
    if no_wait {
        if screen.is_json() {
            screen.json(&serde_json::json!({ "started": unit, "command": command.id }))?;
        } else {
            screen.line(&[plain(format!(
                "Started {unit}; 'backstayctl status' shows how far it is."
            ))])?;
        }
        return Ok(Exit::Done);
    }
    let ended = follow::command(&ledger, command.id, &unit)?;
    let outcome: Outcome = ended
        .outcome
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    answer(&ended, outcome, &unit, screen)
}

/// Writes what is to be restored where only root can write: the ledger has users with less rights
/// than the unit that restores.
fn leave_order(server: &Server, command: &Command, body: &Body) -> Result<PathBuf, Problem> {
    use std::os::unix::fs::DirBuilderExt as _;
    let directory = server.orders();
    let path = directory.join(format!("{}.json", command.id));
    let order = serde_json::json!({ "schedule": command.schedule, "restore": body });
    let made = match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => crate::credentials::write_private(&path, order.to_string().as_bytes()),
    };
    made.map_err(|error| {
        Problem::new(Exit::Failed, "cannot order the restore; nothing was begun")
            .cause(format!("writing {}", path.display()))
            .because(&error)
    })?;
    Ok(path)
}

fn queued(name: &ScheduleName, at: Instant) -> Result<Command, Problem> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Problem::new(Exit::Failed, "cannot draw a random number").cause(error))?;
    Ok(Command {
        id: CommandId::from_bytes(id),
        schedule: name.clone(),
        kind: "restore".to_owned(),
        body: "{}".to_owned(),
        state: CommandState::Queued,
        accepted_at: at,
        expires_at: at.plus_secs(LAPSES_AFTER_SECS),
        outcome: None,
    })
}

fn answer(
    command: &Command,
    outcome: Outcome,
    unit: &str,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let done = command.state == CommandState::Done;
    let hint = format!("journalctl -u {unit} -n 100");
    // The reason holds the summary, too.
    let said = outcome.error.or_else(|| outcome.summary.clone());
    let said = said.unwrap_or_else(|| "the unit gave no reason".to_owned());
    let said = model::escape(said.as_bytes());
    // Without a summary nothing was restored at all; when it was stopped, nothing was put in place.
    let is_nothing = outcome.published.is_empty() && outcome.failures.is_empty();
    if outcome.summary.is_none() || (!done && is_nothing) {
        let problem = Problem::new(Exit::Failed, "the restore failed");
        return Err(problem.cause(said).hint(hint));
    }
    show(
        &Ended {
            ok: done,
            summary: said,
            counts: None,
            published: outcome.published,
            failures: outcome.failures,
        },
        screen,
    )?;
    if !done && !screen.is_json() {
        screen.line(&[plain(format!("Each one by name: {hint}"))])?;
    }
    Ok(if done { Exit::Done } else { Exit::Partial })
}

fn show(ended: &Ended, screen: &mut Screen) -> Result<(), Problem> {
    if screen.is_json() {
        screen.json(ended)?;
        return Ok(());
    }
    for place in &ended.published {
        screen.line(&[
            toned("restored  ", Tone::Good),
            plain(model::escape(place.as_bytes())),
        ])?;
    }
    for failure in ended.failures.iter().take(FAILURES_SHOWN_MAX) {
        screen.line(&[
            toned("failed    ", Tone::Bad),
            plain(model::escape(failure.as_bytes())),
        ])?;
    }
    if let Some(more @ 1..) = ended.failures.len().checked_sub(FAILURES_SHOWN_MAX) {
        screen.line(&[plain(format!("… and {more} more"))])?;
    }
    let tone = if ended.ok {
        Tone::Strong
    } else {
        Tone::Warning
    };
    screen.line(&[toned(format!("{}.", ended.summary), tone)])?;
    Ok(())
}

/// Restores with this program alone.
fn straight(
    arguments: &RestoreArguments,
    word: &str,
    only: Option<TreePath>,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let Some(directory) = &arguments.to else {
        return Err(Problem::new(Exit::Usage, "--to is missing"));
    };
    let to = RestoreTo::Directory(directory.clone());
    into_directory(arguments.place.open()?, &(word, only), &to, screen)
}

/// Restores a snapshot of a domain, or what lies within a path of it, with this program alone.
///
/// # Errors
///
/// When it cannot begin. What could not be restored is shown, and the exit code is 3.
pub fn into_directory(
    domain: Domain,
    (word, only): &(&str, Option<TreePath>),
    to: &RestoreTo,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let reached = vec![Reached {
        destination: None,
        domain: Ok(domain),
    }];
    let Opened { view, snapshot, .. } = browse::open(reached, word)?;
    let watch = Watch::new("restore");
    let outcome = ops::restore(&view, &snapshot, only.as_ref(), to, &watch)
        .map_err(|error| restore_problem(&error, to))?;
    drop(watch);
    let exit = if outcome.failed == 0 {
        Exit::Done
    } else {
        Exit::Partial
    };
    show(&ended(outcome), screen)?;
    Ok(exit)
}

fn ended(outcome: RestoreOutcome) -> Ended {
    let mut summary = format!("{} entries, {} restored", outcome.entries, outcome.bytes);
    if outcome.kept_bytes > ByteCount::ZERO {
        let kept = format!(
            ", {} of it there from the restore that was cut",
            outcome.kept_bytes
        );
        summary.push_str(&kept);
    }
    if outcome.failed > 0 {
        summary.push_str(&format!("; {} could not be", outcome.failed));
    }
    let failures = outcome.failures.iter();
    Ended {
        ok: outcome.failed == 0,
        summary,
        counts: Some(Counts {
            entries: outcome.entries,
            bytes: outcome.bytes.get(),
            failed: outcome.failed,
            kept: outcome.kept,
            kept_bytes: outcome.kept_bytes.get(),
        }),
        failures: failures
            .map(|one| format!("{}: {}", one.object, one.error))
            .collect(),
        published: outcome.published,
    }
}

const GOES_ON: &str =
    "what was restored so far waits in that directory: the same command goes on with it";

fn restore_problem(error: &RestoreError, to: &RestoreTo) -> Problem {
    let what = match to {
        RestoreTo::InPlace { .. } => "cannot restore in place".to_owned(),
        RestoreTo::Directory(directory)
        | RestoreTo::PlainDirectory(directory)
        | RestoreTo::CompleteDirectory(directory) => {
            format!("cannot restore into {}", directory.display())
        }
    };
    match error {
        RestoreError::Repository(error) => {
            let problem = repository_problem(&what, error);
            let goes_on = !matches!(to, RestoreTo::InPlace { .. });
            match error.exit() {
                Exit::Unreachable if goes_on => problem.hint(GOES_ON),
                Exit::Unreachable => problem.hint("nothing was put in place"),
                _ => problem,
            }
        }
        RestoreError::Target(_) | RestoreError::Users(_) | RestoreError::Nothing(_) => {
            Problem::new(Exit::Failed, what)
                .because(error)
                .hint("name a directory that is empty or does not exist")
        }
    }
}
