//! Keeping the ledger in order: what dead jobs left open gets its end, what is old goes.

use std::path::Path;
use std::time::Duration;

use ledger::{Ledger, LedgerError};

use super::{DaemonError, Shared, now, wait};

/// How often the ledger is looked through.
pub(super) const TIDY_EVERY: Duration = Duration::from_secs(600);

/// How long ended runs and commands stay on the server. Snapshots are another matter.
const KEPT_SECS: i64 = 90 * 24 * 3600;

/// Who is to hear of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// A controller: runs that it does not have are kept, however old.
    Controller,
    /// No controller was joined.
    Nobody,
}

pub(super) async fn run(shared: &Shared) -> Result<(), DaemonError> {
    loop {
        tidy(
            &mut shared.ledger.borrow_mut(),
            &shared.places.root,
            Audience::Controller,
        );
        wait::pause(TIDY_EVERY).await;
    }
}

/// Does it once. A failure is told and nothing more: next time it is tried again.
pub(super) fn tidy(ledger: &mut Ledger, root: &Path, audience: Audience) {
    crate::job::end_dead_work(ledger);
    crate::job::settle_ended(ledger, root);
    if let Err(error) = forget(ledger, audience) {
        tracing::warn!("{}", crate::log::chain(&error));
    }
}

fn forget(ledger: &mut Ledger, audience: Audience) -> Result<(), LedgerError> {
    ledger.expire_commands(now())?;
    let before = now().plus_secs(-KEPT_SECS);
    match audience {
        Audience::Controller => ledger.forget_runs(before)?,
        Audience::Nobody => ledger.forget_untold_runs(before)?,
    };
    ledger.forget_commands(before)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::tests::fleet::{record, start_of};
    use ledger::RunFilter;
    use model::RunState;

    #[test]
    fn a_run_that_no_later_job_follows_gets_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&directory.path().join("ledger.db")).unwrap();
        drop(ledger.claim_run(&start_of(1).schedule).unwrap());
        ledger.begin_run(&start_of(1)).unwrap();
        tidy(&mut ledger, directory.path(), Audience::Controller);
        let found = ledger.runs(&RunFilter::default()).unwrap();
        assert_eq!(found[0].state, RunState::Failed);
        assert!(found[0].summary.contains("cut off"), "{}", found[0].summary);
        assert_eq!(ledger.outbox_len().unwrap(), 1);
    }

    #[test]
    fn old_runs_are_kept_until_the_controller_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&directory.path().join("ledger.db")).unwrap();
        ledger.begin_run(&start_of(1)).unwrap();
        let mut old = record(1);
        old.finished_at = Some(now().plus_secs(-KEPT_SECS - 10));
        ledger.finish_run(&old).unwrap();
        let count = |ledger: &Ledger| ledger.runs(&RunFilter::default()).unwrap().len();
        tidy(&mut ledger, directory.path(), Audience::Controller);
        assert_eq!(count(&ledger), 1);
        ledger.acknowledge(1, now()).unwrap();
        tidy(&mut ledger, directory.path(), Audience::Controller);
        assert_eq!(count(&ledger), 0);
    }
}
