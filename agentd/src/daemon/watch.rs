//! The long poll: takes generations and commands as soon as there are any.

use std::time::Duration;

use protocol::control::{ControlReply, ControlRequest};
use protocol::{Envelope, Generation, GenerationReport, Watch};

use super::backoff::Backoff;
use super::client::CallError;
use super::{DaemonError, Shared, commands, identity, local};

/// How long to wait before asking again when an answer changed nothing: it must not spin.
const IDLE_MIN: Duration = Duration::from_secs(5);
/// How long to wait when the controller does not know this agent any more.
const UNKNOWN_WAIT: Duration = Duration::from_secs(300);

pub(super) async fn run(shared: &Shared) -> Result<(), DaemonError> {
    let mut backoff = Backoff::default();
    let mut is_reached = None;
    hand_over(shared).await;
    commands::dispatch(shared).await?;
    loop {
        let mut is_away = false;
        let wait = match ask(shared).await {
            Ok(progress) => {
                backoff.succeeded();
                if is_reached != Some(true) {
                    tracing::info!(
                        controller = shared.identity.record.host,
                        "the controller answers"
                    );
                    is_reached = Some(true);
                }
                if progress { Duration::ZERO } else { IDLE_MIN }
            }
            Err(DaemonError::Call(error)) => {
                if is_reached != Some(false) {
                    let causes = crate::log::chain(&error);
                    tracing::warn!("{causes}; backups go on, results are kept");
                    is_reached = Some(false);
                }
                let unknown =
                    matches!(&error, CallError::Refused { code, .. } if code == "unknown_agent");
                is_away = true;
                let wait = backoff.failed(error.after(), shared.retry_max());
                if unknown {
                    wait.max(UNKNOWN_WAIT)
                } else {
                    wait
                }
            }
            Err(error) => return Err(error),
        };
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // It was reached by another call, or a person who sent SIGHUP does not want to wait.
                () = shared.reached.notified(), if is_away => {}
            }
        }
        // Work whose start failed before is tried again at each poll.
        commands::dispatch(shared).await?;
    }
}

/// Asks once. True when the next question may follow at once: the controller held this one, or
/// something new came.
async fn ask(shared: &Shared) -> Result<bool, DaemonError> {
    let seen = seen(shared)?;
    let path = format!("/agent/v1/watch?seen={seen}&stream={}", shared.stream);
    let began = tokio::time::Instant::now();
    let answer = shared.call("GET", &path, None).await?;
    let watch: Watch =
        serde_json::from_slice(&answer).map_err(|error| DaemonError::Answer(error.to_string()))?;
    if shared.delivered.get() != Some(watch.last_seq) || backlog(shared)? {
        shared.tell.notify_one();
    }
    shared.set_poll(watch.wait_secs)?;
    let mut progress = began.elapsed() >= IDLE_MIN;
    if let Some(envelope) = &watch.generation {
        progress |= take(shared, envelope).await?;
    }
    for envelope in &watch.commands {
        progress |= commands::take(shared, envelope)?;
    }
    if !watch.commands.is_empty() {
        commands::dispatch(shared).await?;
        // Said before the next question, or the same commands would come again.
        super::facts::tell_commands(shared).await?;
    }
    Ok(progress)
}

fn backlog(shared: &Shared) -> Result<bool, DaemonError> {
    Ok(shared.ledger.borrow().outbox_len()? > 0)
}

/// The highest generation that was fetched from this controller.
fn seen(shared: &Shared) -> Result<u64, DaemonError> {
    let note = shared.ledger.borrow().note(&seen_note(shared))?;
    Ok(note.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn seen_note(shared: &Shared) -> String {
    format!(
        "generation_seen:{}",
        shared.identity.record.controller.hash()
    )
}

/// Verifies a generation, puts it into the inbox and asks for its application. False when it is
/// not from this controller for this agent, which it will not be next time either.
pub(super) async fn take(shared: &Shared, envelope: &Envelope) -> Result<bool, DaemonError> {
    let record = &shared.identity.record;
    let accepted = Generation::accept(envelope, &record.controller, record.agent, None);
    let (generation, _) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => {
            tracing::warn!(code = refusal.code(), "a generation is refused: {refusal}");
            shared.refused.replace(Some(GenerationReport {
                code: Some(refusal.code().to_owned()),
                error: Some(refusal.to_string()),
                ..GenerationReport::default()
            }));
            shared.look.notify_one();
            return Ok(false);
        }
    };
    let number = generation.number;
    let inbox = shared.places.state("inbox");
    identity::write(
        &inbox,
        &format!("{number}.json"),
        envelope.to_text().as_bytes(),
    )
    .map_err(DaemonError::system(format!(
        "keeping generation {number} in the inbox"
    )))?;
    shared
        .ledger
        .borrow()
        .set_note(&seen_note(shared), &number.to_string())?;
    shared.refused.replace(None);
    tracing::info!(number, "a generation came");
    hand_over(shared).await;
    Ok(true)
}

/// Asks `apply` to take in what waits in the inbox. Without an answer it stays there, and is asked
/// for again at the next poll.
async fn hand_over(shared: &Shared) {
    let inbox = shared.places.state("inbox");
    let waits = std::fs::read_dir(&inbox).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
    });
    if !waits {
        return;
    }
    let request = ControlRequest::Apply { dry_run: false };
    match local::say(&shared.places.apply_socket(), &request).await {
        Ok(ControlReply::Applied(outcome)) => match outcome.refused {
            Some(refused) => tracing::warn!(
                code = refused.code,
                "the generation is not in force: {}",
                refused.message
            ),
            None => tracing::info!(generation = outcome.generation, "applied"),
        },
        Ok(ControlReply::Failed { code, message, .. }) => {
            tracing::warn!(code, "the generation is not in force: {message}");
        }
        Ok(_) => tracing::warn!("apply answered something else than asked for"),
        Err(error) => tracing::warn!("{}", crate::log::chain(&error)),
    }
    shared.look.notify_one();
}
