//! What agent and controller tell each other: watch, results, progress, report.
//!
//! Unknown fields are ignored on reading, so that fields can be added; meanings never change.

use model::{
    CommandId, DestinationName, Instant, RunId, RunRecord, ScheduleName, Scope, SnapshotId,
};
use serde::{Deserialize, Serialize};

use crate::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, Envelope, GenerationHash};

/// The answer to `GET /agent/v1/watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The protocol version of the controller.
    pub protocol: u32,
    /// The latest generation, when its number is higher than the one the agent has seen.
    pub generation: Option<Envelope>,
    /// Commands that the agent has not reported yet.
    pub commands: Vec<Envelope>,
    /// The last row that the controller has of the agent's outbox stream; rows after it are
    /// missing there. Zero when it has never seen the stream.
    pub last_seq: i64,
    /// How long the next watch may take, in seconds.
    pub wait_secs: u32,
}

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its number in the stream; rising, not always by one.
    pub seq: i64,
    /// The run.
    pub record: RunRecord,
}

/// The body of `POST /agent/v1/results`: rows in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Which ledger the numbers count in: chosen at random when a ledger is made.
    pub stream: String,
    /// The last number that the controller said it has. The agent holds no row between it and the
    /// first row of the batch; a controller that has another last number takes nothing and says so.
    pub after: i64,
    /// The rows, by rising number.
    pub rows: Vec<Row>,
}

impl Batch {
    /// Takes as many of the rows as one batch holds, at least one.
    ///
    /// A row too long for a batch of its own loses lines from the middle of its log, with a line
    /// that says how many.
    #[must_use]
    pub fn fill(
        stream: String,
        after: i64,
        rows: impl IntoIterator<Item = (i64, RunRecord)>,
    ) -> Self {
        // Room for the stream name and the brackets.
        let mut room = BATCH_BYTES_MAX.saturating_sub(1024);
        let mut taken = Vec::new();
        for (seq, record) in rows.into_iter().take(BATCH_ROWS_MAX) {
            let row = Row { seq, record };
            let mut size = size_of_json(&row);
            if size > room && !taken.is_empty() {
                break;
            }
            let row = if size > room { shorten(row, room) } else { row };
            size = size.min(room);
            room = room.saturating_sub(size.saturating_add(1));
            taken.push(row);
        }
        Self {
            stream,
            after,
            rows: taken,
        }
    }
}

fn size_of_json<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |text| text.len())
}

/// Removes log lines from the middle until the row fits; then texts that are still too long.
fn shorten(mut row: Row, room: usize) -> Row {
    let log = std::mem::take(&mut row.record.log);
    let spare = room.saturating_sub(size_of_json(&row).saturating_add(100));
    let mut head = Vec::new();
    let mut tail = std::collections::VecDeque::new();
    let (mut first, mut last) = (0, log.len());
    let mut used = 0_usize;
    // Lines from both ends in turn, while they fit.
    while let Some(line) = if head.len() <= tail.len() {
        log.get(first)
    } else {
        log.get(last.saturating_sub(1))
    } {
        used = used.saturating_add(size_of_json(line)).saturating_add(1);
        if first >= last || used > spare {
            break;
        }
        if head.len() <= tail.len() {
            head.push(line.clone());
            first += 1;
        } else {
            tail.push_front(line.clone());
            last -= 1;
        }
    }
    if last > first {
        head.push(format!(
            "… {} lines are kept on the server only …",
            last - first
        ));
    }
    head.extend(tail);
    row.record.log = head;
    if size_of_json(&row) > room {
        for text in row
            .record
            .copies
            .iter_mut()
            .filter_map(|c| c.error.as_mut())
        {
            cut(text);
        }
        cut(&mut row.record.summary);
    }
    row
}

fn cut(text: &mut String) {
    const KEPT_MAX: usize = 512;
    if text.len() > KEPT_MAX {
        let end = (0..=KEPT_MAX)
            .rev()
            .find(|&end| text.is_char_boundary(end))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

/// The answer to `POST /agent/v1/results`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultsAnswer {
    /// Every row up to this number is on the controller's disk. Lower than what was acknowledged
    /// before when the controller was restored from an older backup: send again from here.
    pub acknowledged: i64,
}

/// How a task under way stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The run, or the command's id for a restore or listing.
    pub id: String,
    /// `run`, `restore` or `list`.
    pub kind: String,
    /// Which schedule.
    pub schedule: ScheduleName,
    /// What it does now: one word.
    pub phase: String,
    /// Entries done.
    pub entries: u64,
    /// Bytes of content done.
    pub bytes: u64,
    /// Bytes expected in all; none when not known.
    pub bytes_expected: Option<u64>,
    /// When it began.
    pub started_at: Instant,
}

/// The body of `POST /agent/v1/progress`: everything under way; what is not named has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProgressReport {
    /// The tasks.
    pub tasks: Vec<Progress>,
}

/// Who wrote a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The controller, in a generation.
    Controller,
    /// People, in files on the server.
    Server,
}

/// The body of `POST /agent/v1/report`: how the server is. A part that is absent did not change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What the server says about itself.
    pub host: Option<crate::Host>,
    /// Which generation is in force.
    pub generation: Option<GenerationReport>,
    /// Where systemd differs from what was applied.
    pub drift: Option<Vec<DriftReport>>,
    /// The schedules in force.
    pub schedules: Option<Vec<ScheduleReport>>,
    /// The destinations that the server knows.
    pub destinations: Option<Vec<DestinationReport>>,
    /// The hosting accounts on the server.
    pub accounts: Option<Vec<String>>,
    /// Snapshots of schedules whose listing was refreshed.
    #[serde(default)]
    pub snapshots: Vec<SnapshotReport>,
    /// What became of commands.
    #[serde(default)]
    pub commands: Vec<CommandReport>,
}

