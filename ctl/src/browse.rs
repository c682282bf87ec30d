//! `snapshots` and `ls`: which snapshots there are, and what is in one.

use clap::Args;
use edge::{Entry, EntryKind, TreePath};
use model::{ByteCount, DestinationName, Exit, Instant, RunId, ScheduleName, SnapshotId};
use ops::{Domain, Snapshot, SnapshotStatus, View};
use serde::Serialize;

use crate::problem::Problem;
use crate::reach::{self, PlaceArguments, Reached, repository_problem};
use crate::screen::{Screen, Table, Tone, plain, toned};
use crate::server::Server;
use crate::time::local;

/// Whose snapshots.
#[derive(Debug, Args)]
#[command(
    override_usage = "backstayctl snapshots SCHEDULE [--from DESTINATION]\n       \
                            backstayctl snapshots --repo PLACE --key-file FILE"
)]
pub struct SnapshotsArguments {
    /// Which schedule of this server
    #[arg(required_unless_present = "repo", conflicts_with = "repo")]
    schedule: Option<ScheduleName>,
    /// Only those at this destination
    #[arg(long, value_name = "DESTINATION", conflicts_with = "repo")]
    from: Option<DestinationName>,
    #[command(flatten)]
    place: PlaceArguments,
}

/// What to list.
#[derive(Debug, Args)]
#[command(override_usage = "backstayctl ls SCHEDULE SNAPSHOT [PATH]\n       \
                            backstayctl ls --repo PLACE --key-file FILE SNAPSHOT [PATH]")]
pub struct LsArguments {
    /// Schedule, snapshot ("latest", its id, or the beginning of it) and path; no schedule with --repo
    #[arg(num_args = 0..=3, value_name = "WORD")]
    words: Vec<std::ffi::OsString>,
    /// List everything below the path
    #[arg(long, short)]
    recursive: bool,
    /// Read it from this destination
    #[arg(long, value_name = "DESTINATION", conflicts_with = "repo")]
    from: Option<DestinationName>,
    #[command(flatten)]
    place: PlaceArguments,
}

/// One snapshot, for programs.
#[derive(Serialize)]
struct SnapshotRow {
    id: SnapshotId,
    destination: Option<DestinationName>,
    schedule: String,
    host: String,
    taken_at: Instant,
    run: Option<RunId>,
    is_complete: bool,
    entries: u64,
    size_bytes: ByteCount,
    accounts: Vec<String>,
    paths: Vec<String>,
}

/// Shows the snapshots of a schedule at each of its destinations.
///
/// # Errors
///
/// When none of the destinations can be read.
pub fn snapshots(
    server: &Server,
    arguments: &SnapshotsArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let reached = match &arguments.schedule {
        Some(schedule) => reach::of_schedule(server, schedule, arguments.from.as_ref())?,
        None => vec![Reached {
            destination: None,
            domain: arguments.place.open(),
        }],
    };
    show_reached(reached, screen)
}

