//! Occurrences: what was due, and what became of it.
//!
//! systemd tells a job that it starts, not what was due: an elapse while the job runs leaves no
//! trace, and several missed ones become one start. So each start settles the account from the
//! schedule's calendar: every occurrence since the last settlement gets exactly one record.

use std::collections::BTreeSet;

use model::{Instant, RunCounts, RunId, RunRecord, RunState, ScheduleName, Scope, Trigger};
use rusqlite::{OptionalExtension as _, params};

use crate::{Absence, Ledger, LedgerError, Witness};

/// What a start finds due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// The newest occurrence: the start answers it.
    pub answered: Option<Instant>,
    /// Records for the older ones.
    pub settled: Vec<RunRecord>,
}

/// One settlement: a schedule, what was due, and what ran.
pub struct Account<'a> {
    /// Which schedule.
    pub schedule: &'a ScheduleName,
    /// What it backs up.
    pub scope: Scope,
    /// The occurrences since the last settlement, rising, all in the past.
    pub occurrences: &'a [Instant],
    /// Older occurrences than these, which are too many for a row each.
    pub surplus: Option<Surplus>,
    /// The runs that touch that time.
    pub runs: &'a [RunRecord],
    /// When the server was on.
    pub witness: &'a Witness,
    /// When the schedule was removed or its calendar changed, if it was.
    pub ended_at: Option<Instant>,
    /// Makes a record id from an occurrence, so that settling twice gives the same record.
    pub id: &'a dyn Fn(Instant) -> RunId,
}

/// Occurrences that share one row, because they are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surplus {
    /// How many.
    pub count: usize,
    /// The oldest.
    pub first: Instant,
    /// The newest.
    pub last: Instant,
}

/// A start may come this long after it was due: the largest spread.
const SPREAD_SECS_MAX: i64 = 1800;

/// Decides what became of the occurrences: the newest is answered by the run that starts now when
/// `starting`; one that fell into an earlier run was skipped; any other was missed.
#[must_use]
pub fn settle(account: &Account<'_>, now: Instant, starting: bool) -> Due {
    let Account {
        occurrences, runs, ..
    } = account;
    let mut rest = *occurrences;
    let mut answered = None;
    let taken: BTreeSet<Instant> = runs.iter().filter_map(|run| run.due_at).collect();
    if starting && let Some((newest, older)) = occurrences.split_last() {
        // After the clock went back it may have been answered already.
        answered = Some(*newest).filter(|at| !taken.contains(at));
        rest = older;
    }
    // A run that could not read its calendar does not know which occurrence it answers: the newest
    // at its start.
    let answered_unknowingly = |at: Instant, next: Option<&Instant>| {
        runs.iter().any(|run| {
            let by_timer = run.trigger == Trigger::Timer && run.due_at.is_none();
            by_timer && at <= run.started_at && next.is_none_or(|next| run.started_at < *next)
        })
    };
    let nexts = (1..).map(|after| occurrences.get(after));
    let surplus = account.surplus.map(|surplus| {
        let Surplus { count, first, last } = surplus;
        let summary = format!(
            "missed: {count} occurrences from {first} to {last}; only the {} newest ones have a \
             row each",
            occurrences.len()
        );
        account.row(last, RunState::Missed, summary, now)
    });
    let settled = rest
        .iter()
        .zip(nexts)
        .filter(|(at, next)| !taken.contains(at) && !answered_unknowingly(**at, *next))
        .map(|(at, _)| match runs.iter().find(|run| covers(run, *at)) {
            Some(run) => {
                let since = run.started_at;
                let summary = format!("skipped: the run started at {since} was still going");
                account.row(*at, RunState::Skipped, summary, now)
            }
            None => account.row(*at, RunState::Missed, account.reason(*at), now),
        });
    Due {
        answered,
        settled: surplus.into_iter().chain(settled).collect(),
    }
}

