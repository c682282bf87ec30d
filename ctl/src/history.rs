//! `history`: the runs that the ledger holds, and one of them whole.

use clap::Args;
use model::{CopyState, Exit, RunRecord, RunState, ScheduleName};

use ledger::{Ledger, RunFilter};

use crate::problem::Problem;
use crate::screen::{Screen, Table, Text, Tone, plain, toned};
use crate::server::{Server, ledger_problem};
use crate::time::{local, span};

/// The most runs that are searched for the beginning of an id.
const SEARCHED_MAX: u32 = 10_000;

/// The digits of an id that a table shows.
const SHOWN_DIGITS: usize = 8;

/// Which runs to show.
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// Show this run whole, with its log: its id or the beginning of it
    run: Option<String>,
    /// Only runs of this schedule
    #[arg(long, value_name = "NAME")]
    schedule: Option<ScheduleName>,
    /// Only runs that did not end well
    #[arg(long)]
    failed: bool,
    /// At most this many, newest first
    #[arg(long, default_value_t = 30, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

/// Shows runs, or one run whole.
///
/// # Errors
///
/// When the ledger cannot be read, or no single run has the given id.
pub fn history(
    server: &Server,
    arguments: &HistoryArguments,
    screen: &mut Screen,
) -> Result<Exit, Problem> {
    let ledger = server.ledger()?;
    if let Some(id) = &arguments.run {
        let record = find(ledger.as_ref(), id)?;
        return show_run(&record, screen);
    }
    let filter = RunFilter {
        schedule: arguments.schedule.clone(),
        state: None,
        // A filter here reads more than it shows.
        limit: if arguments.failed {
            SEARCHED_MAX
        } else {
            arguments.limit
        },
    };
    let mut records = match &ledger {
        Some(ledger) => ledger.runs(&filter).map_err(|e| ledger_problem(&e))?,
        None => Vec::new(),
    };
    if arguments.failed {
        records.retain(|r| !matches!(r.state, RunState::Ok | RunState::Running));
        records.truncate(usize::try_from(arguments.limit).unwrap_or(usize::MAX));
    }
    let nothing = if arguments.failed || arguments.schedule.is_some() {
        "No such runs."
    } else {
        "Nothing has run yet."
    };
    list(&records, nothing, screen)
}

fn find(ledger: Option<&Ledger>, id: &str) -> Result<RunRecord, Problem> {
    let filter = RunFilter {
        limit: SEARCHED_MAX,
        ..RunFilter::default()
    };
    let mut records = match ledger {
        Some(ledger) => ledger.runs(&filter).map_err(|e| ledger_problem(&e))?,
        None => Vec::new(),
    };
    records.retain(|record| record.id.to_string().starts_with(id));
    match (records.pop(), records.len()) {
        (Some(record), 0) => Ok(record),
        (None, _) => Err(
            Problem::new(Exit::Failed, format!("no run has the id {id:?}"))
                .hint("backstayctl history"),
        ),
        (Some(_), others) => Err(Problem::new(
            Exit::Usage,
            format!("{} runs begin with {id:?}: give more digits", others + 1),
        )
        .hint("backstayctl history --json")),
    }
}

/// Gives the word and tone of a state.
pub fn state_text(state: RunState) -> Text {
    match state {
        RunState::Running => toned("running", Tone::Strong),
        RunState::Ok => toned("ok", Tone::Good),
        RunState::Partial => toned("partial", Tone::Warning),
        RunState::Failed => toned("failed", Tone::Bad),
        RunState::Missed => toned("missed", Tone::Warning),
        RunState::Skipped => toned("skipped", Tone::Warning),
        RunState::Cancelled => toned("cancelled", Tone::Warning),
    }
}

fn list(records: &[RunRecord], nothing: &str, screen: &mut Screen) -> Result<Exit, Problem> {
    if screen.is_json() {
        screen.json(&records)?;
        return Ok(Exit::Done);
    }
    if records.is_empty() {
        screen.line(&[toned(nothing, Tone::Faint)])?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&[
        "run", "started", "schedule", "state", ">took", ">read", ">stored", "summary",
    ]);
    for record in records {
        table.row(vec![
            toned(short(record), Tone::Faint),
            plain(local(record.started_at)),
            plain(&record.schedule),
            state_text(record.state),
            plain(took(record)),
            plain(record.counts.read_bytes),
            plain(stored(record)),
            plain(model::escape(record.summary.as_bytes())),
        ]);
    }
    screen.table(&table)?;
    Ok(Exit::Done)
}

fn short(record: &RunRecord) -> String {
    record.id.to_string().chars().take(SHOWN_DIGITS).collect()
}

fn took(record: &RunRecord) -> String {
    record.finished_at.map_or_else(
        || "-".to_owned(),
        |end| span(end.secs().saturating_sub(record.started_at.secs())),
    )
}

fn stored(record: &RunRecord) -> model::ByteCount {
    record
        .copies
        .iter()
        .fold(model::ByteCount::ZERO, |sum, copy| sum + copy.stored_bytes)
}

/// Shows one run whole.
///
/// # Errors
///
/// When standard output takes no more.
pub fn show_run(record: &RunRecord, screen: &mut Screen) -> Result<Exit, Problem> {
    if screen.is_json() {
        screen.json(record)?;
        return Ok(Exit::Done);
    }
    let mut field =
        |name: &str, value: Text| screen.line(&[toned(format!("{name:<10}"), Tone::Faint), value]);
    let counts = &record.counts;
    field("Run", plain(record.id))?;
    field("Schedule", plain(&record.schedule))?;
    field("State", state_text(record.state))?;
    field("Summary", plain(model::escape(record.summary.as_bytes())))?;
    if let Some(due) = record.due_at {
        field("Due", plain(local(due)))?;
    }
    field("Started", plain(local(record.started_at)))?;
    if let Some(end) = record.finished_at {
        field(
            "Finished",
            plain(format!("{} ({})", local(end), took(record))),
        )?;
    }
    field(
        "Content",
        plain(format!(
            "{} entries ({} unchanged), {} databases, {} in all, {} read, {} failed",
            counts.entries,
            counts.unchanged,
            counts.databases,
            counts.total_bytes,
            counts.read_bytes,
            counts.failed
        )),
    )?;
    show_copies(record, screen)?;
    if !record.log.is_empty() {
        screen.line(&[])?;
    }
    for line in &record.log {
        screen.line(&[plain(model::escape(line.as_bytes()))])?;
    }
    Ok(Exit::Done)
}

fn show_copies(record: &RunRecord, screen: &mut Screen) -> Result<(), Problem> {
    if record.copies.is_empty() {
        return Ok(());
    }
    screen.line(&[])?;
    let mut table = Table::new(&["destination", "state", ">stored", "snapshot", "error"]);
    for copy in &record.copies {
        table.row(vec![
            plain(&copy.destination),
            match copy.state {
                CopyState::Stored => toned("stored", Tone::Good),
                CopyState::Failed => toned("failed", Tone::Bad),
            },
            plain(copy.stored_bytes),
            plain(copy.snapshot.map_or("-".to_owned(), |id| id.to_string())),
            plain(model::escape(
                copy.error.as_deref().unwrap_or_default().as_bytes(),
            )),
        ]);
    }
    screen.table(&table)?;
    Ok(())
}
