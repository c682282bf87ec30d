//! Begins a run in the ledger: closes what an earlier one left open, settles what was due.

use ledger::{Account, Ledger, LedgerError, RUN_CUT, RunStart, cut_off, settle};
use model::{Instant, RunId, ScheduleName, Scope, Trigger};
use settings::Calendar;

use super::environment::Invocation;
use super::owed::owed;

/// An occurrence answered this long after it was due was caught up, not on time. Longer than the
/// largest spread (30 minutes) and a slow boot together.
const LATE_SECS: i64 = 3600;

/// What is to run.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) schedule: &'a ScheduleName,
    pub(crate) scope: Scope,
    pub(crate) calendar: &'a Calendar,
    /// Since when its timer is armed, when that is known.
    pub(crate) armed_since: Option<Instant>,
}

/// Writes the run's row, and those of occurrences that nothing answered.
pub(crate) fn begin(
    ledger: &mut Ledger,
    planned: &Planned<'_>,
    invocation: &Invocation,
    now: Instant,
) -> Result<RunStart, LedgerError> {
    close_earlier(ledger, planned.schedule, invocation.id, now)?;
    let witness = super::ended::witness(ledger, invocation, now)?;
    let calendar = planned.calendar.canonical();
    let calendar = calendar.as_str();
    let armed_since = planned.armed_since.unwrap_or(now);
    ledger.track_schedule(planned.schedule, calendar, armed_since)?;
    let mut start = RunStart {
        id: invocation.id,
        schedule: planned.schedule.clone(),
        scope: planned.scope,
        trigger: Trigger::Request,
        due_at: None,
        started_at: now,
    };
    if invocation.timer.is_some() {
        let accounted = ledger.accounted_until(planned.schedule, calendar)?;
        let mut since = accounted.unwrap_or(now);
        if since > now {
            since = before_newest(planned.calendar, now);
            ledger.restart_account(planned.schedule, since)?;
        }
        // A schedule that was disabled for a while owes nothing for that time.
        let armed_since = planned.armed_since.filter(|armed| *armed <= now);
        let since = since.max(armed_since.unwrap_or_default());
        let (occurrences, surplus) = owed(planned.calendar, since, now);
        // After the clock went back, the run that answered it may have begun later than now.
        let until = now.max(accounted.unwrap_or(now));
        let runs = ledger.runs_between(planned.schedule, since, until)?;
        let origin = ledger_id(ledger)?;
        let id = |at| occurrence_id(&origin, planned.schedule, at);
        let Planned {
            schedule, scope, ..
        } = *planned;
        let account = Account {
            schedule,
            scope,
            occurrences: &occurrences,
            surplus,
            runs: &runs,
            witness: &witness,
            ended_at: None,
            id: &id,
        };
        let due = settle(&account, now, true);
        start.due_at = due.answered;
        start.trigger = trigger(due.answered, invocation.booted_at, now);
        ledger.begin_run_settling(&start, &due.settled)?;
    } else {
        ledger.begin_run(&start)?;
    }
    Ok(start)
}

/// Writes the row of a run whose schedule cannot be read: it will fail, and must not do so unseen.
pub(crate) fn begin_unknown(
    ledger: &mut Ledger,
    schedule: &ScheduleName,
    invocation: &Invocation,
    now: Instant,
) -> Result<RunStart, LedgerError> {
    close_earlier(ledger, schedule, invocation.id, now)?;
    let start = RunStart {
        id: invocation.id,
        schedule: schedule.clone(),
        scope: Scope::Full,
        trigger: if invocation.timer.is_some() {
            Trigger::Timer
        } else {
            Trigger::Request
        },
        due_at: None,
        started_at: now,
    };
    ledger.begin_run(&start)?;
    Ok(start)
}

