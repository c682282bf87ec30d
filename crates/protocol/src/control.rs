//! What crosses `/run/backstay/apply.sock`: one line of JSON each way per connection.
//!
//! Peers are uid 0 and the user `backstay`; the kernel says which. The words are all there is:
//! no command line, no path and no unit name of a caller's choosing ever crosses.

use model::{Instant, ScheduleName};
use serde::{Deserialize, Serialize};

use crate::GenerationHash;

/// The longest request line, in bytes.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 4096;

/// The longest reply line, in bytes.
pub const CONTROL_REPLY_BYTES_MAX: usize = 16 << 20;

/// One request: `{"word":"apply","dry_run":true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// Take in what waits in the inbox, validate everything, bring systemd to it.
    Apply {
        /// Say what would change, and change nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// Finish an apply that was cut, put right what was changed by hand.
    Reconcile {},
    /// Start the backup of a schedule now.
    StartJob {
        /// Which schedule.
        name: ScheduleName,
    },
    /// Start the unit that does the queued restores of a schedule.
    StartRestore {
        /// Which schedule.
        name: ScheduleName,
    },
    /// Start the unit that does the queued listings and checks of a schedule.
    StartBrowse {
        /// Which schedule.
        name: ScheduleName,
    },
    /// Say how timers stand.
    Status {},
}

/// One reply; `result` says which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ControlReply {
    /// To `apply` and `reconcile`: what was done, or would be.
    Applied(ApplyOutcome),
    /// To the `start-` words: systemd has started the unit.
    Started {
        /// The unit.
        unit: String,
    },
    /// To `status`.
    Status(SystemStatus),
    /// Nothing was changed, or everything was put back.
    Failed {
        /// A frozen word for programs: `bad_request`, `not_allowed`, `no_schedule`,
        /// `bad_configuration`, `rolled_back`, `systemd`, `busy`, `internal`.
        code: String,
        /// What was being done and why it failed, causes outermost first; one line each.
        message: String,
        /// Every fault of the configuration, when that is the reason.
        #[serde(default)]
        problems: Vec<String>,
    },
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ApplyOutcome {
    /// True when nothing was changed because only the plan was asked for.
    pub dry_run: bool,
    /// The generation in force afterwards.
    pub generation: Option<u64>,
    /// The newest generation, when it was refused.
    pub refused: Option<RefusedGeneration>,
    /// Schedules whose units are new.
    pub created: Vec<ScheduleName>,
    /// Schedules whose units were changed.
    pub changed: Vec<ScheduleName>,
    /// Schedules whose units are gone.
    pub removed: Vec<ScheduleName>,
    /// How many schedules needed nothing.
    pub unchanged: u64,
    /// What was put right although the configuration did not change.
    pub repaired: Vec<Drift>,
    /// What an administrator decided otherwise, and what was left so.
    pub held: Vec<Drift>,
    /// The differences, for people: one line each, `+`, `-` and `~` in front.
    pub diff: Vec<String>,
    /// Schedules that got a key: each key should be exported and kept elsewhere.
    pub keys_made: Vec<ScheduleName>,
    /// What needs a person although the apply succeeded.
    pub warnings: Vec<String>,
    /// Whether systemd was asked to read its files again; at most once.
    pub reloaded: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A generation that was not accepted; what was in force stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedGeneration {
    /// Its number, when that much could be verified.
    pub number: Option<u64>,
    /// A frozen word: those of [`crate::Refusal::code`], `not_joined`, `other_controller`,
    /// `not_allowed`, `invalid`, `apply_failed`.
    pub code: String,
    /// The sentence for people.
    pub message: String,
    /// When.
    pub at: Instant,
}

/// What kind of difference there is between what was applied and what systemd has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// A file of ours was edited.
    Edited,
    /// A file of ours is gone.
    Deleted,
    /// A timer is loaded and never fires: systemd disarmed it.
    Disarmed,
    /// A unit of ours has failed to load or start.
    Failed,
    /// A file of ours is left of a schedule that is gone.
    Leftover,
    /// An administrator added a drop-in or replaced a unit.
    Overridden,
    /// An administrator masked the timer.
    Masked,
    /// An administrator disabled the timer.
    Disabled,
    /// An administrator stopped the timer.
    Stopped,
}

impl DriftKind {
    /// True for what is put right; false for what an administrator wants so.
    #[must_use]
    pub const fn is_repaired(self) -> bool {
        matches!(
            self,
            Self::Edited | Self::Deleted | Self::Disarmed | Self::Failed | Self::Leftover
        )
    }

    /// Gives the word, as in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Deleted => "deleted",
            Self::Disarmed => "disarmed",
            Self::Failed => "failed",
            Self::Leftover => "leftover",
            Self::Overridden => "overridden",
            Self::Masked => "masked",
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Drift {
    /// The unit.
    pub unit: String,
    /// What kind.
    pub kind: DriftKind,
    /// The file, when one is concerned.
    pub path: Option<String>,
    /// The sentence for people.
    pub detail: String,
}

/// How one schedule's timer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerStatus {
    /// Which schedule.
    pub schedule: ScheduleName,
    /// Whether the configuration wants it armed.
    pub enabled: bool,
    /// Whether systemd will fire it: it waits and has a next elapse, or its job runs now.
    pub armed: bool,
    /// When it elapses next, spread included.
    pub next_at: Option<Instant>,
    /// When it elapsed last.
    pub last_at: Option<Instant>,
    /// systemd's word for its state: `waiting`, `running`, `elapsed`, `dead`, `failed`.
    pub state: String,
}

