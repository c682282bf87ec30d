//! `repo verify`: is everything there that snapshots need, and is it undamaged?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use edge::{Clock, ObjectStore};
use model::{ByteCount, Exit};
use ops::{CheckDepth, CheckReport, CheckShare, NameReport, StorePlace, View};
use serde::Serialize;

use super::{FAILURES_SHOWN_MAX, SystemClock, open_for_writing};
use crate::problem::Problem;
use crate::reach::{RepoArguments, open_problem, repository_problem};
use crate::screen::{Screen, Tone, plain, toned};
use crate::watch::Watch;

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Look at snapshots, trees and indexes, and that all packs are there, but read no data
    #[arg(long)]
    structure: bool,
    /// Compare what is stored with its names, without any key: finds what a disk damaged, and not
    /// what is missing
    #[arg(long, conflicts_with_all = ["structure", "key_file", "password_file", "no_encryption"])]
    no_key: bool,
    /// Read only this share of the data, such as 10%: what was read the longest ago
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "structure")]
    share: Option<u8>,
    /// Begin to read no more data after this time, such as 30m
    #[arg(long, value_name = "TIME", value_parser = settings::seconds, conflicts_with = "structure")]
    time_budget: Option<u64>,
    /// Fetch what is damaged or missing from a copy of these backups at another place, verify it
    /// and store it again
    #[arg(long, value_name = "PLACE")]
    heal_from: Option<String>,
    /// The file with the access keys of that place
    #[arg(long, value_name = "FILE", requires = "heal_from")]
    heal_access_key_file: Option<PathBuf>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// What was found without a key, for programs.
#[derive(Serialize)]
struct FoundByName {
    is_sound: bool,
    objects: u64,
    ignored: u64,
    read_bytes: ByteCount,
    damaged: u64,
    damage: Vec<Damaged>,
}

fn percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("write a share from 1% to 100%".to_owned()),
    }
}

/// What was found, for programs.
#[derive(Serialize)]
struct Found {
    is_sound: bool,
    snapshots: u64,
    packs: u64,
    read_bytes: ByteCount,
    damaged: u64,
    damage: Vec<Damaged>,
    affected: u64,
    affected_files: Vec<Affected>,
}

#[derive(Serialize)]
struct Damaged {
    object: String,
    error: String,
}

#[derive(Serialize)]
struct Affected {
    snapshot: String,
    path: String,
}

pub(super) fn verify(arguments: &VerifyArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let failed = |error: ops::RepositoryError| repository_problem("cannot verify", &error);
    if arguments.no_key {
        let place = arguments.repo.place()?;
        let store = ops::open_place(&place).map_err(|error| open_problem(&error.into()))?;
        let watch = Watch::new("verify");
        let report = ops::check_names(&*store, &watch).map_err(failed)?;
        drop(watch);
        return show_names(report, screen);
    }
    let view = View::open(arguments.repo.open()?).map_err(failed)?;
    let mut report = check(arguments, &view).map_err(failed)?;
    let mut told = Vec::new();
    if let Some(place) = arguments.heal_from.as_ref().filter(|_| report.damaged > 0) {
        let keys = arguments.heal_access_key_file.as_ref();
        let other = arguments.repo.elsewhere(place, keys).open()?;
        let (domain, _lock) = open_for_writing(&arguments.repo)?;
        let watch = Watch::new("heal");
        let healed = domain.heal_from(&other, &report, &watch);
        drop(watch);
        let healed =
            healed.map_err(|error| repository_problem("cannot store what was damaged", &error))?;
        told.push(format!(
            "{} objects were had back from {}, {} stored.",
            healed.healed,
            other.place(),
            healed.stored_bytes
        ));
        let lost = healed.failed.iter().take(FAILURES_SHOWN_MAX);
        told.extend(lost.map(|(object, why)| format!("{object} stays damaged: {why}")));
        let view = View::open(domain).map_err(failed)?;
        report = check(arguments, &view).map_err(failed)?;
    }
    if report.damaged > 0 {
        told.push(match view.domain().note_damage(&report) {
            Ok(0) => "The next backup looks at what is damaged.".to_owned(),
            Ok(_) => "The next backup stores again what of it is still there.".to_owned(),
            Err(error) => format!(
                "The next backup does not know of it: {}",
                ops::chain(&error)
            ),
        });
    }
    let exit = if report.is_sound() {
        Exit::Done
    } else {
        Exit::Damage
    };
    if screen.is_json() {
        screen.json(&found(report))?;
    } else {
        show(&report, screen)?;
        for text in told {
            screen.line(&[plain(text)])?;
        }
    }
    Ok(exit)
}

