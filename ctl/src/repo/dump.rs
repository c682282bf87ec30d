//! `repo dump`: one file to standard output, or a directory as an archive.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use edge::EntryKind;
use model::Exit;
use ops::{ArchiveForm, StreamError, StreamReport};

use super::{FAILURES_SHOWN_MAX, open_for_reading, path_argument};
use crate::problem::Problem;
use crate::reach::{self, RepoArguments, repository_problem};
use crate::screen::Screen;
use crate::watch::Watch;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// What to write.
///
/// Only content goes to standard output; --json shapes what is said of failures.
#[derive(Debug, Args)]
pub struct DumpArguments {
    /// "latest", a snapshot's id, or the beginning of it
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// A file, or with --archive a directory; "/" is the whole snapshot
    #[arg(value_name = "PATH")]
    path: std::ffi::OsString,
    /// Write an archive of it and everything below it
    #[arg(long, value_enum, value_name = "FORM")]
    archive: Option<Form>,
    #[command(flatten)]
    repo: RepoArguments,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// With owners, times, links, devices and extended attributes
    Tar,
    /// For machines without tar; devices and pipes are left out
    Zip,
}

pub(super) fn dump(arguments: &DumpArguments, screen: &mut Screen) -> Result<Exit, Problem> {
    let path = path_argument(Some(&arguments.path))?;
    if arguments.archive.is_some() && io::stdout().is_terminal() {
        let problem = Problem::new(Exit::Usage, "an archive cannot be shown on a terminal");
        return Err(problem.hint("backstayctl repo dump … --archive tar > FILE"));
    }
    let view = open_for_reading(&arguments.repo)?;
    let snapshot = reach::snapshot(view.domain(), &arguments.snapshot)?;
    let failed = |error| repository_problem(&format!("cannot read {path}"), &error);
    if arguments.archive.is_none() {
        let entry = view.entry(&snapshot, &path).map_err(failed)?;
        let is_directory = entry.is_some_and(|entry| entry.kind == EntryKind::Directory);
        if is_directory || path.name().is_none() {
            let problem = Problem::new(Exit::Usage, format!("{path} is a directory"));
            return Err(problem.hint("backstayctl repo dump … --archive tar > FILE"));
        }
    }
    let watch = Watch::new("dump");
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, screen.stream());
    let done = match arguments.archive {
        None => ops::write_file((&view, &snapshot), &path, &mut out, &watch),
        Some(form) => {
            let form = match form {
                Form::Tar => ArchiveForm::Tar,
                Form::Zip => ArchiveForm::Zip,
            };
            ops::write_archive((&view, &snapshot, form), &path, &mut out, &watch)
        }
    };
    let flushed = out.flush();
    drop(out);
    drop(watch);
    let report = done.map_err(|error| problem(&error, arguments.archive.is_some()))?;
    flushed?;
    said(&report, arguments.archive.is_some(), screen)
}

fn problem(error: &StreamError, is_archive: bool) -> Problem {
    let problem = match error {
        StreamError::Repository(error) => repository_problem("cannot write all of it", error),
        error => Problem::new(error.exit(), "cannot write all of it").because(error),
    };
    match error {
        StreamError::Content { .. } if is_archive => {
            problem.hint("'backstayctl repo restore' leaves out what is damaged and goes on")
        }
        _ => problem,
    }
}

/// Tells what is missing, beside the content.
fn said(report: &StreamReport, is_archive: bool, screen: &Screen) -> Result<Exit, Problem> {
    if report.failed == 0 {
        return Ok(Exit::Done);
    }
    let (exit, what) = if is_archive {
        let (missing, written) = (report.failed, report.entries);
        let text = format!("{missing} entries are missing from the archive; it has {written}");
        (Exit::Partial, text)
    } else {
        (Exit::Damage, "the content cannot be read".to_owned())
    };
    let mut problem = Problem::new(exit, what);
    for failure in report.failures.iter().take(FAILURES_SHOWN_MAX) {
        problem = problem.cause(failure);
    }
    if !is_archive {
        return Err(problem);
    }
    screen.complain(&problem);
    Ok(exit)
}
