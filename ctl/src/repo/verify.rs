//! `repo verify`: is everything there that snapshots need, and is it undamaged?

use clap::Args;
use model::{ByteCount, Exit};
use ops::{CheckDepth, CheckReport, NameReport, View};
use serde::Serialize;

use super::FAILURES_SHOWN_MAX;
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
    let depth = if arguments.structure {
        CheckDepth::Structure
    } else {
        CheckDepth::Data
    };
    let watch = Watch::new("verify");
    let report = view.check(depth, &watch).map_err(failed)?;
    drop(watch);
    let exit = if report.is_sound() {
        Exit::Done
    } else {
        Exit::Damage
    };
    if screen.is_json() {
        screen.json(&found(report))?;
    } else {
        show(&report, screen)?;
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
