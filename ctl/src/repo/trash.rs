//! `repo undelete`, `repo pin` and `repo unpin`: what was let go comes back, what must stay stays.

use clap::Args;
use model::{Exit, Instant, SnapshotId};
use ops::{Domain, Pin};
use serde::Serialize;

use super::{SystemClock, SystemEntropy, open_for_writing, wreck};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::{Screen, Table, Tone, counted, plain, toned};
use crate::time::{local, now};

/// What to bring back.
#[derive(Debug, Args)]
pub struct UndeleteArguments {
    /// These: ids, or beginnings of ids; without one, show what is in the trash
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What to keep whatever the rules say.
#[derive(Debug, Args)]
pub struct PinArguments {
    /// "latest", an id, or the beginning of one; without one, show what is pinned
    #[arg(requires = "reason")]
    snapshot: Option<String>,
    /// Why it must stay
    #[arg(long, value_name = "TEXT", requires = "snapshot")]
    reason: Option<String>,
    /// Only for so long, for example 90d
    #[arg(long = "for", value_name = "SPAN", value_parser = settings::seconds, requires = "snapshot")]
    span: Option<u64>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What the rules may let go again.
#[derive(Debug, Args)]
pub struct UnpinArguments {
    /// "latest", an id, or the beginning of one
    #[arg(required_unless_present = "damaged")]
    snapshot: Option<String>,
    /// Take off the pins that are damaged: which snapshots they kept, nobody can tell
    #[arg(long, conflicts_with = "snapshot")]
    damaged: bool,
    #[command(flatten)]
    repo: RepoArguments,
}

/// A snapshot in the trash, for programs.
#[derive(Serialize)]
struct TrashRow {
    snapshot: SnapshotId,
    started_at: Instant,
    discarded_at: Instant,
}

/// A pin, for programs.
#[derive(Serialize)]
struct PinRow<'a> {
    #[serde(flatten)]
    pin: &'a Pin,
    has_expired: bool,
}

#[derive(Serialize)]
struct Back<'a> {
    undeleted: &'a [SnapshotId],
}

#[derive(Serialize)]
struct Unpinned {
    snapshot: SnapshotId,
    pins: u64,
}

pub(super) fn undelete(
    arguments: &UndeleteArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let list = domain
        .trash_list()
        .map_err(|error| repository_problem("cannot read the trash", &error))?;
    for error in &list.unreadable {
        screen.complain(&repository_problem("cannot read a snapshot", error));
    }
    let trash = list.trashed;
    if arguments.snapshots.is_empty() {
        let row = |trashed: &ops::Trashed| TrashRow {
            snapshot: trashed.snapshot.id,
            started_at: trashed.snapshot.body.started_at,
            discarded_at: trashed.at,
        };
        let rows: Vec<_> = trash.iter().map(row).collect();
        show_trash(&rows, screen)?;
        let is_whole = list.unreadable.is_empty();
        return Ok(if is_whole { Exit::Done } else { Exit::Partial });
    }
    let mut back = Vec::new();
    for word in &arguments.snapshots {
        let ids = trash.iter().map(|trashed| trashed.snapshot.id);
        let found: Vec<_> = ids
            .filter(|id| id.to_string().starts_with(word.as_str()))
            .collect();
        match found.as_slice() {
            [id] => back.push(*id),
            found => {
                let word = model::escape(word.as_bytes());
                let what = match found.len() {
                    0 => format!("no snapshot {word:?} is in the trash; none was brought back"),
                    count => format!("{count} snapshots in the trash begin with {word:?}"),
                };
                return Err(Problem::new(Exit::Failed, what).hint("backstayctl repo undelete"));
            }
        }
    }
    for id in &back {
        domain
            .undelete(*id, &SystemClock, &SystemEntropy)
            .map_err(|error| repository_problem("cannot bring a snapshot back", &error))?;
    }
    if screen.is_json() {
        screen.json(&Back { undeleted: &back })?;
    } else {
        for id in &back {
            screen.line(&[toned("back      ", Tone::Good), plain(id)])?;
        }
    }
    Ok(Exit::Done)
}

