//! Commands: verified, accepted once, then handed to the unit that may obey them.

use ledger::{Command as Kept, CommandState as KeptState};
use model::ScheduleName;
use protocol::control::{ControlReply, ControlRequest};
use protocol::{Command, CommandKind, CommandReport, CommandState, Envelope};
use serde_json::{Value, json};

use super::{DaemonError, Shared, local, now};

const RUN_NOW: &str = "run_now";
const LIST_SNAPSHOTS: &str = "list_snapshots";
const RESTORE: &str = "restore";

/// The key of a signed order in a command's body. Commands of root have none.
const ENVELOPE: &str = "envelope";

/// Reports that wait to be sent; more are dropped, and the controller asks again.
const SAID_MAX: usize = 1000;

/// Looks at a command that came. True when it was new.
pub(super) fn take(shared: &Shared, envelope: &Envelope) -> Result<bool, DaemonError> {
    let record = &shared.identity.record;
    let command = match Command::verify(envelope, &record.controller) {
        Ok(command) if command.agent == record.agent => command,
        Ok(command) => {
            tracing::warn!(command = %command.id, "a command for another agent is ignored");
            return Ok(false);
        }
        Err(error) => {
            tracing::warn!("a command is ignored: {error}");
            return Ok(false);
        }
    };
    if let Some(known) = shared.ledger.borrow().command(command.id)? {
        say(shared, &command, standing(&known), None);
        return Ok(false);
    }
    let (kind, schedule, body) = match shape(&command, envelope) {
        Ok(shape) => shape,
        Err(why) => {
            say(shared, &command, CommandState::Refused, Some(why));
            return Ok(true);
        }
    };
    if command.expires_at < now() {
        let why = "it came after it had expired".to_owned();
        say(shared, &command, CommandState::Expired, Some(why));
        return Ok(true);
    }
    if command.not_before > now() {
        let why = "it is not to be obeyed yet: is this server's clock behind?".to_owned();
        say(shared, &command, CommandState::Refused, Some(why));
        return Ok(true);
    }
    let is_new = shared.ledger.borrow_mut().accept_command(&Kept {
        id: command.id,
        schedule,
        kind: kind.to_owned(),
        body: body.to_string(),
        state: KeptState::Queued,
        accepted_at: now(),
        expires_at: command.expires_at,
        outcome: None,
    })?;
    tracing::info!(command = %command.id, kind, "a command was accepted");
    say(shared, &command, CommandState::Accepted, None);
    Ok(is_new)
}

/// Ends orders to start a run that a former daemon took and did not bring to an end. The run itself,
/// if it began, has its own record.
pub(super) fn end_half_started(ledger: &mut ledger::Ledger) -> Result<(), DaemonError> {
    let outcome =
        json!({"error": "the agent was stopped while it started the run; see the history"});
    ledger.fail_running_commands(None, &[RUN_NOW], &outcome.to_string(), now())?;
    Ok(())
}

fn shape(
    command: &Command,
    envelope: &Envelope,
) -> Result<(&'static str, ScheduleName, Value), String> {
    match &command.kind {
        CommandKind::RunNow { schedule } => Ok((RUN_NOW, schedule.clone(), json!({}))),
        CommandKind::ListSnapshots { schedule } => {
            Ok((LIST_SNAPSHOTS, schedule.clone(), json!({})))
        }
        // The restore job verifies the order itself: it does not believe this process.
        CommandKind::Restore { schedule, .. } => {
            Ok((RESTORE, schedule.clone(), json!({ENVELOPE: envelope})))
        }
        CommandKind::Cancel { .. } => {
            Err("a run can be ended with backstayctl on the server only".to_owned())
        }
    }
}

/// Says how a command stands, unless the ledger will say so itself at its end.
fn say(shared: &Shared, command: &Command, state: CommandState, detail: Option<String>) {
    let mut said = shared.said.borrow_mut();
    if said.len() < SAID_MAX {
        said.push(CommandReport {
            id: command.id,
            state,
            detail,
            run: None,
            listed: None,
        });
    }
    shared.tell.notify_one();
}

