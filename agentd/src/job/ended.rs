//! Settles the accounts of schedules that were removed, disabled or given another calendar: what was
//! due until then gets its record, although no start of that schedule will come to ask.

use ledger::{Account, Ledger, LedgerError, Witness, settle};
use model::Instant;
use settings::Calendar;

use super::account::{ledger_id, occurrence_id};
use super::environment::Invocation;
use super::owed::owed;
use crate::configuration::Ended;

/// The note that holds the number of the last account that was settled.
const SETTLED: &str = "ended_account";

/// Notes that the server is on, and gives what was noted so far.
pub(super) fn witness(
    ledger: &mut Ledger,
    invocation: &Invocation,
    now: Instant,
) -> Result<Witness, LedgerError> {
    match invocation.boot() {
        Some(boot) => ledger.witness(&boot, now),
        None => Ok(Witness::default()),
    }
}

/// Settles those of the ended accounts that were not settled yet. To be done before their schedules
/// begin new ones.
pub(super) fn settle_ended(
    ledger: &mut Ledger,
    all: &[Ended],
    witness: &Witness,
    now: Instant,
) -> Result<(), LedgerError> {
    let settled: Option<u64> = ledger.note(SETTLED)?.and_then(|text| text.parse().ok());
    for ended in all {
        if settled.is_some_and(|number| ended.number <= number) {
            continue;
        }
        settle_one(ledger, ended, witness, now)?;
        ledger.set_note(SETTLED, &ended.number.to_string())?;
        // Only now: without this row everything since the account began would be looked at again.
        if ledger
            .accounted_until(&ended.schedule, &ended.when)?
            .is_some()
        {
            ledger.untrack_schedule(&ended.schedule)?;
        }
    }
    Ok(())
}

fn settle_one(
    ledger: &mut Ledger,
    ended: &Ended,
    witness: &Witness,
    now: Instant,
) -> Result<(), LedgerError> {
    let calendar = match Calendar::read_canonical(&ended.when) {
        Ok(calendar) => calendar,
        Err(error) => {
            let Ended { schedule, when, .. } = ended;
            tracing::warn!("what {schedule} owes is not known; its calendar was {when}: {error}");
            return Ok(());
        }
    };
    let accounted = ledger.accounted_until(&ended.schedule, &ended.when)?;
    let since = accounted.unwrap_or_default().max(ended.since);
    let (occurrences, surplus) = owed(&calendar, since, ended.until);
    let runs = ledger.runs_between(&ended.schedule, since, now)?;
    let origin = ledger_id(ledger)?;
    let id = |at| occurrence_id(&origin, &ended.schedule, at);
    let account = Account {
        schedule: &ended.schedule,
        scope: ended.scope,
        occurrences: &occurrences,
        surplus,
        runs: &runs,
        witness,
        ended_at: Some(ended.until),
        id: &id,
    };
    let due = settle(&account, now, false);
    ledger.add_finished(&ended.schedule, &due.settled, ended.until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::{Boot, RunFilter, RunStart};
    use model::{RunId, RunState, ScheduleName, Scope, Trigger};

    /// 2026-01-01T00:00:00Z.
    const START: i64 = 1_767_225_600;

    fn hour(number: i64) -> Instant {
        Instant::from_secs(START + number * 3600)
    }

    fn ended(number: u64, since: i64, until: Instant) -> Ended {
        Ended {
            number,
            schedule: ScheduleName::new("hourly").unwrap(),
            scope: Scope::Web,
            when: "*-*-* *:00:00 UTC".to_owned(),
            since: hour(since),
            until,
        }
    }

    #[test]
    fn what_was_due_before_a_removal_has_its_record() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&directory.path().join("ledger.db")).unwrap();
        let mut first = ended(1, 0, hour(4).plus_secs(600));
        first.since = hour(0).plus_secs(1);
        ledger
            .track_schedule(&first.schedule, &first.when, first.since)
            .unwrap();
        let start = RunStart {
            id: RunId::from_bytes([1; 16]),
            schedule: first.schedule.clone(),
            scope: Scope::Web,
            trigger: Trigger::Timer,
            due_at: Some(hour(1)),
            started_at: hour(1).plus_secs(2),
        };
        ledger.begin_run_settling(&start, &[]).unwrap();
        let mut record = start.record();
        record.state = RunState::Ok;
        record.finished_at = Some(hour(2).plus_secs(30));
        ledger.finish_run(&record).unwrap();
        let boot = Boot {
            id: "a".into(),
            at: hour(-5),
            began_at: hour(-5),
        };
        ledger.witness(&boot, hour(0)).unwrap();
        let witness = ledger.witness(&boot, hour(5)).unwrap();
        let all = [first, ended(2, 6, hour(6).plus_secs(60))];
        for _ in 0..2 {
            settle_ended(&mut ledger, &all, &witness, hour(7)).unwrap();
        }
        let mut runs = ledger.runs(&RunFilter::default()).unwrap();
        runs.sort_by_key(|run| run.due_at);
        let told: Vec<_> = runs
            .iter()
            .map(|run| (run.due_at.unwrap(), run.state, run.summary.as_str()))
            .collect();
        let removed =
            "missed: the schedule was changed or removed at 2026-01-01T04:10:00Z, before its start";
        let stopped = "missed: the server was on, but no run began: ";
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0].1, RunState::Ok);
        assert_eq!((told[1].0, told[1].1), (hour(2), RunState::Skipped));
        assert_eq!((told[2].0, told[2].1), (hour(3), RunState::Missed));
        assert!(told[2].2.starts_with(stopped), "{}", told[2].2);
        assert_eq!(told[3], (hour(4), RunState::Missed, removed));
        let name = &all[0].schedule;
        assert_eq!(ledger.accounted_until(name, &all[0].when).unwrap(), None);
    }
}