/// Which generation is in force, and what came of the newest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GenerationReport {
    /// The number in force; none when no generation was applied.
    pub applied: Option<u64>,
    /// Its hash.
    pub hash: Option<GenerationHash>,
    /// The number that was refused, when the newest was.
    pub refused: Option<u64>,
    /// The word for the refusal.
    pub code: Option<String>,
    /// The sentence for people.
    pub error: Option<String>,
}

/// One difference between what was applied and what systemd has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftReport {
    /// The unit or file.
    pub unit: String,
    /// What kind of difference: one word.
    pub kind: String,
    /// The sentence for people.
    pub detail: String,
    /// When it was noticed.
    pub noticed_at: Instant,
}

/// One schedule in force on the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleReport {
    /// Its name.
    pub name: ScheduleName,
    /// Who wrote it.
    pub origin: Origin,
    /// Whether its timer is armed.
    pub enabled: bool,
    /// What it backs up.
    pub scope: Scope,
    /// Its TOML text, as in force.
    pub toml: String,
    /// When its timer elapses next.
    pub next_run_at: Option<Instant>,
}

/// One destination that the server knows. No credential, no key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationReport {
    /// Its name.
    pub name: DestinationName,
    /// `local` or `s3`.
    pub kind: String,
    /// Where, for people.
    pub place: String,
}

/// What a listing of one schedule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Which schedule.
    pub schedule: ScheduleName,
    /// Which snapshot.
    pub id: SnapshotId,
    /// When its run began.
    pub taken_at: Instant,
    /// Where it is.
    pub destinations: Vec<DestinationName>,
    /// Bytes of its content.
    pub total_bytes: u64,
    /// `complete` or `partial`.
    pub status: String,
}

/// How a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// The agent has it and will obey.
    Accepted,
    /// It is obeyed now.
    Running,
    /// Done.
    Done,
    /// Tried, and failed.
    Failed,
    /// Came too late, or waited too long.
    Expired,
    /// Not obeyed: not for this agent, not understood, or not allowed here.
    Refused,
}

impl CommandState {
    /// True when nothing more will happen.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::Running)
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReport {
    /// Which command.
    pub id: CommandId,
    /// How it stands.
    pub state: CommandState,
    /// The sentence for people.
    pub detail: Option<String>,
    /// The run that it started.
    pub run: Option<RunId>,
    /// For a finished listing: which schedule's snapshots this report holds, all of them.
    pub listed: Option<ScheduleName>,
}

/// The part of an RFC 9457 problem that agents read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The word for programs.
    pub code: String,
    /// The sentence for people.
    #[serde(default)]
    pub detail: String,
    /// With code `stale_boot`: the boot number that the controller has; take a higher one.
    #[serde(default)]
    pub boot: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{RunCounts, RunState, Trigger};

    fn record(log: Vec<String>) -> RunRecord {
        RunRecord {
            id: RunId::from_bytes([1; 16]),
            schedule: ScheduleName::new("nightly").unwrap(),
            scope: Scope::Full,
            trigger: Trigger::Timer,
            due_at: None,
            started_at: Instant::from_secs(1_700_000_000),
            finished_at: None,
            state: RunState::Ok,
            summary: "done".into(),
            counts: RunCounts::default(),
            copies: Vec::new(),
            log,
        }
    }

    #[test]
    fn the_wire_form_stays() {
        let batch = Batch::fill("s".into(), 3, [(4, record(vec!["one".into()]))]);
        insta::assert_snapshot!(serde_json::to_string_pretty(&batch).unwrap());
        let report = Report {
            commands: vec![CommandReport {
                id: CommandId::from_bytes([2; 16]),
                state: CommandState::Done,
                detail: None,
                run: None,
                listed: None,
            }],
            ..Report::default()
        };
        insta::assert_snapshot!(serde_json::to_string(&report).unwrap());
    }

    #[test]
    fn batches_hold_their_bounds() {
        let many = Batch::fill(
            "s".into(),
            1,
            (1..=600).map(|seq| (seq, record(Vec::new()))),
        );
        assert!(many.rows.len() > 100 && many.rows.len() <= BATCH_ROWS_MAX);
        assert!(size_of_json(&many) <= BATCH_BYTES_MAX);
        let wide = vec!["x".repeat(1000); 100];
        let long = Batch::fill(
            "s".into(),
            1,
            (1..=10).map(|seq| (seq, record(wide.clone()))),
        );
        assert_eq!(long.rows.len(), 2);
        assert!(size_of_json(&long) <= BATCH_BYTES_MAX);
    }

    #[test]
    fn a_row_longer_than_a_batch_keeps_both_ends_of_its_log() {
        let log: Vec<String> = (0..2000)
            .map(|n| format!("{n} {}", "y".repeat(1000)))
            .collect();
        let batch = Batch::fill("s".into(), 0, [(1, record(log))]);
        let kept = &batch.rows[0].record.log;
        assert!(size_of_json(&batch) <= BATCH_BYTES_MAX);
        assert!(kept.first().unwrap().starts_with("0 "));
        assert!(kept.last().unwrap().starts_with("1999 "));
        assert!(
            kept.iter()
                .any(|line| line.ends_with("lines are kept on the server only …"))
        );
    }

    #[test]
    fn a_row_of_monstrous_texts_still_fits() {
        let mut monster = record(vec!["z".repeat(BATCH_BYTES_MAX)]);
        monster.summary = "ä".repeat(BATCH_BYTES_MAX);
        let batch = Batch::fill("s".into(), 0, [(1, monster)]);
        assert_eq!(batch.rows.len(), 1);
        assert!(size_of_json(&batch) <= BATCH_BYTES_MAX);
    }
}