impl Account<'_> {
    fn row(&self, at: Instant, state: RunState, summary: String, now: Instant) -> RunRecord {
        RunRecord {
            id: (self.id)(at),
            schedule: self.schedule.clone(),
            scope: self.scope,
            trigger: Trigger::Timer,
            due_at: Some(at),
            started_at: now,
            finished_at: Some(now),
            state,
            summary,
            counts: RunCounts::default(),
            copies: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Says why nothing answered an occurrence, as far as that is known.
    fn reason(&self, at: Instant) -> String {
        let absence = self.witness.absence(at);
        let was_on = matches!(absence, Absence::NotArmed | Absence::Unknown);
        let ended = self
            .ended_at
            .filter(|ended| was_on && *ended <= at.plus_secs(SPREAD_SECS_MAX));
        if let Some(ended) = ended {
            return format!(
                "missed: the schedule was changed or removed at {ended}, before its start"
            );
        }
        match absence {
            Absence::Off => "missed: the server was off".to_owned(),
            Absence::ClockMoved => "missed: the server's clock was moved over it".to_owned(),
            Absence::NotArmed => {
                "missed: the server was on, but no run began: the timer was stopped, masked \
                 or disabled, or systemd could not start the job"
                    .to_owned()
            }
            Absence::BeforeLedger(begun) => format!(
                "missed: nothing is known of it; the ledger of this server began at {begun}"
            ),
            Absence::Unknown => "missed: the server was off, or the timer was not armed".to_owned(),
        }
    }
}

fn covers(run: &RunRecord, at: Instant) -> bool {
    let ran = !matches!(run.state, RunState::Missed | RunState::Skipped);
    ran && run.started_at <= at && run.finished_at.is_none_or(|end| at <= end)
}

impl Ledger {
    /// Begins to keep account of a schedule, or begins anew when its calendar has changed. What was
    /// due before `now` under the former calendar is not looked at any more.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn track_schedule(
        &mut self,
        schedule: &ScheduleName,
        calendar: &str,
        now: Instant,
    ) -> Result<(), LedgerError> {
        self.write("tracking a schedule", |transaction| {
            transaction
                .execute(
                    "INSERT INTO schedule (name, calendar, accounted_until) VALUES (?1, ?2, ?3)
                     ON CONFLICT (name) DO UPDATE
                     SET calendar = excluded.calendar, accounted_until = excluded.accounted_until
                     WHERE calendar <> excluded.calendar",
                    params![schedule.as_str(), calendar, now.micros()],
                )
                .map(drop)
        })
    }

    /// Stops keeping account of a schedule that was removed or disabled.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn untrack_schedule(&mut self, schedule: &ScheduleName) -> Result<(), LedgerError> {
        self.write("untracking a schedule", |transaction| {
            transaction
                .execute("DELETE FROM schedule WHERE name = ?1", [schedule.as_str()])
                .map(drop)
        })
    }

    /// Puts the account of a schedule back to an earlier instant: the clock was ahead.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn restart_account(
        &mut self,
        schedule: &ScheduleName,
        at: Instant,
    ) -> Result<(), LedgerError> {
        self.write("putting an account back", |transaction| {
            transaction
                .execute(
                    "UPDATE schedule SET accounted_until = ?2 WHERE name = ?1",
                    params![schedule.as_str(), at.micros()],
                )
                .map(drop)
        })
    }

    /// Gives the instant up to which every occurrence has its record, under this calendar.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read.
    pub fn accounted_until(
        &self,
        schedule: &ScheduleName,
        calendar: &str,
    ) -> Result<Option<Instant>, LedgerError> {
        self.connection
            .query_row(
                "SELECT accounted_until FROM schedule WHERE name = ?1 AND calendar = ?2",
                [schedule.as_str(), calendar],
                |row| row.get(0).map(Instant::from_micros),
            )
            .optional()
            .map_err(LedgerError::statement("reading what was due"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, finished};

    fn at(secs: i64) -> Instant {
        Instant::from_secs(secs)
    }

    fn settled(due: &Due) -> Vec<(Instant, RunState)> {
        due.settled
            .iter()
            .map(|record| (record.due_at.unwrap(), record.state))
            .collect()
    }

    fn settle_at(occurrences: &[Instant], runs: &[RunRecord], starting: bool) -> Due {
        let name = ScheduleName::new("nightly").unwrap();
        let id =
            |at: Instant| RunId::from_bytes(u128::from(at.micros().unsigned_abs()).to_be_bytes());
        let account = Account {
            schedule: &name,
            scope: Scope::Full,
            occurrences,
            surplus: None,
            runs,
            witness: &Witness::default(),
            ended_at: None,
            id: &id,
        };
        settle(&account, at(10_000), starting)
    }

    #[test]
    fn a_server_that_was_off_answers_one_and_missed_the_others() {
        let due = settle_at(&[at(100), at(200)], &[], true);
        assert_eq!(due.answered, Some(at(200)));
        assert_eq!(settled(&due), [(at(100), RunState::Missed)]);
    }

    #[test]
    fn what_fell_into_a_run_was_skipped() {
        let mut run = finished(1, 90);
        run.finished_at = Some(at(250));
        let due = settle_at(&[at(100), at(200), at(300)], &[run], true);
        assert_eq!(due.answered, Some(at(300)));
        assert_eq!(
            settled(&due),
            [(at(100), RunState::Skipped), (at(200), RunState::Skipped)]
        );
    }

    #[test]
    fn an_answered_occurrence_is_not_settled_again() {
        let mut run = finished(1, 101);
        run.due_at = Some(at(100));
        let due = settle_at(&[at(100), at(200)], &[run], false);
        assert_eq!(due.answered, None);
        assert_eq!(settled(&due), [(at(200), RunState::Missed)]);
    }

    #[test]
    fn what_a_run_without_a_calendar_answered_was_not_missed() {
        let mut run = finished(1, 205);
        run.state = RunState::Failed;
        let due = settle_at(&[at(100), at(200), at(300), at(400)], &[run], true);
        assert_eq!(due.answered, Some(at(400)));
        assert_eq!(
            settled(&due),
            [(at(100), RunState::Missed), (at(300), RunState::Missed)]
        );
    }

    #[test]
    fn a_changed_calendar_begins_a_new_account() {
        let mut fixture = Fixture::new();
        let name = ScheduleName::new("nightly").unwrap();
        let ledger = &mut fixture.ledger;
        ledger.track_schedule(&name, "daily", at(100)).unwrap();
        ledger.track_schedule(&name, "daily", at(200)).unwrap();
        assert_eq!(
            ledger.accounted_until(&name, "daily").unwrap(),
            Some(at(100))
        );
        ledger.track_schedule(&name, "hourly", at(300)).unwrap();
        assert_eq!(ledger.accounted_until(&name, "daily").unwrap(), None);
        assert_eq!(
            ledger.accounted_until(&name, "hourly").unwrap(),
            Some(at(300))
        );
        ledger.add_finished(&name, &[], at(400)).unwrap();
        assert_eq!(
            ledger.accounted_until(&name, "hourly").unwrap(),
            Some(at(400))
        );
    }
}