/// How everything stands; also in `/var/lib/backstay/generations/status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemStatus {
    /// When this was looked at.
    pub at: Instant,
    /// The generation in force.
    pub generation: Option<u64>,
    /// Its hash.
    pub generation_hash: Option<GenerationHash>,
    /// The newest generation, when it was refused.
    pub refused: Option<RefusedGeneration>,
    /// Every fault of the configuration as it is now; what was applied before stays in force.
    pub problems: Vec<String>,
    /// One row per schedule.
    pub timers: Vec<TimerStatus>,
    /// Differences that are there now.
    pub drift: Vec<Drift>,
    /// Differences that were put right, with the time; the newest first, at most 100.
    pub repaired: Vec<Repaired>,
}

/// A difference that was put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// When.
    pub at: Instant,
    /// What.
    pub drift: Drift,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_short_line() {
        let name = ScheduleName::new("nightly").unwrap();
        for (request, line) in [
            (
                ControlRequest::Apply { dry_run: true },
                r#"{"word":"apply","dry_run":true}"#,
            ),
            (ControlRequest::Reconcile {}, r#"{"word":"reconcile"}"#),
            (
                ControlRequest::StartJob { name: name.clone() },
                r#"{"word":"start-job","name":"nightly"}"#,
            ),
            (
                ControlRequest::StartRestore { name: name.clone() },
                r#"{"word":"start-restore","name":"nightly"}"#,
            ),
            (
                ControlRequest::StartBrowse { name },
                r#"{"word":"start-browse","name":"nightly"}"#,
            ),
            (ControlRequest::Status {}, r#"{"word":"status"}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(
                serde_json::from_str::<ControlRequest>(line).unwrap(),
                request
            );
        }
    }

    #[test]
    fn other_words_and_fields_are_refused() {
        for line in [
            r#"{"word":"exec","argv":["sh"]}"#,
            r#"{"word":"start-job","name":"../x"}"#,
            r#"{"word":"apply","dry_run":true,"force":true}"#,
            r#"{"word":"status","x":1}"#,
            "apply",
        ] {
            assert!(
                serde_json::from_str::<ControlRequest>(line).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn the_wire_form_of_replies_stays() {
        let drift = Drift {
            unit: "backstay-job@nightly.timer".into(),
            kind: DriftKind::Edited,
            path: Some("/etc/systemd/system/backstay-job@nightly.timer.d/50-backstay.conf".into()),
            detail: "was edited by hand".into(),
        };
        let replies = [
            ControlReply::Applied(ApplyOutcome {
                generation: Some(3),
                created: vec![ScheduleName::new("nightly").unwrap()],
                repaired: vec![drift.clone()],
                reloaded: true,
                ..ApplyOutcome::default()
            }),
            ControlReply::Started {
                unit: "backstay-job@nightly.service".into(),
            },
            ControlReply::Status(SystemStatus {
                at: Instant::from_secs(1_700_000_000),
                generation: None,
                generation_hash: None,
                refused: Some(RefusedGeneration {
                    number: Some(4),
                    code: "invalid".into(),
                    message: "generation 4 is not valid".into(),
                    at: Instant::from_secs(1_700_000_000),
                }),
                problems: vec![],
                timers: vec![TimerStatus {
                    schedule: ScheduleName::new("nightly").unwrap(),
                    enabled: true,
                    armed: true,
                    next_at: Some(Instant::from_secs(1_700_000_600)),
                    last_at: None,
                    state: "waiting".into(),
                }],
                drift: vec![drift.clone()],
                repaired: vec![Repaired {
                    at: Instant::from_secs(1_700_000_000),
                    drift,
                }],
            }),
            ControlReply::Failed {
                code: "bad_configuration".into(),
                message: "the configuration has 1 fault".into(),
                problems: vec!["a.toml:1: x: unknown key".into()],
            },
        ]
        .map(|reply| serde_json::to_string(&reply).unwrap());
        insta::assert_snapshot!(replies.join("\n"), @r#"
    {"result":"applied","dry_run":false,"generation":3,"refused":null,"created":["nightly"],"changed":[],"removed":[],"unchanged":0,"repaired":[{"unit":"backstay-job@nightly.timer","kind":"edited","path":"/etc/systemd/system/backstay-job@nightly.timer.d/50-backstay.conf","detail":"was edited by hand"}],"held":[],"diff":[],"keys_made":[],"warnings":[],"reloaded":true,"took_ms":0}
    {"result":"started","unit":"backstay-job@nightly.service"}
    {"result":"status","at":"2023-11-14T22:13:20Z","generation":null,"generation_hash":null,"refused":{"number":4,"code":"invalid","message":"generation 4 is not valid","at":"2023-11-14T22:13:20Z"},"problems":[],"timers":[{"schedule":"nightly","enabled":true,"armed":true,"next_at":"2023-11-14T22:23:20Z","last_at":null,"state":"waiting"}],"drift":[{"unit":"backstay-job@nightly.timer","kind":"edited","path":"/etc/systemd/system/backstay-job@nightly.timer.d/50-backstay.conf","detail":"was edited by hand"}],"repaired":[{"at":"2023-11-14T22:13:20Z","drift":{"unit":"backstay-job@nightly.timer","kind":"edited","path":"/etc/systemd/system/backstay-job@nightly.timer.d/50-backstay.conf","detail":"was edited by hand"}}]}
    {"result":"failed","code":"bad_configuration","message":"the configuration has 1 fault","problems":["a.toml:1: x: unknown key"]}
"#);
    }
}