fn show_trash(rows: &[TrashRow], screen: &mut Screen) -> Result<(), Problem> {
    if screen.is_json() {
        screen.json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        screen.line(&[plain("The trash is empty.")])?;
        return Ok(());
    }
    let mut table = Table::new(&["snapshot", "taken", "let go"]);
    for row in rows {
        table.row(vec![
            plain(row.snapshot),
            plain(local(row.started_at)),
            plain(local(row.discarded_at)),
        ]);
    }
    screen.table(&table)?;
    Ok(())
}

pub(super) fn pin(arguments: &PinArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let (Some(word), Some(reason)) = (&arguments.snapshot, &arguments.reason) else {
        return show_pins(&pins(&domain)?, screen);
    };
    let at = now();
    let span = |secs| i64::try_from(secs).unwrap_or(i64::MAX);
    let pin = Pin {
        snapshot: reach::snapshot(&domain, word)?.id,
        at,
        reason: reason.clone(),
        until: arguments.span.map(|secs| at.plus_secs(span(secs))),
    };
    domain
        .pin(pin.clone(), &SystemEntropy)
        .map_err(|error| repository_problem("cannot pin the snapshot", &error))?;
    show_pins(&[pin], screen)
}

pub(super) fn unpin(arguments: &UnpinArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let Some(word) = arguments.snapshot.as_ref().filter(|_| !arguments.damaged) else {
        return wreck::unpin(&arguments.repo, screen);
    };
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let id = reach::snapshot(&domain, word)?.id;
    let count = domain
        .unpin(id)
        .map_err(|error| repository_problem("cannot take a pin off", &error))?;
    if screen.is_json() {
        let snapshot = id;
        screen.json(&Unpinned {
            snapshot,
            pins: count,
        })?;
    } else {
        let count = counted(usize::try_from(count).unwrap_or(usize::MAX), "pin");
        screen.line(&[plain(format!("{count} taken off {id}."))])?;
    }
    Ok(Exit::Done)
}

fn pins(domain: &Domain) -> Result<Vec<Pin>, Problem> {
    domain
        .pins()
        .map_err(|error| repository_problem("cannot read the pins", &error))
}

fn show_pins(pins: &[Pin], screen: &mut Screen) -> Result<Exit, Problem> {
    let now = now();
    if screen.is_json() {
        let row = |pin| PinRow {
            pin,
            has_expired: !Pin::holds(pin, now),
        };
        let rows: Vec<_> = pins.iter().map(row).collect();
        screen.json(&rows)?;
        return Ok(Exit::Done);
    }
    if pins.is_empty() {
        screen.line(&[plain("Nothing is pinned.")])?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["snapshot", "pinned", "until", "reason"]);
    for pin in pins {
        let until = pin.until.map_or_else(|| "for ever".to_owned(), local);
        table.row(vec![
            plain(pin.snapshot),
            plain(local(pin.at)),
            if pin.holds(now) {
                plain(until)
            } else {
                toned(until, Tone::Warning)
            },
            plain(model::escape(pin.reason.as_bytes())),
        ]);
    }
    screen.table(&table)?;
    Ok(Exit::Done)
}

/// Refuses to let go by name what is pinned.
pub(super) fn check_pins(domain: &Domain, going: &[SnapshotId]) -> Result<(), Problem> {
    let at = now();
    let held = pins(domain)?
        .into_iter()
        .find(|pin| pin.holds(at) && going.contains(&pin.snapshot));
    held.map_or(Ok(()), |pin| {
        let reason = model::escape(pin.reason.as_bytes());
        let what = format!("{} is pinned; nothing was let go", pin.snapshot);
        Err(Problem::new(Exit::Failed, what)
            .cause(format!("the reason given is: {reason}"))
            .hint(format!("backstayctl repo unpin {} …", pin.snapshot)))
    })
}
