//! `plan` and `apply`: what would change in systemd, and changing it.

use model::{Exit, ScheduleName};
use protocol::control::{ApplyOutcome, ControlRequest, Drift};

use crate::control;
use crate::problem::Problem;
use crate::screen::{Screen, Tone, plain, toned};
use crate::server::Server;

/// Shows what an apply would change.
///
/// # Errors
///
/// When the configuration has faults or the apply service cannot be reached.
pub fn plan(server: &Server, screen: &mut Screen) -> Result<Exit, Problem> {
    let outcome = control::apply(server, &ControlRequest::Apply { dry_run: true })?;
    show(&outcome, screen)
}

/// Brings systemd to what the configuration says.
///
/// # Errors
///
/// As [`plan`]; what was in force then stays in force.
pub fn apply(server: &Server, screen: &mut Screen) -> Result<Exit, Problem> {
    server.as_root("applying the configuration")?;
    let outcome = control::apply(server, &ControlRequest::Apply { dry_run: false })?;
    show(&outcome, screen)
}

fn show(outcome: &ApplyOutcome, screen: &mut Screen) -> Result<Exit, Problem> {
    let exit = if outcome.refused.is_some() {
        Exit::Partial
    } else {
        Exit::Done
    };
    if screen.is_json() {
        screen.json(outcome)?;
        return Ok(exit);
    }
    for line in &outcome.diff {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Tone::Good,
            Some(b'-') => Tone::Bad,
            Some(b'~') => Tone::Warning,
            _ => Tone::Plain,
        };
        screen.line(&[toned(model::escape(line.as_bytes()), tone)])?;
    }
    show_drift("repaired", &outcome.repaired, screen)?;
    show_drift("left as it is", &outcome.held, screen)?;
    for warning in &outcome.warnings {
        screen.line(&[
            toned("Warning: ", Tone::Warning),
            plain(model::escape(warning.as_bytes())),
        ])?;
    }
    if let Some(refused) = &outcome.refused {
        screen.line(&[
            toned("Refused: ", Tone::Bad),
            plain(model::escape(refused.message.as_bytes())),
        ])?;
    }
    screen.line(&[toned(sentence(outcome), Tone::Strong)])?;
    show_keys(outcome, screen)?;
    Ok(exit)
}

fn sentence(outcome: &ApplyOutcome) -> String {
    let did = [
        ("to create", "created", outcome.created.len()),
        ("to change", "changed", outcome.changed.len()),
        ("to remove", "removed", outcome.removed.len()),
    ];
    let parts: Vec<String> = did
        .into_iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(would, done, count)| {
            format!("{count} {}", if outcome.dry_run { would } else { done })
        })
        .collect();
    let unchanged = format!("{} unchanged", outcome.unchanged);
    if parts.is_empty() {
        let nothing = if outcome.dry_run {
            "Nothing would change"
        } else {
            "Nothing to do"
        };
        return format!("{nothing}: {unchanged}.");
    }
    let head = if outcome.dry_run { "Plan" } else { "Applied" };
    format!("{head}: {}, {unchanged}.", parts.join(", "))
}

fn show_drift(word: &str, drift: &[Drift], screen: &mut Screen) -> Result<(), Problem> {
    for one in drift {
        screen.line(&[
            toned(format!("{word}: "), Tone::Warning),
            plain(format!(
                "{}: {}",
                model::escape(one.unit.as_bytes()),
                model::escape(one.detail.as_bytes())
            )),
        ])?;
    }
    Ok(())
}

fn show_keys(outcome: &ApplyOutcome, screen: &mut Screen) -> Result<(), Problem> {
    if outcome.dry_run || outcome.keys_made.is_empty() {
        return Ok(());
    }
    screen.line(&[])?;
    screen.line(&[toned(
        "New keys were made. Without its key a backup cannot be opened: keep each one elsewhere.",
        Tone::Warning,
    )])?;
    let exports = outcome.keys_made.iter().map(export);
    for command in exports {
        screen.line(&[plain(command)])?;
    }
    Ok(())
}

fn export(name: &ScheduleName) -> String {
    format!("  backstayctl key export {name}")
}
