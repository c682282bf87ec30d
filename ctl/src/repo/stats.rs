//! `repo stats`: how much is stored, and whose it is.

use clap::Args;
use model::{ByteCount, Exit, Instant, SnapshotId};
use ops::{Amount, PartStatistics, SnapshotStatistics, Statistics};
use serde::Serialize;

use super::{open_for_reading, path_argument};
use crate::problem::Problem;
use crate::reach::{RepoArguments, repository_problem};
use crate::screen::{Screen, Table, plain};
use crate::time::local;
use crate::watch::Watch;

/// Of what.
#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Tell what lies below this path; accounts if not given
    #[arg(value_name = "PATH")]
    path: Option<std::ffi::OsString>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// How much there is, for programs.
#[derive(Serialize)]
struct Report {
    logical_bytes: ByteCount,
    deduplicated_bytes: ByteCount,
    stored_bytes: ByteCount,
    /// Logical to stored bytes; null when nothing is stored.
    ratio: Option<f64>,
    needed: AmountRow,
    trashed: AmountRow,
    unneeded: AmountRow,
    snapshots: Vec<SnapshotRow>,
    parts: Vec<PartRow>,
    shared: AmountRow,
    elsewhere: AmountRow,
}

#[derive(Serialize)]
struct AmountRow {
    chunks: u64,
    data_bytes: ByteCount,
    metadata_bytes: ByteCount,
    stored_bytes: ByteCount,
}

#[derive(Serialize)]
struct SnapshotRow {
    id: SnapshotId,
    taken_at: Instant,
    entries: u64,
    size_bytes: ByteCount,
    added: AmountRow,
    unique: AmountRow,
}

#[derive(Serialize)]
struct PartRow {
    name: String,
    entries: u64,
    size_bytes: ByteCount,
    unique: AmountRow,
}

pub(super) fn stats(arguments: &StatsArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let below = path_argument(arguments.path.as_ref())?;
    let view = open_for_reading(&arguments.repo)?;
    let watch = Watch::new("stats");
    let found = view.statistics(&below, &watch);
    drop(watch);
    let found = found.map_err(|error| {
        repository_problem("cannot count what is stored", &error).hint("backstayctl repo verify")
    })?;
    if screen.is_json() {
        screen.json(&report(&found))?;
    } else {
        show(&found, screen)?;
    }
    Ok(Exit::Done)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(found: &Statistics) -> Option<f64> {
    let stored = found.stored_bytes.get();
    let ratio = found.logical_bytes.get() as f64 / stored.max(1) as f64;
    (stored > 0).then_some((ratio * 100.0).round() / 100.0)
}

/// Gives the bytes of all needed chunks: content, and the pages in which short content lies.
fn deduplicated(found: &Statistics) -> ByteCount {
    found.needed.data_bytes + found.needed.metadata_bytes
}

const fn amount(of: &Amount) -> AmountRow {
    AmountRow {
        chunks: of.chunks,
        data_bytes: of.data_bytes,
        metadata_bytes: of.metadata_bytes,
        stored_bytes: of.stored_bytes,
    }
}

fn report(found: &Statistics) -> Report {
    let snapshot = |one: &SnapshotStatistics| SnapshotRow {
        id: one.id,
        taken_at: one.taken_at,
        entries: one.size.entries,
        size_bytes: one.size.bytes,
        added: amount(&one.added),
        unique: amount(&one.unique),
    };
    let part = |one: &PartStatistics| PartRow {
        name: model::escape(&one.name),
        entries: one.newest.entries,
        size_bytes: one.newest.bytes,
        unique: amount(&one.unique),
    };
    Report {
        logical_bytes: found.logical_bytes,
        deduplicated_bytes: deduplicated(found),
        stored_bytes: found.stored_bytes,
        ratio: ratio(found),
        needed: amount(&found.needed),
        trashed: amount(&found.trashed),
        unneeded: amount(&found.unneeded),
        snapshots: found.snapshots.iter().map(snapshot).collect(),
        parts: found.parts.iter().map(part).collect(),
        shared: amount(&found.shared),
        elsewhere: amount(&found.elsewhere),
    }
}

fn show(found: &Statistics, screen: &mut Screen) -> Result<(), Problem> {
    let mut text = format!(
        "{} in {} snapshots; {} without what repeats; {} stored",
        found.logical_bytes,
        found.snapshots.len(),
        deduplicated(found),
        found.stored_bytes
    );
    if let Some(ratio) = ratio(found) {
        text = format!("{text}, 1 to {ratio}");
    }
    screen.line(&[plain(format!("{text}."))])?;
    if found.trashed.chunks > 0 {
        let text = format!(
            "{} of it only snapshots in the trash hold.",
            found.trashed.stored_bytes
        );
        screen.line(&[plain(text)])?;
    }
    if found.unneeded.chunks > 0 {
        let text = format!(
            "{} of it no snapshot needs any more.",
            found.unneeded.stored_bytes
        );
        screen.line(&[plain(text)])?;
    }
    show_snapshots(&found.snapshots, screen)?;
    show_parts(found, screen)
}

fn show_snapshots(snapshots: &[SnapshotStatistics], screen: &mut Screen) -> Result<(), Problem> {
    if snapshots.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        "snapshot",
        "taken",
        ">entries",
        ">size",
        ">new in it",
        ">only in it",
    ]);
    for one in snapshots {
        table.row(vec![
            plain(one.id),
            plain(local(one.taken_at)),
            plain(one.size.entries),
            plain(one.size.bytes),
            plain(one.added.stored_bytes),
            plain(one.unique.stored_bytes),
        ]);
    }
    screen.line(&[])?;
    screen.table(&table)?;
    Ok(())
}

fn show_parts(found: &Statistics, screen: &mut Screen) -> Result<(), Problem> {
    if found.parts.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        "name",
        ">entries now",
        ">size now",
        ">content only here",
        ">stored",
    ]);
    for one in &found.parts {
        table.row(vec![
            plain(model::escape(&one.name)),
            plain(one.newest.entries),
            plain(one.newest.bytes),
            plain(one.unique.data_bytes),
            plain(one.unique.stored_bytes),
        ]);
    }
    for (name, amount) in [
        ("(in several)", &found.shared),
        ("(elsewhere, too)", &found.elsewhere),
    ] {
        if amount.chunks > 0 {
            table.row(vec![
                plain(name),
                plain("-"),
                plain("-"),
                plain(amount.data_bytes),
                plain(amount.stored_bytes),
            ]);
        }
    }
    screen.line(&[])?;
    screen.table(&table)?;
    Ok(())
}
