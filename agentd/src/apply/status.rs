//! How everything stands, also for readers who find every program dead: `status.json`.

use std::collections::{BTreeMap, BTreeSet};

use model::ScheduleName;
use protocol::control::{Drift, Repaired, SystemStatus, TimerStatus};

use super::engine::Engine;
use super::error::ApplyError;
use super::files;
use super::generations;
use super::host::{Host, UnitState};
use super::plan::plan;

/// Repairs that are remembered.
const REPAIRED_MAX: usize = 100;

/// Which timers systemd is asked about one by one.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Every one.
    All,
    /// These, and those whose known next elapse has passed.
    Touched(BTreeSet<ScheduleName>),
}

/// Looks at everything, writes it down and gives it. `repaired` is what was just put right.
pub(crate) async fn refresh<H: Host>(
    engine: &Engine<'_, H>,
    repaired: &[Drift],
    ask: &Ask,
) -> Result<SystemStatus, ApplyError> {
    let path = engine.paths.generations().join("status.json");
    let before: Option<SystemStatus> = match files::read_json(&path) {
        Err(ApplyError::Damaged { .. }) => None,
        other => other?,
    };
    let now = engine.host.now();
    let mut history: Vec<Repaired> = repaired
        .iter()
        .map(|drift| Repaired {
            at: now,
            drift: drift.clone(),
        })
        .collect();
    let known = before.as_ref().map(|status| &status.repaired);
    history.extend(known.into_iter().flatten().cloned());
    history.truncate(REPAIRED_MAX);
    let status = look(engine, before.as_ref(), history, ask).await?;
    // A status that says the same is not written again: an idle server writes nothing.
    let same = before.is_some_and(|before| SystemStatus { at: now, ..before } == status);
    if !same {
        files::write_json(engine.host, &path, &status)?;
    }
    Ok(status)
}

async fn look<H: Host>(
    engine: &Engine<'_, H>,
    before: Option<&SystemStatus>,
    repaired: Vec<Repaired>,
    ask: &Ask,
) -> Result<SystemStatus, ApplyError> {
    let applied = engine.applied()?;
    let observed = engine.observe().await?;
    let current = generations::current(engine.paths)?;
    let generation = current.as_ref().map(|(number, _)| *number);
    let (problems, drift) = match engine.load(current) {
        Ok(settings) => {
            let wanted = engine.render(&settings);
            let plan = plan(&wanted, &applied, &observed, None);
            (Vec::new(), [plan.repaired, plan.held].concat())
        }
        Err(problems) => {
            let lines = problems.all().iter().map(ToString::to_string);
            (lines.collect(), Vec::new())
        }
    };
    let known: BTreeMap<&ScheduleName, &TimerStatus> = before
        .into_iter()
        .flat_map(|status| &status.timers)
        .filter(|timer| match ask {
            Ask::All => false,
            Ask::Touched(names) => !names.contains(&timer.schedule),
        })
        .map(|timer| (&timer.schedule, timer))
        .collect();
    let mut timers = Vec::new();
    for name in &applied.schedules {
        let state = observed.units.get(name);
        timers.push(
            timer(
                engine,
                name,
                state,
                known.get(name).copied(),
                &applied.timers,
            )
            .await?,
        );
    }
    Ok(SystemStatus {
        at: engine.host.now(),
        generation,
        generation_hash: generations::current_hash(engine.paths)?,
        refused: generations::refused(engine.paths)?,
        problems,
        timers,
        drift,
        repaired,
    })
}

async fn timer<H: Host>(
    engine: &Engine<'_, H>,
    name: &ScheduleName,
    state: Option<&UnitState>,
    known: Option<&TimerStatus>,
    enabled: &BTreeSet<ScheduleName>,
) -> Result<TimerStatus, ApplyError> {
    let mut status = TimerStatus {
        schedule: name.clone(),
        enabled: enabled.contains(name),
        armed: false,
        next_at: None,
        last_at: None,
        state: state.map_or_else(|| "dead".to_owned(), |s| s.sub.clone()),
    };
    let Some(state) = state.filter(|s| s.active == "active") else {
        status.last_at = known.and_then(|k| k.last_at);
        return Ok(status);
    };
    let now = engine.host.now();
    // What systemd said before holds until then: a thousand timers are not asked one by one.
    let fresh = known.filter(|k| {
        k.armed
            && state.sub == "waiting"
            && k.state == state.sub
            && k.next_at.is_some_and(|at| at > now)
    });
    if let Some(known) = fresh {
        return Ok(known.clone());
    }
    let seen = engine.seen.borrow().get(name).copied();
    let elapses = match seen {
        Some(elapses) => elapses,
        None => engine
            .host
            .elapses(&[name])
            .await?
            .pop()
            .unwrap_or_default(),
    };
    status.next_at = elapses.next;
    status.last_at = elapses.last;
    status.armed = match state.sub.as_str() {
        "running" => true,
        "waiting" => elapses.next.is_some(),
        _ => false,
    };
    Ok(status)
}