/// Ends what an earlier job of the schedule left open. systemd runs one job of a schedule at a
/// time, so the process of every other run is gone.
fn close_earlier(
    ledger: &mut Ledger,
    schedule: &ScheduleName,
    own: RunId,
    now: Instant,
) -> Result<(), LedgerError> {
    for record in ledger.open_runs(Some(schedule))? {
        if record.id != own {
            ledger.finish_run(&cut_off(record, RUN_CUT, now))?;
        }
    }
    Ok(())
}

/// Gives the instant before the newest occurrence of the last hour, else now. What the account says
/// up to is in the future when the clock was ahead; then this start answers what is due now.
fn before_newest(calendar: &Calendar, now: Instant) -> Instant {
    let (recent, _) = owed(calendar, now.plus_secs(-LATE_SECS), now);
    let newest = recent
        .last()
        .map(|at| Instant::from_micros(at.micros().saturating_sub(1)));
    newest.unwrap_or(now)
}

fn trigger(answered: Option<Instant>, booted_at: Option<Instant>, now: Instant) -> Trigger {
    let Some(due) = answered else {
        return Trigger::Timer;
    };
    let before_boot = booted_at.is_some_and(|booted| due < booted);
    if before_boot || now > due.plus_secs(LATE_SECS) {
        Trigger::CatchUp
    } else {
        Trigger::Timer
    }
}

/// Gives this ledger's own random id, so that two servers never make the same record id.
pub(super) fn ledger_id(ledger: &Ledger) -> Result<String, LedgerError> {
    const KEY: &str = "ledger_id";
    if let Some(found) = ledger.note(KEY)? {
        return Ok(found);
    }
    let mut bytes = [0; 32];
    edge::Entropy::fill(&super::environment::SystemEntropy, &mut bytes);
    ledger.set_note(KEY, &data_encoding::HEXLOWER.encode(&bytes))?;
    Ok(ledger.note(KEY)?.unwrap_or_default())
}

