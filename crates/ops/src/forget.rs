//! Letting snapshots go by a schedule's rules, and deleting what nothing needs any more.

use edge::StoreFault;
use model::{Copy, CopyState, DestinationName, Instant};
use repository::{
    Domain, Keep as Rules, PruneOptions, ReadError, Repack, RepositoryError, Right, chain,
};
use settings::Keep;

use crate::backup::{BackupPlan, RunDestination, open_replica};
use crate::lock::DomainLock;

/// 2026-01-01: what is built where nobody says when.
const BUILT_AFTER_SECS: i64 = 1_767_225_600;
/// How long condemned packs stay for readers that began before.
const GRACE_SECS: u32 = 24 * 3600;

/// How long snapshots that were let go can be had back, unless the space is needed.
const TRASH_SECS: u32 = 3 * 24 * 3600;
/// How much a run moves out of partly needed packs; the next one goes on.
const REPACK: Repack = Repack {
    waste_percent: 10,
    bytes_max: 1 << 30,
    secs_max: 600,
    compression: 3,
    before_epoch: 0,
    turn_bytes: 128 << 20,
    pack_bytes: 16 << 20,
};

/// What retention did at one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Where.
    pub destination: DestinationName,
    /// What was done or why not, one line for people.
    pub text: String,
}

/// Applies the schedule's rules at every destination that just got a snapshot. Nothing is let go
/// where the newest run failed: old snapshots may be all there is.
pub(crate) fn forget_old(
    plan: &BackupPlan<'_>,
    copies: &[Copy],
    _lock: &DomainLock,
) -> Vec<Forgotten> {
    let rules = rules(&plan.schedule.keep);
    if rules.keeps_all() {
        return Vec::new();
    }
    let stored = |name: &DestinationName| {
        copies
            .iter()
            .any(|copy| copy.destination == *name && copy.state == CopyState::Stored)
    };
    plan.destinations
        .iter()
        .filter(|destination| stored(&destination.name))
        .filter_map(|destination| {
            let text = match open_replica(plan, destination) {
                Ok(domain) => forget_in(&domain, &rules, plan)
                    .unwrap_or_else(|error| Some(format!("retention failed: {}", chain(&error)))),
                Err(error) => Some(format!("retention failed: {error}")),
            };
            let destination = destination.name.clone();
            text.map(|text| Forgotten { destination, text })
        })
        .collect()
}

/// Empties the trash and deletes what was let go long ago where no space was left for this run. No snapshot is touched;
/// the next run finds the room.
pub(crate) fn make_room(
    plan: &BackupPlan<'_>,
    full: &[DestinationName],
    _lock: &DomainLock,
) -> Vec<Forgotten> {
    let is_full = |destination: &&RunDestination| full.contains(&destination.name);
    let free = |destination: &RunDestination| {
        let domain = open_replica(plan, destination)?;
        let refusal = domain.refusal(plan.clock.now(), built_at());
        if let Some(refusal) = refusal.map_err(|error| chain(&error))? {
            return Err(refusal.to_string());
        }
        domain
            .prune(&options(plan, (0, None)))
            .map_err(|error| chain(&error))
    };
    plan.destinations
        .iter()
        .filter(is_full)
        .filter_map(|destination| {
            let text = match free(destination) {
                Ok(report) if report.deleted_packs == 0 => return None,
                Ok(report) => format!(
                    "it is full; {} freed by deleting what no snapshot needs",
                    report.freed_bytes
                ),
                Err(error) => format!("it is full, and making room failed: {error}"),
            };
            let destination = destination.name.clone();
            Some(Forgotten { destination, text })
        })
        .collect()
}

fn options<'a>(
    plan: &BackupPlan<'a>,
    (trash_secs, repack): (u32, Option<Repack>),
) -> PruneOptions<'a> {
    PruneOptions {
        grace_secs: GRACE_SECS,
        trash_secs,
        // A run that stored its snapshot took up what others left; one that ran out of space did not.
        strays: repack.is_some(),
        repack,
        clock: plan.clock,
        entropy: plan.entropy,
        monitor: plan.monitor,
    }
}

/// Gives the time before which no clock can be right.
#[must_use]
pub fn built_at() -> Instant {
    let built = option_env!("SOURCE_DATE_EPOCH").and_then(|secs| secs.parse().ok());
    Instant::from_secs(built.unwrap_or(BUILT_AFTER_SECS))
}

/// True when a destination failed because it has no space left.
pub(crate) fn is_full(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::Store(error) | RepositoryError::Read(ReadError::Store(error)) => {
            error.fault == StoreFault::Full
        }
        _ => false,
    }
}

fn forget_in(
    domain: &Domain,
    rules: &Rules,
    plan: &BackupPlan<'_>,
) -> Result<Option<String>, RepositoryError> {
    if !domain.rights().has(Right::Delete) {
        // Somebody else does it, with another key.
        return Ok(None);
    }
    if let Some(refusal) = domain.refusal(plan.clock.now(), built_at())? {
        return Ok(Some(format!(
            "nothing was let go or deleted: {refusal}; \
             if that is right, 'backstayctl repo forget --force' goes on"
        )));
    }
    let gone = domain.apply_retention(rules, plan.clock.now())?;
    let report = domain.prune(&options(plan, (TRASH_SECS, Some(REPACK))))?;
    if gone.is_empty() && report.deleted_packs == 0 {
        return Ok(None);
    }
    let snapshots = match gone.len() {
        0 => String::new(),
        1 => "1 snapshot let go, to be had back for three days; ".to_owned(),
        count => format!("{count} snapshots let go, to be had back for three days; "),
    };
    let packs = match report.condemned_packs {
        1 => "1 pack".to_owned(),
        count => format!("{count} packs"),
    };
    Ok(Some(format!(
        "{snapshots}{} freed, {packs} to be deleted after a day",
        report.freed_bytes
    )))
}

fn rules(keep: &Keep) -> Rules {
    Rules {
        last: keep.last.unwrap_or(0),
        hourly: keep.hourly.unwrap_or(0),
        daily: keep.daily.unwrap_or(0),
        weekly: keep.weekly.unwrap_or(0),
        monthly: keep.monthly.unwrap_or(0),
        yearly: keep.yearly.unwrap_or(0),
        within_secs: keep.within_secs.unwrap_or(0),
        max: keep.max.unwrap_or(0),
        max_age_secs: keep.max_age_secs.unwrap_or(0),
        min: keep.min.unwrap_or(0),
        min_age_secs: keep.min_age_secs.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
