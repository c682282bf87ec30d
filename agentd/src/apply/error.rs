//! Why an apply did not happen, and what the caller is told.

use std::io;
use std::path::{Path, PathBuf};

use protocol::control::ControlReply;
use settings::Problems;
use thiserror::Error;

/// What went wrong.
#[derive(Debug, Error)]
pub(crate) enum ApplyError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A file of our own does not hold what we wrote.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged { path: PathBuf, detail: String },
    /// The configuration has faults; nothing was changed.
    #[error("the configuration has faults; what was applied before stays in force")]
    Configuration(#[source] Problems),
    /// systemd's own check said something about the rendered units; nothing was changed.
    #[error("systemd-analyze rejects the rendered units; nothing was changed: {0}")]
    Rejected(String),
    /// A program of systemd could not be run.
    #[error("cannot run {program}: {detail}")]
    Program {
        program: &'static str,
        detail: String,
    },
    /// No key could be made for a schedule; nothing was changed.
    #[error(
        "cannot make the key of schedule {schedule}; nothing was changed: systemd-creds needs /var/lib/systemd/credential.secret, which `systemd-creds setup` makes: {detail}"
    )]
    Key { schedule: String, detail: String },
    /// systemd refused or failed.
    #[error("systemd cannot {doing}: {detail}")]
    Systemd { doing: String, detail: String },
    /// A timer does not stand as it was told to.
    #[error("{unit} is not armed as it should be: {detail}")]
    NotArmed { unit: String, detail: String },
    /// The change was undone.
    #[error("the change was undone, and the former units are in force again")]
    RolledBack(#[source] Box<Self>),
    /// The change failed, and so did undoing it.
    #[error("the change failed and could not be undone ({undo}); reconcile will try again")]
    Stuck { source: Box<Self>, undo: String },
    /// The schedule is not known.
    #[error("there is no applied schedule {0}")]
    NoSchedule(String),
    /// The peer may not ask this.
    #[error("{0}")]
    NotAllowed(String),
}

impl ApplyError {
    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }

    /// Gives the word for programs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "bad_configuration",
            Self::RolledBack(_) => "rolled_back",
            Self::Systemd { .. } | Self::NotArmed { .. } | Self::Rejected(_) => "systemd",
            Self::NoSchedule(_) => "no_schedule",
            Self::NotAllowed(_) => "not_allowed",
            Self::File { .. }
            | Self::Damaged { .. }
            | Self::Program { .. }
            | Self::Key { .. }
            | Self::Stuck { .. } => "internal",
        }
    }

    /// Gives the whole chain, outermost first.
    pub(crate) fn chain(&self) -> String {
        let mut lines = vec![self.to_string()];
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            lines.push(cause.to_string());
            source = cause.source();
        }
        lines.join("\n")
    }

    pub(crate) fn reply(&self) -> ControlReply {
        let (message, problems) = match self {
            Self::Configuration(problems) => (
                self.to_string(),
                problems.all().iter().map(ToString::to_string).collect(),
            ),
            _ => (self.chain(), Vec::new()),
        };
        ControlReply::Failed {
            code: self.code().to_owned(),
            message,
            problems,
        }
    }
}
