//! Commands: orders to this agent, each executed at most once and answered.

use model::{CommandId, Instant, ScheduleName};
use rusqlite::{OptionalExtension as _, Row, params};

use crate::{Ledger, LedgerError};

/// How a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandState {
    /// Accepted, not begun.
    Queued,
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended badly; the outcome says why.
    Failed,
}

impl CommandState {
    const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "queued" => Self::Queued,
            "running" => Self::Running,
            "done" => Self::Done,
            _ => Self::Failed,
        }
    }
}

/// One order to this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its id; the same id is never executed twice.
    pub id: CommandId,
    /// The schedule that it is about.
    pub schedule: ScheduleName,
    /// The kind in one word: `run_now`, `restore`, `list_snapshots`.
    pub kind: String,
    /// Its arguments as JSON; the kind decides the shape.
    pub body: String,
    /// How it stands.
    pub state: CommandState,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// When it lapses if it has not begun.
    pub expires_at: Instant,
    /// What came of it, as JSON.
    pub outcome: Option<String>,
}

const COLUMNS: &str = "id, schedule, kind, body, state, accepted_at, expires_at, outcome";

impl Ledger {
    /// Accepts a command. Gives false when its id was accepted before: do nothing then.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; it is not accepted then.
    pub fn accept_command(&mut self, command: &Command) -> Result<bool, LedgerError> {
        let changed = self.write("accepting a command", |transaction| {
            transaction.execute(
                "INSERT INTO command (id, schedule, kind, body, state, accepted_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, 'queued', ?5, ?6) ON CONFLICT DO NOTHING",
                params![
                    command.id.as_bytes(),
                    command.schedule.as_str(),
                    command.kind,
                    command.body,
                    command.accepted_at.micros(),
                    command.expires_at.micros()
                ],
            )
        })?;
        Ok(changed == 1)
    }

    /// Takes the oldest queued command of `schedule` among `kinds` and marks it running. Commands
    /// that have lapsed are marked failed on the way.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read or written.
    pub fn take_command(
        &mut self,
        schedule: &ScheduleName,
        kinds: &[&str],
        now: Instant,
    ) -> Result<Option<Command>, LedgerError> {
        self.expire_commands(now)?;
        let kinds = json_list(kinds);
        self.write("taking a command", |transaction| {
            let found = transaction
                .query_row(
                    &format!(
                        "SELECT {COLUMNS} FROM command WHERE state = 'queued' AND schedule = ?1
                         AND kind IN (SELECT value FROM json_each(?2))
                         ORDER BY accepted_at, id LIMIT 1"
                    ),
                    params![schedule.as_str(), kinds],
                    read,
                )
                .optional()?;
            if let Some(command) = &found {
                transaction.execute(
                    "UPDATE command SET state = 'running' WHERE id = ?1",
                    [command.id.as_bytes()],
                )?;
            }
            Ok(found.map(|command| Command {
                state: CommandState::Running,
                ..command
            }))
        })
    }

    /// Ends a command with its outcome; it will be reported. A command that has ended already
    /// keeps its first outcome.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written, `Absent` when there is no such command.
    pub fn finish_command(
        &mut self,
        id: CommandId,
        state: CommandState,
        outcome: &str,
        now: Instant,
    ) -> Result<(), LedgerError> {
        let changed = self.write("finishing a command", |transaction| {
            transaction.execute(
                "UPDATE command SET state = ?2, outcome = ?3, finished_at = ?4, reported = 0
                 WHERE id = ?1 AND state IN ('queued', 'running')",
                params![id.as_bytes(), state.word(), outcome, now.micros()],
            )
        })?;
        if changed == 0 && self.command(id)?.is_none() {
            return Err(LedgerError::Absent {
                what: "command",
                id: id.to_string(),
            });
        }
        self.ring();
        Ok(())
    }

    /// Marks as failed what is running of these kinds, for one schedule or for all: the caller knows
    /// that nobody works on it. Gives how many there were.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn fail_running_commands(
        &mut self,
        schedule: Option<&ScheduleName>,
        kinds: &[&str],
        outcome: &str,
        now: Instant,
    ) -> Result<u64, LedgerError> {
        let schedule = schedule.map(ScheduleName::as_str);
        let kinds = json_list(kinds);
        let changed = self.write("failing commands", |transaction| {
            transaction.execute(
                "UPDATE command SET state = 'failed', outcome = ?3, finished_at = ?4, reported = 0
                 WHERE state = 'running' AND (?1 IS NULL OR schedule = ?1)
                 AND kind IN (SELECT value FROM json_each(?2))",
                params![schedule, kinds, outcome, now.micros()],
            )
        })?;
        self.ring_for(changed);
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    fn ring_for(&self, changed: usize) {
        if changed > 0 {
            self.ring();
        }
    }

    /// Gives a command by id.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read.
    pub fn command(&self, id: CommandId) -> Result<Option<Command>, LedgerError> {
        self.connection
            .query_row(
                &format!("SELECT {COLUMNS} FROM command WHERE id = ?1"),
                [id.as_bytes()],
                read,
            )
            .optional()
            .map_err(LedgerError::statement("reading a command"))
    }

    /// Lists queued commands, oldest first.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read.
    pub fn queued_commands(&self) -> Result<Vec<Command>, LedgerError> {
        self.commands("state = 'queued'")
    }

    /// Lists ended commands that were not reported to the controller yet.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be read.
    pub fn unreported_commands(&self) -> Result<Vec<Command>, LedgerError> {
        self.commands("state IN ('done', 'failed') AND reported = 0")
    }

    /// Marks a command as reported.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; it is then reported again, which is harmless.
    pub fn mark_reported(&mut self, id: CommandId) -> Result<(), LedgerError> {
        self.write("marking a command", |transaction| {
            transaction
                .execute(
                    "UPDATE command SET reported = 1 WHERE id = ?1",
                    [id.as_bytes()],
                )
                .map(drop)
        })
    }

    /// Forgets ended commands whose time is long over: they could not be obeyed again.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written; nothing is forgotten then.
    pub fn forget_commands(&mut self, before: Instant) -> Result<u64, LedgerError> {
        let changed = self.write("forgetting old commands", |transaction| {
            transaction.execute(
                "DELETE FROM command WHERE finished_at < ?1 AND expires_at < ?1",
                [before.micros()],
            )
        })?;
        Ok(u64::try_from(changed).unwrap_or(0))
    }

    /// Marks as failed what lapsed before anybody began it.
    ///
    /// # Errors
    ///
    /// `Statement` when it cannot be written.
    pub fn expire_commands(&mut self, now: Instant) -> Result<(), LedgerError> {
        let changed = self.write("expiring commands", |transaction| {
            transaction.execute(
                "UPDATE command SET state = 'failed', finished_at = ?1,
                 outcome = '{\"error\":\"expired before it could begin\"}'
                 WHERE state = 'queued' AND expires_at < ?1",
                [now.micros()],
            )
        })?;
        self.ring_for(changed);
        Ok(())
    }

    fn commands(&self, condition: &str) -> Result<Vec<Command>, LedgerError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM command WHERE {condition} ORDER BY accepted_at, id LIMIT 1000"
        );
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut statement| {
                let rows = statement.query_map([], read)?;
                rows.collect::<Result<Vec<_>, _>>()
            })
            .map_err(LedgerError::statement("listing commands"))
    }
}