fn show_names(report: NameReport, screen: &mut Screen) -> Result<Exit, Problem> {
    let (is_sound, exit) = match report.is_sound() {
        true => (true, Exit::Done),
        false => (false, Exit::Damage),
    };
    let (objects, read, damaged) = (report.objects, report.read_bytes, report.damaged);
    if screen.is_json() {
        screen.json(&FoundByName {
            is_sound,
            objects,
            ignored: report.ignored,
            read_bytes: read,
            damaged,
            damage: damage(report.damage),
        })?;
        return Ok(exit);
    }
    show_damage(&report.damage, screen)?;
    let text = format!("{objects} objects, {read} read");
    screen.line(&[if is_sound {
        toned(
            format!("Everything is what its name says: {text}."),
            Tone::Good,
        )
    } else {
        toned(
            format!("{damaged} objects are damaged: {text}."),
            Tone::Warning,
        )
    }])?;
    Ok(exit)
}

fn damage(found: Vec<ops::Damage>) -> Vec<Damaged> {
    let shown = |one: ops::Damage| Damaged {
        object: one.object,
        error: one.error,
    };
    found.into_iter().map(shown).collect()
}

fn show_damage(damage: &[ops::Damage], screen: &mut Screen) -> Result<(), Problem> {
    for one in damage.iter().take(FAILURES_SHOWN_MAX) {
        screen.line(&[
            toned("damaged   ", Tone::Bad),
            plain(format!("{}: {}", one.object, one.error)),
        ])?;
    }
    Ok(())
}

/// Checks as much as was asked for.
fn check(arguments: &VerifyArguments, view: &View) -> Result<CheckReport, ops::RepositoryError> {
    let watch = Watch::new("verify");
    if arguments.share.is_none() && arguments.time_budget.is_none() {
        let depth = if arguments.structure {
            CheckDepth::Structure
        } else {
            CheckDepth::Data
        };
        return view.check(depth, &watch);
    }
    let record = record(view);
    let budget = arguments
        .time_budget
        .map(|secs| i64::try_from(secs).unwrap_or(i64::MAX / 2));
    let share = CheckShare {
        percent: arguments.share.unwrap_or(100),
        until: budget.map(|secs| SystemClock.now().plus_secs(secs)),
        record: record.as_deref(),
        clock: &SystemClock,
    };
    view.check_share(&share, &watch)
}

/// Opens the record of what was verified when, in the user's cache. Without one any data may come
/// first.
fn record(view: &View) -> Option<Arc<dyn ObjectStore>> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    let domain = view.domain();
    let place: String = domain
        .place()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(150)
        .collect();
    let directory = cache
        .join("backstay")
        .join(domain.id().to_string())
        .join(place);
    std::fs::create_dir_all(&directory).ok()?;
    ops::open_place(&StorePlace::Local(directory)).ok()
}

fn found(report: CheckReport) -> Found {
    Found {
        is_sound: report.is_sound(),
        snapshots: report.snapshots,
        packs: report.packs,
        read_bytes: report.read_bytes,
        damaged: report.damaged,
        damage: damage(report.damage),
        affected: report.affected,
        affected_files: report
            .affected_files
            .into_iter()
            .map(|one| Affected {
                snapshot: one.snapshot.to_string(),
                path: one.path,
            })
            .collect(),
    }
}

fn show(report: &CheckReport, screen: &mut Screen) -> Result<(), Problem> {
    show_damage(&report.damage, screen)?;
    for one in report.affected_files.iter().take(FAILURES_SHOWN_MAX) {
        screen.line(&[
            toned("affected  ", Tone::Bad),
            plain(format!("{} in snapshot {}", one.path, one.snapshot)),
        ])?;
    }
    let (snapshots, packs, read) = (report.snapshots, report.packs, report.read_bytes);
    let text = format!("{snapshots} snapshots, {packs} packs, {read} read");
    let line = if report.is_sound() {
        toned(format!("Nothing is damaged: {text}."), Tone::Good)
    } else {
        let (damaged, affected) = (report.damaged, report.affected);
        toned(
            format!("{damaged} objects are damaged, {affected} files affected: {text}."),
            Tone::Warning,
        )
    };
    screen.line(&[line])?;
    Ok(())
}