/// Shows the snapshots at each place.
///
/// # Errors
///
/// When none of them can be read.
pub fn show_reached(reached: Vec<Reached>, screen: &mut Screen) -> Result<Exit, Problem> {
    let mut rows = Vec::new();
    let mut problems = Vec::new();
    for one in reached {
        let found = one.domain.and_then(|domain| listed(&domain, &mut problems));
        match found {
            Ok(found) => rows.extend(found.iter().map(|s| row(one.destination.as_ref(), s))),
            Err(problem) => problems.push(match &one.destination {
                Some(name) => problem.at(&format!("destination {name}")),
                None => problem,
            }),
        }
    }
    if rows.is_empty()
        && let Some(first) = problems.pop()
    {
        return Err(first);
    }
    show_snapshots(&rows, screen)?;
    for problem in &problems {
        screen.complain(problem);
    }
    Ok(if problems.is_empty() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

/// Lists what can be read; what cannot becomes a problem beside it.
fn listed(domain: &Domain, problems: &mut Vec<Problem>) -> Result<Vec<Snapshot>, Problem> {
    let list = domain
        .snapshots()
        .map_err(|error| repository_problem("cannot list the snapshots", &error))?;
    let lost = list.unreadable.iter();
    problems.extend(lost.map(|error| repository_problem("cannot read a snapshot", error)));
    Ok(list.snapshots)
}

fn row(destination: Option<&DestinationName>, snapshot: &Snapshot) -> SnapshotRow {
    let body = &snapshot.body;
    SnapshotRow {
        id: snapshot.id,
        destination: destination.cloned(),
        schedule: body.schedule.clone(),
        host: body.host.clone(),
        taken_at: body.started_at,
        run: body.run,
        is_complete: body.status == SnapshotStatus::Complete,
        entries: body.entries,
        size_bytes: body.bytes,
        accounts: body.accounts.clone(),
        paths: body.paths().iter().map(ToString::to_string).collect(),
    }
}

fn show_snapshots(rows: &[SnapshotRow], screen: &mut Screen) -> Result<(), Problem> {
    if screen.is_json() {
        screen.json(&rows)?;
        return Ok(());
    }
    if rows.is_empty() {
        screen.line(&[toned("No snapshots yet.", Tone::Faint)])?;
        return Ok(());
    }
    let mut heads = vec![
        "snapshot",
        "taken",
        "host",
        "schedule",
        ">entries",
        ">size",
        "state",
        "destination",
    ];
    // Only what a person backed up by hand has paths of its own.
    let has_paths = rows.iter().any(|row| !row.paths.is_empty());
    heads.extend(has_paths.then_some("paths"));
    let mut table = Table::new(&heads);
    for row in rows {
        let mut cells = vec![
            plain(row.id),
            plain(local(row.taken_at)),
            plain(model::escape(row.host.as_bytes())),
            plain(model::escape(row.schedule.as_bytes())),
            plain(row.entries),
            plain(row.size_bytes),
            if row.is_complete {
                toned("complete", Tone::Good)
            } else {
                toned("partial", Tone::Warning)
            },
            plain(
                row.destination
                    .as_ref()
                    .map_or("-".to_owned(), ToString::to_string),
            ),
        ];
        cells.extend(has_paths.then(|| plain(row.paths.join(" "))));
        table.row(cells);
    }
    screen.table(&table)?;
    Ok(())
}

/// A snapshot opened for reading.
pub struct Opened {
    /// Its domain with the index.
    pub view: View,
    /// Which one.
    pub snapshot: Snapshot,
    /// From which destination of this server, when it is one.
    pub destination: Option<DestinationName>,
}

/// Opens the snapshot at the first destination that has it.
///
/// # Errors
///
/// When none has it: the problem of the last one that was tried.
pub fn open(reached: Vec<Reached>, word: &str) -> Result<Opened, Problem> {
    let mut last = None;
    for one in reached {
        let name = one.destination;
        let opened = one.domain.and_then(|domain| {
            let snapshot = reach::snapshot(&domain, word)?;
            let view = View::open(domain)
                .map_err(|error| repository_problem("cannot load the index", &error))?;
            Ok((view, snapshot))
        });
        match opened {
            Ok((view, snapshot)) => {
                return Ok(Opened {
                    view,
                    snapshot,
                    destination: name,
                });
            }
            Err(problem) => {
                last = Some(match &name {
                    Some(name) => problem.at(&format!("destination {name}")),
                    None => problem,
                });
            }
        }
    }
    Err(last.unwrap_or_else(|| Problem::new(Exit::Failed, "the schedule has no destination")))
}

/// Shows what is in a snapshot.
///
/// # Errors
///
/// When the snapshot cannot be opened or holds no such path.
pub fn ls(server: &Server, arguments: &LsArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let mut words = arguments.words.iter();
    let reached = if arguments.place.is_given() {
        vec![Reached {
            destination: None,
            domain: Ok(arguments.place.open()?),
        }]
    } else {
        let name = schedule_name(words.next())?;
        reach::of_schedule(server, &name, arguments.from.as_ref())?
    };
    let word = words
        .next()
        .map_or("latest".into(), |word| word.to_string_lossy());
    let path = tree_path(
        words
            .next()
            .map_or(&b""[..], |path| path.as_encoded_bytes()),
    )?;
    let opened = open(reached, &word)?;
    show_directory(&opened, &path, arguments.recursive, screen)
}

/// Shows a directory of a snapshot, or one entry that is none.
///
/// # Errors
///
/// When the snapshot holds no such path or cannot be read.
pub fn show_directory(
    opened: &Opened,
    path: &TreePath,
    recursive: bool,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let entries = entries(opened, path, recursive)?;
    show_entries(&entries, path, screen)?;
    Ok(Exit::Done)
}

/// Reads the name of a schedule.
///
/// # Errors
///
/// When it is missing or not a name.
pub fn schedule_name(word: Option<&std::ffi::OsString>) -> Result<ScheduleName, Problem> {
    let text = word.map(|word| model::escape(word.as_encoded_bytes()));
    ScheduleName::new(text.unwrap_or_default()).map_err(|error| {
        Problem::new(Exit::Usage, "which schedule?")
            .because(&error)
            .hint("backstayctl schedule list")
    })
}

/// Reads a path inside a snapshot.
///
/// # Errors
///
/// When it holds `.` or `..`.
pub fn tree_path(bytes: &[u8]) -> Result<TreePath, Problem> {
    TreePath::parse(bytes)
        .map_err(|error| Problem::new(Exit::Usage, "cannot use the path").because(&error))
}

fn entries(opened: &Opened, path: &TreePath, recursive: bool) -> Result<Vec<Entry>, Problem> {
    let (view, snapshot) = (&opened.view, &opened.snapshot);
    let failed = |error: ops::RepositoryError| {
        repository_problem(
            &format!("cannot list {path} of snapshot {}", snapshot.id),
            &error,
        )
    };
    let root = path.name().is_none();
    let own = if root {
        None
    } else {
        Some(view.entry(snapshot, path).map_err(failed)?.ok_or_else(|| {
            Problem::new(
                Exit::Failed,
                format!("snapshot {} holds no {path}", snapshot.id),
            )
            .hint("list the directory above it; names are shown as they must be typed")
        })?)
    };
    match own {
        Some(entry) if entry.kind != EntryKind::Directory => Ok(vec![entry]),
        _ if recursive => {
            let mut all = Vec::new();
            view.walk(snapshot, path, &mut |entry| all.push(entry))
                .map_err(failed)?;
            Ok(all)
        }
        _ => ops::list(view, snapshot, path).map_err(failed),
    }
}

/// One entry, for programs.
#[derive(Serialize)]
pub struct EntryRow {
    path: String,
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    size_bytes: u64,
    modified_at: Instant,
    target: Option<String>,
}

fn show_entries(entries: &[Entry], below: &TreePath, screen: &mut Screen) -> Result<(), Problem> {
    if screen.is_json() {
        let rows: Vec<EntryRow> = entries.iter().map(entry_row).collect();
        screen.json(&rows)?;
        return Ok(());
    }
    let mut table = Table::new(&["mode", "owner", ">size", "modified", "name"]);
    for entry in entries {
        let row = entry_row(entry);
        let mut name = shown_name(entry, below);
        if let Some(target) = &row.target {
            name = format!("{name} -> {target}");
        }
        if entry.kind == EntryKind::Directory {
            name.push('/');
        }
        table.row(vec![
            plain(row.mode),
            plain(format!("{}:{}", row.user, row.group)),
            plain(ByteCount::new(row.size_bytes)),
            plain(local(row.modified_at)),
            plain(name),
        ]);
    }
    if !table.is_empty() {
        screen.table(&table)?;
    }
    Ok(())
}

/// Gives the path of an entry below the directory that is listed.
fn shown_name(entry: &Entry, below: &TreePath) -> String {
    let depth = below.depth().min(entry.path.depth().saturating_sub(1));
    entry
        .path
        .components()
        .skip(depth)
        .map(model::escape)
        .collect::<Vec<_>>()
        .join("/")
}

/// Shows an entry to programs.
pub fn entry_row(entry: &Entry) -> EntryRow {
    let (kind, letter) = match entry.kind {
        EntryKind::Directory => ("directory", 'd'),
        EntryKind::File => ("file", '-'),
        EntryKind::Stream => ("stream", '-'),
        EntryKind::Symlink { .. } => ("symlink", 'l'),
        EntryKind::Fifo => ("fifo", 'p'),
        EntryKind::CharDevice { .. } => ("char_device", 'c'),
        EntryKind::BlockDevice { .. } => ("block_device", 'b'),
    };
    let owner = &entry.owner;
    let named = |name: &[u8], id: u32| {
        if name.is_empty() {
            id.to_string()
        } else {
            model::escape(name)
        }
    };
    EntryRow {
        path: entry.path.to_string(),
        kind,
        mode: format!("{letter}{}", permissions(entry.mode)),
        uid: owner.uid,
        gid: owner.gid,
        user: named(&owner.user, owner.uid),
        group: named(&owner.group, owner.gid),
        size_bytes: entry.size_bytes,
        modified_at: Instant::from_secs(entry.modified.secs),
        target: match &entry.kind {
            EntryKind::Symlink { target } => Some(model::escape(target)),
            _ => None,
        },
    }
}

/// Shows permission bits as `ls` does: `rwxr-x--t`.
fn permissions(mode: u32) -> String {
    const SPECIAL: [(u32, char, char); 3] =
        [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (place, (special, with, without)) in [6u32, 3, 0].into_iter().zip(SPECIAL) {
        let bits = mode >> place;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_shown_as_ls_does() {
        assert_eq!(permissions(0o755), "rwxr-xr-x");
        assert_eq!(permissions(0o4750), "rwsr-x---");
        assert_eq!(permissions(0o1776), "rwxrwxrwT");
        assert_eq!(permissions(0o2644), "rw-r-Sr--");
    }
}