fn json_list(words: &[&str]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Command> {
    let broken = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let schedule: String = row.get(1)?;
    Ok(Command {
        id: CommandId::from_bytes(row.get(0)?),
        schedule: ScheduleName::new(schedule).map_err(|error| broken(1, error.into()))?,
        kind: row.get(2)?,
        body: row.get(3)?,
        state: CommandState::parse(&row.get::<_, String>(4)?),
        accepted_at: Instant::from_micros(row.get(5)?),
        expires_at: Instant::from_micros(row.get(6)?),
        outcome: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    fn command(number: u8) -> Command {
        Command {
            id: CommandId::from_bytes([number; 16]),
            schedule: ScheduleName::new("nightly").unwrap(),
            kind: "restore".into(),
            body: "{}".into(),
            state: CommandState::Queued,
            accepted_at: Instant::from_secs(i64::from(number)),
            expires_at: Instant::from_secs(1000),
            outcome: None,
        }
    }

    #[test]
    fn a_command_is_accepted_and_taken_once() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        assert!(ledger.accept_command(&command(1)).unwrap());
        assert!(!ledger.accept_command(&command(1)).unwrap());
        let now = Instant::from_secs(10);
        let name = command(1).schedule;
        assert!(
            ledger
                .take_command(&name, &["run_now"], now)
                .unwrap()
                .is_none()
        );
        assert!(
            ledger
                .take_command(&name, &["restore"], now)
                .unwrap()
                .is_some()
        );
        assert!(
            ledger
                .take_command(&name, &["restore"], now)
                .unwrap()
                .is_none()
        );
        ledger
            .finish_command(command(1).id, CommandState::Done, "{}", now)
            .unwrap();
        assert_eq!(ledger.unreported_commands().unwrap().len(), 1);
        ledger.mark_reported(command(1).id).unwrap();
        assert!(ledger.unreported_commands().unwrap().is_empty());
    }

    #[test]
    fn a_lapsed_command_fails_and_is_not_executed() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        ledger.accept_command(&command(1)).unwrap();
        let late = Instant::from_secs(2000);
        assert!(
            ledger
                .take_command(&command(1).schedule, &["restore"], late)
                .unwrap()
                .is_none()
        );
        assert_eq!(
            ledger.unreported_commands().unwrap()[0].state,
            CommandState::Failed
        );
    }

    #[test]
    fn an_ended_command_keeps_its_first_outcome() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        ledger.accept_command(&command(1)).unwrap();
        let now = Instant::from_secs(10);
        let id = command(1).id;
        for (state, outcome) in [
            (CommandState::Done, "{}"),
            (CommandState::Failed, "{\"a\":1}"),
        ] {
            ledger.finish_command(id, state, outcome, now).unwrap();
        }
        let kept = ledger.command(id).unwrap().unwrap();
        assert_eq!(
            (kept.state, kept.outcome.as_deref()),
            (CommandState::Done, Some("{}"))
        );
        let unknown = CommandId::from_bytes([9; 16]);
        let error = ledger.finish_command(unknown, CommandState::Done, "{}", now);
        assert!(matches!(error, Err(LedgerError::Absent { .. })));
    }

    #[test]
    fn old_commands_are_forgotten_when_they_cannot_come_again() {
        let mut fixture = Fixture::new();
        let ledger = &mut fixture.ledger;
        ledger.accept_command(&command(1)).unwrap();
        let end = |ledger: &mut Ledger| {
            let at = Instant::from_secs(20);
            ledger.finish_command(command(1).id, CommandState::Done, "{}", at)
        };
        assert_eq!(ledger.forget_commands(Instant::from_secs(5000)).unwrap(), 0);
        end(ledger).unwrap();
        assert_eq!(ledger.forget_commands(Instant::from_secs(999)).unwrap(), 0);
        assert_eq!(ledger.forget_commands(Instant::from_secs(5000)).unwrap(), 1);
    }
}