pub(super) fn occurrence_id(origin: &str, schedule: &ScheduleName, at: Instant) -> RunId {
    let mut hasher = blake3::Hasher::new_derive_key("backstay v1 occurrence record id");
    hasher.update(format!("{origin}\n{schedule}\n{}", at.micros()).as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    RunId::from_bytes(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::RunFilter;
    use model::RunState;
    use settings::Zone;

    /// 2026-01-01T00:00:00Z.
    const START: i64 = 1_767_225_600;

    struct Bench {
        ledger: Ledger,
        calendar: Calendar,
        schedule: ScheduleName,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self {
                ledger: Ledger::open(&directory.path().join("ledger.db")).unwrap(),
                calendar: Calendar::parse("*-*-* *:00:00 UTC", &Zone::utc()).unwrap(),
                schedule: ScheduleName::new("hourly").unwrap(),
                _directory: directory,
            }
        }

        fn track(&mut self, secs: i64) {
            let at = Instant::from_secs(START + secs);
            self.ledger
                .track_schedule(&self.schedule, &self.calendar.canonical(), at)
                .unwrap();
        }

        fn begin(&mut self, number: u8, secs: i64, by_timer: bool) -> RunStart {
            let invocation = Invocation {
                id: RunId::from_bytes([number; 16]),
                timer: by_timer.then(|| "backstay-job@hourly.timer".to_owned()),
                booted_at: Some(Instant::from_secs(START)),
                kernel_booted_at: Instant::from_secs(START),
                boot_id: "first".to_owned(),
                credentials: None,
            };
            let planned = Planned {
                schedule: &self.schedule,
                scope: Scope::Web,
                calendar: &self.calendar,
                armed_since: None,
            };
            begin(
                &mut self.ledger,
                &planned,
                &invocation,
                Instant::from_secs(START + secs),
            )
            .unwrap()
        }

        fn finish(&mut self, start: &RunStart, secs: i64) {
            let mut record = self.ledger.run(start.id).unwrap().unwrap();
            record.state = RunState::Ok;
            record.finished_at = Some(Instant::from_secs(START + secs));
            self.ledger.finish_run(&record).unwrap();
        }

        fn states(&self) -> Vec<(Option<i64>, RunState)> {
            let mut runs = self.ledger.runs(&RunFilter::default()).unwrap();
            runs.sort_by_key(|run| run.due_at);
            runs.iter()
                .map(|run| (run.due_at.map(|at| at.secs() - START), run.state))
                .collect()
        }
    }

    #[test]
    fn each_occurrence_has_exactly_one_record() {
        let mut bench = Bench::new();
        bench.track(10);
        let first = bench.begin(1, 3601, true);
        assert_eq!(first.trigger, Trigger::Timer);
        // It takes three hours; two elapses fall into it, systemd starts one run right after.
        bench.finish(&first, 3600 * 4 - 5);
        let second = bench.begin(2, 3600 * 4 + 1, true);
        bench.finish(&second, 3600 * 4 + 20);
        assert_eq!(
            bench.states(),
            [
                (Some(3600), RunState::Ok),
                (Some(7200), RunState::Skipped),
                (Some(10_800), RunState::Skipped),
                (Some(14_400), RunState::Ok),
            ]
        );
    }

    #[test]
    fn a_server_that_was_off_catches_up_once() {
        let mut bench = Bench::new();
        bench.track(-3600 * 3 + 10);
        let run = bench.begin(1, 30, true);
        assert_eq!(run.trigger, Trigger::Timer);
        let mut off = Bench::new();
        off.track(-3600 * 2 - 10);
        let run = off.begin(1, 1800, true);
        off.finish(&run, 1900);
        // 00:00 is the boot itself; 22:00 and 23:00 were missed while the server was off.
        assert_eq!(
            off.states(),
            [
                (Some(-7200), RunState::Missed),
                (Some(-3600), RunState::Missed),
                (Some(0), RunState::Ok)
            ]
        );
        assert_eq!(
            trigger(
                Some(Instant::from_secs(5)),
                Some(Instant::from_secs(6)),
                Instant::from_secs(7)
            ),
            Trigger::CatchUp
        );
    }

    #[test]
    fn a_request_answers_no_occurrence() {
        let mut bench = Bench::new();
        bench.track(10);
        let run = bench.begin(1, 3700, false);
        assert_eq!((run.trigger, run.due_at), (Trigger::Request, None));
        bench.finish(&run, 3800);
        // The timer's own start comes late, after the request's run has ended.
        let late = bench.begin(2, 3801, true);
        assert_eq!(late.due_at, Some(Instant::from_secs(START + 3600)));
    }

    #[test]
    fn a_clock_that_was_ahead_costs_no_record() {
        let day = 24 * 3600;
        let mut bench = Bench::new();
        bench.track(10 * day + 10);
        let ahead = bench.begin(1, 10 * day + 3601, true);
        bench.finish(&ahead, 10 * day + 3700);
        let right = bench.begin(2, 3601, true);
        bench.finish(&right, 3700);
        let next = bench.begin(3, 7201, true);
        bench.finish(&next, 7300);
        // Back by a minute: the occurrence is answered already.
        let again = bench.begin(4, 7200, true);
        bench.finish(&again, 7300);
        assert_eq!(
            bench.states(),
            [
                (None, RunState::Ok),
                (Some(3600), RunState::Ok),
                (Some(7200), RunState::Ok),
                (Some(10 * day + 3600), RunState::Ok)
            ]
        );
    }

    #[test]
    fn a_killed_run_ends_as_failed_when_the_next_one_begins() {
        let mut bench = Bench::new();
        bench.track(10);
        bench.begin(1, 3601, true);
        let second = bench.begin(2, 7201, true);
        bench.finish(&second, 7300);
        assert_eq!(
            bench.states(),
            [(Some(3600), RunState::Failed), (Some(7200), RunState::Ok)]
        );
        assert_eq!(bench.ledger.outbox_len().unwrap(), 2);
    }
}
