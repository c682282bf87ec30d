//! `repo forget` and `repo prune`: letting snapshots go, and deleting what nothing needs then.

use clap::Args;
use model::{ByteCount, Exit, SnapshotId};
use ops::{Candidate, Domain, Keep, PruneOptions, PruneReport, Repack, SnapshotStatus};
use serde::Serialize;

use super::{SystemClock, SystemEntropy, open_for_writing};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, counted, plain, toned};
use crate::time::now;
use crate::watch::Watch;

/// Which snapshots to let go.
#[derive(Debug, Args)]
pub struct ForgetArguments {
    /// These: ids, or beginnings of ids
    #[arg(value_name = "SNAPSHOT", conflicts_with = "rules")]
    snapshots: Vec<String>,
    #[command(flatten)]
    rules: KeepArguments,
    /// Only say which would go
    #[arg(long)]
    dry_run: bool,
    /// Delete what nothing needs then, as 'repo prune' does
    #[arg(long, conflicts_with = "dry_run")]
    prune: bool,
    #[command(flatten)]
    sweep: SweepArguments,
    #[command(flatten)]
    repo: RepoArguments,
}

/// Rules; a snapshot is kept when any of them keeps it.
#[derive(Debug, Args)]
#[group(id = "rules", multiple = true)]
struct KeepArguments {
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_last: u32,
    /// Keep the newest of each of N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_hourly: u32,
    /// Keep the newest of each of N days that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_daily: u32,
    /// Keep the newest of each of N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_weekly: u32,
    /// Keep the newest of each of N months that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_monthly: u32,
    /// Keep the newest of each of N years that have one
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_yearly: u32,
    /// Keep all that are younger, for example 30d
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "0s", hide_default_value = true)]
    keep_within: u64,
    /// Keep at least the newest N, whatever the limits say
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_min: u32,
    /// Keep what is younger, whatever the limits say
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "0s", hide_default_value = true)]
    keep_min_age: u64,
    /// Keep at most the newest N of what is kept otherwise
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    keep_max: u32,
    /// Keep nothing that is older
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "0s", hide_default_value = true)]
    keep_max_age: u64,
}

/// How to delete what nothing needs.
#[derive(Debug, Args)]
struct SweepArguments {
    /// How long unneeded packs stay for restores that began before; with 0s they go at once
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "1d")]
    grace: u64,
    /// Do it although the clock or the newest snapshots look wrong
    #[arg(long)]
    force: bool,
    /// Also rewrite packs of which only a part is needed, while more than 10 % of all is waste
    #[arg(long)]
    repack: bool,
    /// Rewrite packs only while more than this share of all is waste
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = 10,
        requires = "repack"
    )]
    repack_over: u8,
    /// Begin to rewrite no pack after this long
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, requires = "repack")]
    repack_for: Option<u64>,
}

