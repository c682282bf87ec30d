//! `repo forget` and `repo prune`: letting snapshots go, and deleting what nothing needs then.

use clap::Args;
use model::{ByteCount, Exit, Instant, SnapshotId};
use ops::{Domain, Keep, KeptBy, PruneOptions, PruneReport, Repack};
use serde::Serialize;

use super::{SystemClock, SystemEntropy, open_for_writing, trash, wreck};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::{Screen, Tone, counted, plain, toned};
use crate::time::{local, now};
use crate::watch::Watch;

/// Which snapshots to let go.
#[derive(Debug, Args)]
pub struct ForgetArguments {
    /// These: ids, or beginnings of ids
    #[arg(value_name = "SNAPSHOT", conflicts_with = "rules")]
    snapshots: Vec<String>,
    #[command(flatten)]
    rules: KeepArguments,
    /// Apply the rules to all snapshots together, and not to those of each machine and set of paths
    /// alone
    #[arg(long, requires = "rules")]
    together: bool,
    /// Delete for good the snapshots that are damaged, also in the trash
    ///
    /// What a damaged snapshot held may still be had back from a copy at another destination:
    /// 'verify --heal-from'.
    #[arg(long, conflicts_with_all = ["snapshots", "rules", "prune"])]
    damaged: bool,
    /// Only say which would go, what keeps the others, and what that frees
    #[arg(long, visible_alias = "preview")]
    dry_run: bool,
    /// Delete what nothing needs then, as 'repo prune' does
    #[arg(long, conflicts_with = "dry_run")]
    prune: bool,
    #[command(flatten)]
    sweep: SweepArguments,
    #[command(flatten)]
    repo: RepoArguments,
}

/// Rules; a snapshot is kept when any of them keeps it. Each machine and set of paths has its own.
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
    /// How long snapshots that were let go can be had back; with 0s they are gone at once
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, default_value = "7d")]
    trash: u64,
    /// Do it although the clock or the newest snapshots look wrong, or a snapshot is pinned
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
    /// Rewrite about so many bytes; the next time goes on
    #[arg(long, value_name = "SIZE", value_parser = settings::bytes, requires = "repack")]
    repack_bytes: Option<ByteCount>,
}