fn standing(known: &Kept) -> CommandState {
    match (known.state, known.kind.as_str()) {
        (KeptState::Queued, _) => CommandState::Accepted,
        (KeptState::Running, _) | (KeptState::Done, RUN_NOW) => CommandState::Running,
        (KeptState::Done, _) => CommandState::Done,
        (KeptState::Failed, _) => CommandState::Failed,
    }
}

/// Starts the unit of every queued command. What cannot be started because nobody answers stays
/// queued for the next time.
pub(super) async fn dispatch(shared: &Shared) -> Result<(), DaemonError> {
    let queued = shared.ledger.borrow().queued_commands()?;
    for command in queued {
        let name = command.schedule.clone();
        let request = match command.kind.as_str() {
            RUN_NOW => ControlRequest::StartJob { name },
            LIST_SNAPSHOTS => ControlRequest::StartBrowse { name },
            RESTORE => ControlRequest::StartRestore { name },
            _ => continue,
        };
        let mut command = command;
        if command.kind == RUN_NOW {
            let mut ledger = shared.ledger.borrow_mut();
            match ledger.take_command(&command.schedule, &[RUN_NOW], now())? {
                // The oldest one that did not expire meanwhile, which may be another.
                Some(taken) => command = taken,
                None => continue,
            }
        } else if command.expires_at < now() {
            finish(
                shared,
                &command,
                Err("it expired before it could begin".to_owned()),
            )?;
            continue;
        }
        start(shared, &command, &request).await?;
    }
    Ok(())
}

async fn start(
    shared: &Shared,
    command: &Kept,
    request: &ControlRequest,
) -> Result<(), DaemonError> {
    let is_run = command.kind == RUN_NOW;
    match local::say(&shared.places.apply_socket(), request).await {
        Ok(ControlReply::Started { unit }) => {
            tracing::info!(command = %command.id, unit, "started");
            // A job of its own works on it and writes the end; a run has its own record.
            if is_run {
                finish(shared, command, Ok(unit))
            } else {
                Ok(())
            }
        }
        // Root's own restore is root's to start: what the guard says of a controller is not for it.
        Ok(ControlReply::Failed { code, .. })
            if code == "not_allowed" && !is_controllers(command) =>
        {
            Ok(())
        }
        Ok(ControlReply::Failed { message, .. }) => finish(shared, command, Err(message)),
        Ok(_) => finish(
            shared,
            command,
            Err("apply answered something else".to_owned()),
        ),
        Err(error) if is_run => finish(shared, command, Err(crate::log::chain(&error))),
        Err(error) => {
            tracing::warn!(command = %command.id, "not started yet: {}", crate::log::chain(&error));
            Ok(())
        }
    }
}

fn is_controllers(command: &Kept) -> bool {
    let body: Value = serde_json::from_str(&command.body).unwrap_or_default();
    command.kind != RESTORE || body.get(ENVELOPE).is_some()
}

fn finish(
    shared: &Shared,
    command: &Kept,
    result: Result<String, String>,
) -> Result<(), DaemonError> {
    let (state, outcome) = match result {
        Ok(unit) => (
            KeptState::Done,
            json!({"summary": format!("{unit} was started")}),
        ),
        Err(error) => (KeptState::Failed, json!({"error": error})),
    };
    shared
        .ledger
        .borrow_mut()
        .finish_command(command.id, state, &outcome.to_string(), now())?;
    shared.tell.notify_one();
    Ok(())
}

/// Gives what is to be said about an ended command: its end, or, for a run, that it was started.
pub(super) fn end(command: &Kept) -> CommandReport {
    let outcome: Value = command
        .outcome
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let text = |key: &str| outcome.get(key).and_then(Value::as_str).map(str::to_owned);
    let is_listing = command.kind == LIST_SNAPSHOTS && command.state == KeptState::Done;
    CommandReport {
        id: command.id,
        state: standing(command),
        detail: text("error").or_else(|| text("summary")),
        run: None,
        listed: is_listing.then(|| command.schedule.clone()),
    }
}