/// What to delete.
#[derive(Debug, Args)]
pub struct PruneArguments {
    #[command(flatten)]
    sweep: SweepArguments,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What went, for programs.
#[derive(Serialize)]
struct Went {
    forgotten: Vec<SnapshotId>,
    kept: usize,
    is_dry_run: bool,
    pruned: Option<Pruned>,
}

#[derive(Serialize)]
struct Pruned {
    condemned_packs: u64,
    deleted_packs: u64,
    freed_bytes: ByteCount,
    emptied_packs: u64,
    moved_bytes: ByteCount,
    unreadable_packs: u64,
    is_cut_short: bool,
    waste_bytes: ByteCount,
}

pub(super) fn forget(arguments: &ForgetArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let rules = rules(&arguments.rules);
    if arguments.snapshots.is_empty() && rules.keeps_all() {
        return Err(Problem::new(Exit::Usage, "which snapshots?")
            .cause("without a rule all are kept")
            .hint("backstayctl repo forget --keep-daily 14 --keep-monthly 6 …")
            .hint("backstayctl repo forget SNAPSHOT …"));
    }
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let (gone, kept) = choose(&domain, &arguments.snapshots, &rules)?;
    if !arguments.dry_run {
        ask_caution(&domain, arguments.sweep.force)?;
    }
    let mut pruned = None;
    if !arguments.dry_run {
        domain
            .forget(&gone)
            .map_err(|error| repository_problem("cannot let snapshots go", &error))?;
        if arguments.prune {
            pruned = Some(prune_domain(&domain, &arguments.sweep)?);
        }
    }
    if screen.is_json() {
        screen.json(&Went {
            forgotten: gone,
            kept,
            is_dry_run: arguments.dry_run,
            pruned: pruned.map(pruned_row),
        })?;
        return Ok(Exit::Done);
    }
    let word = if arguments.dry_run {
        "would go  "
    } else {
        "let go    "
    };
    for id in &gone {
        screen.line(&[toned(word, Tone::Warning), plain(id)])?;
    }
    screen.line(&[plain(format!(
        "{} {}; {kept} kept.",
        counted(gone.len(), "snapshot"),
        if arguments.dry_run {
            "would go"
        } else {
            "let go"
        }
    ))])?;
    if let Some(report) = pruned {
        show_pruned(&report, screen)?;
    }
    Ok(Exit::Done)
}

pub(super) fn prune(arguments: &PruneArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    ask_caution(&domain, arguments.sweep.force)?;
    let report = prune_domain(&domain, &arguments.sweep)?;
    if screen.is_json() {
        screen.json(&pruned_row(report))?;
    } else {
        show_pruned(&report, screen)?;
    }
    Ok(Exit::Done)
}

/// Refuses while the clock or the newest snapshots look wrong, unless it is forced.
fn ask_caution(domain: &Domain, is_forced: bool) -> Result<(), Problem> {
    if is_forced {
        return Ok(());
    }
    let refusal = domain.refusal(now(), ops::built_at());
    match refusal.map_err(|error| repository_problem("cannot read a snapshot", &error))? {
        None => Ok(()),
        Some(refusal) => Err(Problem::new(
            Exit::Failed,
            "nothing was let go or deleted, all is as it was",
        )
        .because(&refusal)
        .hint("backstayctl repo snapshots")
        .hint("the same with --force, when you know that this is right")),
    }
}

/// Gives the snapshots that go, and how many stay.
fn choose(
    domain: &Domain,
    words: &[String],
    rules: &Keep,
) -> Result<(Vec<SnapshotId>, usize), Problem> {
    let list = domain
        .snapshots()
        .map_err(|error| repository_problem("cannot list the snapshots", &error))?;
    if let Some(error) = list.unreadable.first() {
        let problem = repository_problem("cannot read a snapshot; none was let go", error);
        return Err(problem.hint("backstayctl repo verify"));
    }
    let gone = if words.is_empty() {
        let candidate = |snapshot: &ops::Snapshot| Candidate {
            id: snapshot.id,
            at: snapshot.body.started_at,
            is_complete: snapshot.body.status == SnapshotStatus::Complete,
            is_pinned: false,
        };
        let candidates: Vec<_> = list.snapshots.iter().map(candidate).collect();
        ops::plan_retention(&candidates, rules, now()).gone
    } else {
        let mut gone = Vec::new();
        for word in words {
            gone.push(reach::snapshot(domain, word)?.id);
        }
        gone.sort_unstable();
        gone.dedup();
        gone
    };
    let kept = list.snapshots.len().saturating_sub(gone.len());
    Ok((gone, kept))
}

fn rules(arguments: &KeepArguments) -> Keep {
    Keep {
        last: arguments.keep_last,
        hourly: arguments.keep_hourly,
        daily: arguments.keep_daily,
        weekly: arguments.keep_weekly,
        monthly: arguments.keep_monthly,
        yearly: arguments.keep_yearly,
        within_secs: arguments.keep_within,
        min: arguments.keep_min,
        min_age_secs: arguments.keep_min_age,
        max: arguments.keep_max,
        max_age_secs: arguments.keep_max_age,
    }
}

fn prune_domain(domain: &Domain, sweep: &SweepArguments) -> Result<PruneReport, Problem> {
    let watch = Watch::new("prune");
    let options = PruneOptions {
        grace_secs: seconds(sweep.grace),
        repack: sweep.repack.then(|| Repack {
            waste_percent: sweep.repack_over,
            secs_max: sweep.repack_for.map_or(u32::MAX, seconds),
            ..Repack::default()
        }),
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor: &watch,
    };
    domain.prune(&options).map_err(|error| {
        repository_problem("cannot delete what nothing needs", &error)
            .hint("backstayctl repo verify")
    })
}

fn seconds(span: u64) -> u32 {
    u32::try_from(span).unwrap_or(u32::MAX)
}

fn pruned_row(report: PruneReport) -> Pruned {
    Pruned {
        condemned_packs: report.condemned_packs,
        deleted_packs: report.deleted_packs,
        freed_bytes: report.freed_bytes,
        emptied_packs: report.emptied_packs,
        moved_bytes: report.moved_bytes,
        unreadable_packs: report.unreadable_packs,
        is_cut_short: report.is_cut_short,
        waste_bytes: report.waste_bytes,
    }
}

fn show_pruned(report: &PruneReport, screen: &mut Screen) -> Result<(), Problem> {
    let count = |packs: u64| counted(usize::try_from(packs).unwrap_or(usize::MAX), "pack");
    let waiting = report.condemned_packs;
    let mut text = format!(
        "{} freed by deleting {}",
        report.freed_bytes,
        count(report.deleted_packs)
    );
    if waiting > 0 {
        text = format!("{text}; {} to be deleted after the grace", count(waiting));
    }
    screen.line(&[plain(format!("{text}."))])?;
    if report.emptied_packs > 0 {
        let (packs, bytes) = (count(report.emptied_packs), report.moved_bytes);
        screen.line(&[plain(format!("{packs} rewritten as {bytes}."))])?;
    }
    if report.unreadable_packs > 0 {
        let packs = count(report.unreadable_packs);
        let text = format!("{packs} could not be read and stay: backstayctl repo verify");
        screen.line(&[toned("damaged   ", Tone::Bad), plain(text)])?;
    }
    Ok(())
}