/// What to delete.
#[derive(Debug, Args)]
pub struct PruneArguments {
    #[command(flatten)]
    sweep: SweepArguments,
    /// Also store anew what older keys encrypted, after 'key new-epoch'; what was copied before stays
    /// readable with them
    #[arg(long)]
    reseal: bool,
    /// Begin to store no pack anew after this long; the next time goes on
    #[arg(long, value_name = "SPAN", value_parser = settings::seconds, requires = "reseal")]
    reseal_for: Option<u64>,
    /// Store about so many bytes anew; the next time goes on
    #[arg(long, value_name = "SIZE", value_parser = settings::bytes, requires = "reseal")]
    reseal_bytes: Option<ByteCount>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What went, for programs.
#[derive(Serialize)]
struct Went {
    forgotten: Vec<SnapshotId>,
    kept: usize,
    kept_by: Vec<Kept>,
    is_dry_run: bool,
    frees: Option<Frees>,
    pruned: Option<Pruned>,
}

#[derive(Serialize)]
struct Kept {
    snapshot: SnapshotId,
    by: Vec<KeptBy>,
}

#[derive(Serialize)]
struct Frees {
    packs: u64,
    bytes: ByteCount,
    partly_bytes: ByteCount,
}

#[derive(Serialize)]
struct Pruned {
    expired_snapshots: u64,
    condemned_packs: u64,
    deleted_packs: u64,
    freed_bytes: ByteCount,
    emptied_packs: u64,
    moved_bytes: ByteCount,
    unreadable_packs: u64,
    is_cut_short: bool,
    waste_bytes: ByteCount,
    others_at_work: u64,
    waits_until: Option<Instant>,
}

pub(super) fn forget(arguments: &ForgetArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    if arguments.damaged {
        return wreck::forget(&arguments.repo, arguments.dry_run, screen);
    }
    let rules = rules(&arguments.rules);
    if arguments.snapshots.is_empty() && rules.keeps_all() {
        return Err(Problem::new(Exit::Usage, "which snapshots?")
            .cause("without a rule all are kept")
            .hint("backstayctl repo forget --keep-daily 14 --keep-monthly 6 …")
            .hint("backstayctl repo forget SNAPSHOT …"));
    }
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    let Choice { gone, kept } = choose(&domain, arguments, &rules)?;
    let mut went = Went {
        forgotten: gone,
        kept: kept.len(),
        kept_by: kept,
        is_dry_run: arguments.dry_run,
        frees: None,
        pruned: None,
    };
    if arguments.dry_run {
        let watch = Watch::new("forget");
        let frees = domain.freed_without(&went.forgotten, &watch);
        let frees =
            frees.map_err(|error| repository_problem("cannot say what it frees", &error))?;
        went.frees = Some(Frees {
            packs: frees.packs,
            bytes: frees.bytes,
            partly_bytes: frees.partly_bytes,
        });
    } else {
        ask_caution(&domain, arguments.sweep.force)?;
        domain
            .discard(&went.forgotten, now())
            .map_err(|error| repository_problem("cannot let snapshots go", &error))?;
        if arguments.prune {
            went.pruned = Some(pruned_row(prune_domain(&domain, &arguments.sweep)?));
        }
    }
    if screen.is_json() {
        screen.json(&went)?;
    } else {
        show_went(&went, screen)?;
    }
    Ok(Exit::Done)
}

fn show_went(went: &Went, screen: &mut Screen) -> Result<(), Problem> {
    let (word, verb) = if went.is_dry_run {
        ("would go  ", "would go")
    } else {
        ("let go    ", "let go")
    };
    for id in &went.forgotten {
        screen.line(&[toned(word, Tone::Warning), plain(id)])?;
    }
    if went.is_dry_run {
        for kept in &went.kept_by {
            let by: Vec<_> = kept.by.iter().map(|by| why(*by)).collect();
            let text = format!("{}  {}", kept.snapshot, by.join(", "));
            screen.line(&[toned("stays     ", Tone::Good), plain(text)])?;
        }
    }
    let count = counted(went.forgotten.len(), "snapshot");
    screen.line(&[plain(format!("{count} {verb}; {} kept.", went.kept))])?;
    if let Some(frees) = &went.frees {
        screen.line(&[plain(format!(
            "That frees {}, and {} more with --repack.",
            frees.bytes, frees.partly_bytes
        ))])?;
    }
    match &went.pruned {
        Some(pruned) => show_pruned(pruned, screen),
        None => Ok(()),
    }
}

/// Says what keeps a snapshot.
const fn why(by: KeptBy) -> &'static str {
    match by {
        KeptBy::Pin => "pinned",
        KeptBy::Newest => "newest complete one",
        KeptBy::Newer => "newer than every complete one",
        KeptBy::Future => "from the future",
        KeptBy::Min => "min",
        KeptBy::MinAge => "min age",
        KeptBy::Last => "last",
        KeptBy::Hourly => "hourly",
        KeptBy::Daily => "daily",
        KeptBy::Weekly => "weekly",
        KeptBy::Monthly => "monthly",
        KeptBy::Yearly => "yearly",
        KeptBy::Within => "within",
        KeptBy::NoRule => "no rule",
    }
}

pub(super) fn prune(arguments: &PruneArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let (domain, _lock) = open_for_writing(&arguments.repo)?;
    ask_caution(&domain, arguments.sweep.force)?;
    if arguments.reseal {
        return reseal(&domain, arguments, screen);
    }
    let report = prune_domain(&domain, &arguments.sweep)?;
    let pruned = pruned_row(report);
    if screen.is_json() {
        screen.json(&pruned)?;
    } else {
        show_pruned(&pruned, screen)?;
    }
    Ok(Exit::Done)
}

/// What was sealed anew, for programs.
#[derive(Serialize)]
struct Resealed {
    epoch: u32,
    snapshots: u64,
    older_packs: u64,
    #[serde(flatten)]
    pruned: Pruned,
}

