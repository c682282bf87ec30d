//! Commands: signed, addressed, single-use, expiring orders to one agent.
//!
//! There is no command that carries a command line, a path to read, or code.

use model::{AgentId, CommandId, DestinationName, Instant, RunId, ScheduleName, SnapshotId};
use serde::{Deserialize, Serialize};

use crate::{Envelope, EnvelopeError, PayloadType, PublicKey, SigningKey};

/// Where a restore puts things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreTarget {
    /// Over what is there, with what was there kept aside.
    InPlace,
    /// Below this directory, which must be absolute.
    Directory(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum CommandKind {
    /// Start a run of a schedule now; joins one that is under way.
    RunNow {
        /// Which schedule.
        schedule: ScheduleName,
    },
    /// Read the snapshots of a schedule from its destinations and report them.
    ListSnapshots {
        /// Which schedule.
        schedule: ScheduleName,
    },
    /// Restore a whole snapshot.
    Restore {
        /// Which schedule.
        schedule: ScheduleName,
        /// Which snapshot.
        snapshot: SnapshotId,
        /// From which destination.
        destination: DestinationName,
        /// Where to.
        target: RestoreTarget,
    },
    /// End a run that is under way.
    Cancel {
        /// Which run.
        run: RunId,
    },
}

/// One order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Unique; an agent obeys one id once.
    pub id: CommandId,
    /// The only agent that may obey.
    pub agent: AgentId,
    /// Not to be obeyed before.
    pub not_before: Instant,
    /// Not to be begun after.
    pub expires_at: Instant,
    /// What to do.
    pub kind: CommandKind,
}

impl Command {
    /// Signs the command.
    #[must_use]
    pub fn seal(&self, key: &SigningKey) -> Envelope {
        // Strings and numbers always serialize.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        Envelope::seal(PayloadType::Command, payload, key)
    }

    /// Verifies a command: signature first, then shape. The caller checks agent, times and
    /// whether it was obeyed before, because the answers to those differ.
    ///
    /// # Errors
    ///
    /// `EnvelopeError`; the command is not from the controller that this agent joined.
    pub fn verify(envelope: &Envelope, controller: &PublicKey) -> Result<Self, EnvelopeError> {
        envelope.read(PayloadType::Command, controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(kind: CommandKind) -> Command {
        Command {
            id: CommandId::from_bytes([3; 16]),
            agent: AgentId::from_bytes([4; 16]),
            not_before: Instant::from_secs(1_700_000_000),
            expires_at: Instant::from_secs(1_700_000_600),
            kind,
        }
    }

    #[test]
    fn the_wire_form_stays() {
        let schedule = || ScheduleName::new("nightly").unwrap();
        let restore = |target| CommandKind::Restore {
            schedule: schedule(),
            snapshot: SnapshotId::from_bytes([5; 16]),
            destination: DestinationName::new("offsite").unwrap(),
            target,
        };
        let texts = [
            CommandKind::RunNow {
                schedule: schedule(),
            },
            CommandKind::ListSnapshots {
                schedule: schedule(),
            },
            restore(RestoreTarget::InPlace),
            restore(RestoreTarget::Directory("/srv/restored".into())),
            CommandKind::Cancel {
                run: RunId::from_bytes([6; 16]),
            },
        ]
        .map(|kind| serde_json::to_string(&command(kind)).unwrap());
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn a_command_line_is_not_a_command() {
        let text = r#"{"do":"run_now","schedule":"nightly","argv":["sh"]}"#;
        assert!(serde_json::from_str::<CommandKind>(text).is_err());
        assert!(serde_json::from_str::<CommandKind>(r#"{"do":"exec","line":"id"}"#).is_err());
    }

    #[test]
    fn sealed_commands_verify_under_the_right_key_only() {
        let key = SigningKey::from_seed(&[1; 32]);
        let order = command(CommandKind::Cancel {
            run: RunId::from_bytes([6; 16]),
        });
        let sealed = order.seal(&key);
        assert_eq!(Command::verify(&sealed, &key.public()).unwrap(), order);
        assert!(Command::verify(&sealed, &SigningKey::from_seed(&[2; 32]).public()).is_err());
    }
}