fn reseal(
    domain: &Domain,
    arguments: &PruneArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let watch = Watch::new("reseal");
    let usual = options(&arguments.sweep, &watch);
    let limits = usual.repack.unwrap_or(Repack {
        waste_percent: 100,
        ..Repack::default()
    });
    let report = domain.reseal(&PruneOptions {
        repack: Some(Repack {
            bytes_max: arguments
                .reseal_bytes
                .map_or(limits.bytes_max, ByteCount::get),
            secs_max: arguments.reseal_for.map_or(limits.secs_max, seconds),
            ..limits
        }),
        ..usual
    });
    drop(watch);
    let report =
        report.map_err(|error| repository_problem("cannot store everything anew", &error))?;
    let row = Resealed {
        epoch: domain.epoch(),
        snapshots: report.snapshots,
        older_packs: report.older_packs,
        pruned: pruned_row(report.pruned),
    };
    if screen.is_json() {
        screen.json(&row)?;
        return Ok(Exit::Done);
    }
    let count = |count: u64, noun| counted(usize::try_from(count).unwrap_or(usize::MAX), noun);
    screen.line(&[plain(format!(
        "{} encrypted with the newest key; {} of older ones left to do.",
        count(row.snapshots, "snapshot"),
        count(row.older_packs, "pack")
    ))])?;
    show_pruned(&row.pruned, screen)?;
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

/// What becomes of each snapshot.
struct Choice {
    gone: Vec<SnapshotId>,
    kept: Vec<Kept>,
}

fn choose(domain: &Domain, arguments: &ForgetArguments, rules: &Keep) -> Result<Choice, Problem> {
    let problem = |error| repository_problem("cannot list the snapshots", &error);
    let list = domain.snapshots().map_err(problem)?;
    if let Some(error) = list.unreadable.first() {
        let problem = repository_problem("cannot read a snapshot; none was let go", error);
        return Err(problem.hint("backstayctl repo verify"));
    }
    let kept = |(snapshot, by)| Kept { snapshot, by };
    if arguments.snapshots.is_empty() {
        let plan = if arguments.together {
            domain.plan_together(rules, now())
        } else {
            domain.plan(rules, now())
        };
        let plan = plan.map_err(problem)?;
        return Ok(Choice {
            gone: plan.gone,
            kept: plan.kept.into_iter().map(kept).collect(),
        });
    }
    let mut gone = Vec::new();
    for word in &arguments.snapshots {
        gone.push(reach::snapshot(domain, word)?.id);
    }
    gone.sort_unstable();
    gone.dedup();
    if !arguments.sweep.force {
        trash::check_pins(domain, &gone)?;
    }
    let ids = list.snapshots.iter().map(|snapshot| snapshot.id);
    let stays = ids.filter(|id| !gone.contains(id));
    Ok(Choice {
        kept: stays.map(|id| kept((id, Vec::new()))).collect(),
        gone,
    })
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
    domain.prune(&options(sweep, &watch)).map_err(|error| {
        repository_problem("cannot delete what nothing needs", &error)
            .hint("backstayctl repo verify")
    })
}

fn options<'a>(sweep: &SweepArguments, watch: &'a Watch) -> PruneOptions<'a> {
    PruneOptions {
        grace_secs: seconds(sweep.grace),
        trash_secs: seconds(sweep.trash),
        strays: true,
        repack: sweep.repack.then(|| Repack {
            waste_percent: sweep.repack_over,
            bytes_max: sweep.repack_bytes.map_or(u64::MAX, ByteCount::get),
            secs_max: sweep.repack_for.map_or(u32::MAX, seconds),
            ..Repack::default()
        }),
        clock: &SystemClock,
        entropy: &SystemEntropy,
        monitor: watch,
    }
}

fn seconds(span: u64) -> u32 {
    u32::try_from(span).unwrap_or(u32::MAX)
}

fn pruned_row(report: PruneReport) -> Pruned {
    Pruned {
        expired_snapshots: report.expired_snapshots,
        condemned_packs: report.condemned_packs,
        deleted_packs: report.deleted_packs,
        freed_bytes: report.freed_bytes,
        emptied_packs: report.emptied_packs,
        moved_bytes: report.moved_bytes,
        unreadable_packs: report.unreadable_packs,
        is_cut_short: report.is_cut_short,
        waste_bytes: report.waste_bytes,
        others_at_work: report.others_at_work,
        waits_until: report.waits_until,
    }
}

fn show_pruned(report: &Pruned, screen: &mut Screen) -> Result<(), Problem> {
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
    if let Some(until) = report.waits_until {
        let others = counted(
            usize::try_from(report.others_at_work).unwrap_or(2),
            "other run",
        );
        screen.line(&[
            toned("waits     ", Tone::Warning),
            plain(format!(
                "{others} may be at work, so nothing was condemned: prune again when all have ended. \
                 What was killed is waited for until {}.",
                local(until)
            )),
        ])?;
    }
    if report.is_cut_short {
        let text = "More is left to rewrite: the same again goes on from here.";
        screen.line(&[plain(text)])?;
    }
    if report.unreadable_packs > 0 {
        let packs = count(report.unreadable_packs);
        let text = format!("{packs} could not be read and stay: backstayctl repo verify");
        screen.line(&[toned("damaged   ", Tone::Bad), plain(text)])?;
    }
    Ok(())
}
